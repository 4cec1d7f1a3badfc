"""The page of a report: one HTML file without scripts, with its pictures inside, that loads nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from data_tools.report.facts import DatasetFacts, Sample

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
<main>
"""


def render(facts: DatasetFacts) -> str:
    """The page as HTML."""
    style = resources.files("data_tools.report").joinpath("style.css").read_text("utf-8")
    parts = [
        _HEAD.format(title=escape(f"{facts.name}: data set report"), style=style),
        f"<h1>{escape(facts.name)}</h1>",
        _headline(facts),
        _section("Splits", _splits(facts)),
        '<div class="pair">',
        _section("Pages of a story", _histogram(facts.pages, "stories")),
        _section("Words of a page", _histogram(facts.words, "pages")),
        "</div>",
        '<div class="pair">',
        _section("Picture sizes", _sizes(facts.sizes)),
        _section("Licenses", _bars(facts.licenses, "stories")),
        _section("Languages", _bars(facts.languages, "stories")),
        _section("Known of pages", _bars(+facts.known, "pages")),
        "</div>",
        _section("Dropped", _drops(facts)),
        _section("Sources", _sources(facts)),
        *(_sheet(name, facts.sources[name], sheet) for name, sheet in facts.sheets.items()),
        _section("Credits of the pages shown", _credits(facts)) if facts.sheets else "",
        "</main>\n",
    ]
    return "\n".join(part for part in parts if part)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def _headline(facts: DatasetFacts) -> str:
    total = sum(facts.splits.values(), Counter())
    tiles = [
        (f"{total['stories']:,}", "stories"),
        (f"{total['pages']:,}", "pages"),
        (f"{total['words']:,}", "words"),
        (_size(total["bytes"]), "of pictures"),
        (f"{len(facts.drops):,}", "dropped"),
    ]
    if facts.broken:
        tiles.append((f"{facts.broken:,}", "cannot be read"))
    return f"<ul class=tiles>{''.join(f'<li><b>{number}</b> {what}</li>' for number, what in tiles)}</ul>"


def _splits(facts: DatasetFacts) -> str:
    before = (facts.cleaning or {}).get("before", {})
    rows = [
        [name, f"{count['stories']:,}", f"{count['pages']:,}", f"{count['words']:,}", _size(count["bytes"])]
        for name, count in facts.splits.items()
    ]
    table = _table(["split", "stories", "pages", "words", "pictures"], rows)
    if not facts.cleaning:
        return table
    was = "; ".join(f"{name} {count['stories']:,} stories, {count['pages']:,} pages" for name, count in before.items())
    groups, largest = facts.cleaning["groups"], facts.cleaning["largest_group"]
    groups_text = f"Stories that share a picture or a long caption form {groups:,} groups, which no split parts"
    groups_text += f"; the largest has {largest:,} {'story' if largest == 1 else 'stories'}"
    crops = f"{facts.cleaning['cropped']:,} pages lost their bars"
    return f"{table}<p>Before cleaning: {escape(was)}. {groups_text}. {crops}.</p>"


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    if len(sizes) <= 12:
        return _bars(Counter({f"{width} × {height} px": count for (width, height), count in sizes.items()}), "pages")
    shapes: Counter[str] = Counter()
    for (width, height), count in sizes.items():
        ratio = width / height
        shapes["square" if 0.95 < ratio < 1.05 else "wider than high" if ratio > 1 else "higher than wide"] += count
    sides = [min(size) for size, count in sizes.items() for _ in range(count)]
    return f"{_bars(shapes, 'pages')}<h3>Shorter side, px</h3>{_histogram(sides, 'pages')}"


def _drops(facts: DatasetFacts) -> str:
    if not len(facts.drops):
        return "<p>Nothing.</p>"
    rows = []
    for reason, count in facts.drops.counts().items():
        examples = [drop for drop in facts.drops if drop.reason == reason][:3]
        said = [
            f"<b>{escape(drop.story)}{'' if drop.page is None else f', page {drop.page}'}</b> {escape(drop.detail)}"
            for drop in examples
        ]
        rows.append([escape(reason), f"{count:,}", "<br>".join(said)])
    return _table(["because", "times", "for example"], rows, escaped=True)


def _sources(facts: DatasetFacts) -> str:
    rows = [[name, f"{count['stories']:,}", f"{count['pages']:,}"] for name, count in facts.sources.items()]
    shown = _table(["source", "stories", "pages"], rows[:40])
    return f"{shown}<p>and {len(rows) - 40:,} smaller ones</p>" if len(rows) > 40 else shown


def _sheet(name: str, count: Counter[str], sheet: Sequence[Sample]) -> str:
    figures = [
        f'<figure><img src="{one.image}" alt="{escape(one.caption[:200])}" loading=lazy>'
        f"<figcaption>{escape(_short(one.caption)) or '<i>no text</i>'}"
        f"<small>{escape(one.title)}, page {one.page}</small></figcaption></figure>"
        for one in sheet
    ]
    stories = f"{count['stories']:,} {'story' if count['stories'] == 1 else 'stories'}, {count['pages']:,} pages"
    return (
        f"<section><h2>{escape(name)} <small>{stories}</small></h2><div class=sheet>{''.join(figures)}</div></section>"
    )


def _credits(facts: DatasetFacts) -> str:
    lines = {f"<b>{escape(one.title)}</b> {escape(one.rights)}" for sheet in facts.sheets.values() for one in sheet}
    return f"<p class=credits>{' · '.join(sorted(lines))}</p>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], escaped: bool = False) -> str:
    def cell(text: str) -> str:
        number = text[:1].isdigit() and len(text) < 16
        return f"<td{' class=number' if number else ''}>{text if escaped else escape(text)}</td>"

    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{body}</table>"


def _bars(counts: Counter[str], unit: str, most: int = 12) -> str:
    """A horizontal bar for each name, the largest first."""
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[most:])
    shown = [*ordered[:most], *([(f"{len(ordered) - most} others", rest)] if rest else [])]
    top = max(count for _, count in shown)
    rows = [
        f"<tr><td>{escape(name)}</td><td class=number>{count:,}</td>"
        f'<td class=bar><i style="width:{100 * count / top:.1f}%"></i></td></tr>'
        for name, count in shown
    ]
    return f'<table class=bars title="{escape(unit)}">{"".join(rows)}</table>'


def _histogram(values: Sequence[int], unit: str) -> str:
    """Columns over up to 24 equal ranges of whole numbers; what lies above the 99th percentile is in the last one."""
    if not values:
        return ""
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    step = max(1, -(-(high - low + 1) // 24))
    count = (high - low) // step + 1
    bins = Counter(min((value - low) // step, count - 1) for value in values)
    top = max(bins.values())
    width = 480 / count
    columns = []
    for place in range(count):
        height = 120 * bins[place] / top
        first, last = low + place * step, low + (place + 1) * step - 1
        if place == count - 1:
            last = max(last, ordered[-1])
        name = f"{first}" if first == last else f"{first} to {last}"
        columns.append(
            f'<rect x="{place * width + 1:.1f}" y="{130 - height:.1f}" width="{width - 2:.1f}" height="{height:.1f}">'
            f"<title>{name}: {bins[place]:,} {unit}</title></rect>"
        )
    labels = []
    for place in sorted({0, count // 4, count // 2, 3 * count // 4, count - 1}):
        more = "+" if place == count - 1 and ordered[-1] >= low + count * step else ""
        spot = f'x="{(place + 0.5) * width:.1f}" y="148"'
        if place == count - 1 and count > 1:
            spot = 'x="480" y="148" style="text-anchor: end"'
        labels.append(f"<text {spot}>{low + place * step}{more}</text>")
    middle = ordered[len(ordered) // 2]
    said = f"median {middle:,}, mean {sum(values) / len(values):.1f}, {ordered[0]:,} to {ordered[-1]:,}"
    return f'<svg viewBox="0 0 480 154" role=img aria-label="{said}">{"".join(columns + labels)}</svg><p>{said}</p>'


def _short(text: str, length: int = 90) -> str:
    return text if len(text) <= length else f"{text[:length].rsplit(' ', 1)[0]} …"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
