"""Figures, tables and plots of the study of long stories (`inference.long_story`)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.judge import ATTRIBUTES

MB = 1e6
Row = dict[str, Any]
AWAY = ((1, 1), (2, 5), (6, 12), (13, 24), (25, 10_000))
COLUMNS = {
    "perplexity": "perplexity ↓",
    "feature_error": "feature error (1 - cos) ↓",
    "feature_mse": "feature MSE ↓",
    "species_and_outfit": "species + outfit ↑",
    "all": "all five ↑",
    "hero": "hero ↑",
    "returning": "returning ↑",
    "distinct_2": "distinct-2 ↑",
    "repeated_4": "repeated 4-grams ↓",
    "seconds": "s/page ↓",
    "cached_tokens": "tokens kept",
    "cache_mb": "cache MB ↓",
    "process_mb": "process MB",
}
_PERCENT = {"species_and_outfit", "all", "hero", "returning", "distinct_2", "repeated_4"}
_COSTS = {"seconds", "cached_tokens", "cache_mb", "process_mb"}
_COLORS = {
    "recompute": "#777777",
    "dense": "#222222",
    "window": "#d1495b",
    "sink": "#edae49",
    "mm_sink": "#00798c",
    "the": "#8d6a9f",
}
_STYLES = ("-", "--", ":", "-.")
_SMOOTH = 5  # pages on either side


@dataclass(frozen=True)
class Measurement:
    """The measured pages of one story under one policy."""

    label: str
    story: str
    pages: list[Row]


def page_ranges(lengths: list[int]) -> list[tuple[int, int]]:
    """First and last page of each range: `[10, 25]` gives pages 2 to 10 and 11 to 25. Page 1 is the opening.

    Raises:
        ValueError: The lengths do not grow from 2 on.
    """
    if lengths != sorted(set(lengths)) or lengths[0] < 2:
        raise ValueError(f"the lengths must grow and begin at 2 or more, not {lengths}")
    return [(before + 1, last) for before, last in zip([1, *lengths], lengths)]


def summarize(results: list[Measurement], ranges: list[tuple[int, int]], away: int) -> dict[str, Any]:
    """Figures by range, by absence and by page.

    Args:
        results: All measurements.
        ranges: First and last page of each range.
        away: Absence in pages from which on a character counts as returning.

    Returns:
        `table` (range, label, metric: mean and standard error over stories), `absence` (label, pages away: share of
        characters whose species and outfit are right) and `curves` (label, metric: mean over stories, page by page).
    """
    labels = list(dict.fromkeys(result.label for result in results))
    for result in results:
        _note_repetition(result.pages)
    table: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for first, last in ranges:
        table[f"{first}-{last}"] = rows = {}
        for label in labels:
            parts = [[row for row in r.pages if first <= row["page"] <= last] for r in results if r.label == label]
            figures = {name: _over_stories([metric(part, away) for part in parts]) for name, metric in METRICS.items()}
            if any(parts):
                rows[label] = {name: figure for name, figure in figures.items() if figure is not None}
    return {
        "table": table,
        "absence": {label: _by_absence([r for r in results if r.label == label]) for label in labels},
        "curves": {label: _curves([r.pages for r in results if r.label == label], away) for label in labels},
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as text."""
    settings = ", ".join(f"{key} {value}" for key, value in report["settings"].items())
    lines = [
        f"# Long stories, {report['mode']}",
        "",
        f"Model {report['model']['name']}; {report['data']}; {settings}.",
        "Mean over stories ± standard error. Page 1 is the opening and not counted.",
    ]
    if report["mode"] == "scripted":
        lines[-1] += (
            " *Hero*: species and outfit of the character whom page 1 describes; *returning*: of characters who were"
            f" away for more than {report['away']} pages."
            " Seconds are those of the language model, captions given, without drawing."
        )
    for span, rows in report["table"].items():
        names = [name for name in COLUMNS if any(name in row for row in rows.values())]
        lines += ["", f"## Pages {span}", "", "| policy | " + " | ".join(COLUMNS[name] for name in names) + " |"]
        lines.append("|---|" + "---:|" * len(names))
        for label, row in rows.items():
            lines.append(f"| {label} | " + " | ".join(_cell(name, row.get(name)) for name in names) + " |")
    if any(report["absence"].values()):
        lines += ["", "## Species and outfit right, by pages since the character was last shown", ""]
        lines.append("| policy | " + " | ".join(_away_name(*span) for span in AWAY) + " |")
        lines.append("|---|" + "---:|" * len(AWAY))
        for label, bins in report["absence"].items():
            found = [bins.get(_away_name(*span)) for span in AWAY]
            cells = ["" if b is None else f"{100 * b['share']:.1f} % of {b['characters']}" for b in found]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![page by page](pages.png)", ""])


def plot(report: dict[str, Any], stem: Path) -> None:
    """Draws the figures page by page to `stem.png` and `stem.svg`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    shown = {
        "perplexity": "perplexity",
        "feature_error": "feature error (1 - cosine)",
        "species_and_outfit": "species and outfit, all",
        "hero": "species and outfit, hero of page 1",
        "distinct_2": "distinct-2 within a page",
        "repeated_4": "4-grams of earlier pages",
        "seconds": "seconds a page, language model",
        "cache_mb": "cache, MB",
    }
    names = [name for name in shown if any(name in curves for curves in report["curves"].values())]
    panels = len(names) + any(report["absence"].values())
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    style |= {"grid.color": "#e6e6e6", "axes.titlesize": 10, "axes.titleweight": "bold", "svg.hashsalt": "seedstory"}
    middle = dict.fromkeys(_COSTS, statistics.median) | {"perplexity": statistics.geometric_mean}
    with pyplot.rc_context(style):
        lines = -(-panels // 4)
        figure, grid = pyplot.subplots(lines, 4, figsize=(15, 3.3 * lines), squeeze=False)
        axes = list(grid.flat)
        styles = _line_styles(list(report["curves"]))
        for name, axis in zip(names, axes):
            for label, curves in report["curves"].items():
                if name in curves:
                    pages, values = zip(*_smooth(curves[name], middle.get(name, statistics.fmean)))
                    axis.plot(pages, values, label=label, linewidth=1.5, **styles[label])
            axis.set(title=shown[name], xlabel="page")
            if name in _PERCENT:
                axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
            if name in ("species_and_outfit", "hero", *_COSTS):
                axis.set_ylim(0, 1.03 if name in _PERCENT else None)
            if name == "perplexity":
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
                axis.yaxis.set_minor_formatter(ticker.NullFormatter())
        if panels > len(names):
            _plot_absence(axes[len(names)], report["absence"], styles)
        for axis in axes[panels:]:
            axis.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=min(len(labels), 8), frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()))
        stem.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(stem.with_suffix(".png"), dpi=130)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
        pyplot.close(figure)


def _plot_absence(axis: Any, absence: dict[str, Any], styles: dict[str, Any]) -> None:
    names = [_away_name(*span) for span in AWAY]
    for label, bins in absence.items():
        found = [(place, bins[name]["share"]) for place, name in enumerate(names) if name in bins]
        if found:
            axis.plot(*zip(*found), marker="o", markersize=4, linewidth=1.5, label=label, **styles[label])
    from matplotlib.ticker import PercentFormatter

    axis.set(title="species and outfit, after absence", xlabel="pages since last shown")
    axis.set_xticks(range(len(names)), names)
    axis.set(xlim=(-0.3, len(names) - 0.7), ylim=(0, 1.03))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _line_styles(labels: list[str]) -> dict[str, dict[str, str]]:
    """A color for each policy; its variants differ in dashes."""
    count: dict[str, int] = {}
    styles = {}
    for label in labels:
        policy = label.split()[0]
        styles[label] = {"color": _COLORS.get(policy, "#444444"), "linestyle": _STYLES[count.get(policy, 0) % 4]}
        count[policy] = count.get(policy, 0) + 1
    return styles


def _smooth(curve: list[list[float]], middle: Callable[[list[float]], float]) -> list[tuple[float, float]]:
    """The middle value of the pages nearby, for every page."""
    return [(page, middle([value for other, value in curve if abs(other - page) <= _SMOOTH])) for page, _ in curve]


def _cell(name: str, figure: dict[str, float] | None) -> str:
    if figure is None:
        return ""
    scale, digits = (100, 1) if name in _PERCENT else (1, 0 if name in ("cached_tokens", "process_mb") else 2)
    if name in ("feature_error", "feature_mse"):
        digits = 4
    text = f"{scale * figure['mean']:.{digits}f}" + " %" * (name in _PERCENT)
    error = figure["error"]
    return text if error is None or name in _COSTS else f"{text} ± {scale * error:.{digits}f}"


def _away_name(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}" if last < AWAY[-1][1] else f"{first}+"


def _over_stories(values: list[float | None]) -> dict[str, float | None] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    error = statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "error": error, "stories": len(known)}


def _by_absence(results: list[Measurement]) -> dict[str, dict[str, float]]:
    characters = [who for result in results for row in result.pages[1:] for who in row.get("characters", [])]
    bins = {}
    for first, last in AWAY:
        hits = [who["species"] and who["outfit"] for who in characters if who["away"] and first <= who["away"] <= last]
        if hits:
            bins[_away_name(first, last)] = {"share": statistics.fmean(hits), "characters": len(hits)}
    return bins


def _curves(stories: list[list[Row]], away: int) -> dict[str, list[list[float]]]:
    curves: dict[str, list[list[float]]] = {}
    for name, metric in METRICS.items():
        for page in range(2, max(map(len, stories)) + 1):
            rows = [story[page - 1] for story in stories if len(story) >= page]
            values = [value for row in rows if (value := metric([row], away)) is not None]
            if values:
                curves.setdefault(name, []).append([page, statistics.fmean(values)])
    return curves


def _note_repetition(pages: list[Row]) -> None:
    """Notes on each page with words the share of its 4-grams that an earlier page has too."""
    seen: set[tuple[str, ...]] = set()
    for row in pages:
        if "caption" in row:
            here = _runs(row["caption"], 4)
            row["repeated_4"] = sum(run in seen for run in here) / len(here) if here else None
            seen.update(here)


def _runs(text: str, size: int) -> list[tuple[str, ...]]:
    words = text.lower().split()
    return [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]


def _mean_of(key: str) -> Callable[[list[Row], int], float | None]:
    def mean(rows: list[Row], away: int) -> float | None:
        values = [row[key] for row in rows if row.get(key) is not None]
        return statistics.fmean(values) if values else None

    return mean


def _most(key: str, unit: float = 1) -> Callable[[list[Row], int], float | None]:
    return lambda rows, away: max((row[key] / unit for row in rows if key in row), default=None)


def _seconds(rows: list[Row], away: int) -> float | None:
    values = [row["seconds"] for row in rows if "seconds" in row]
    return statistics.median(values) if values else None


def _perplexity(rows: list[Row], away: int) -> float | None:
    scored = [row for row in rows if row.get("log_likelihood") is not None]
    tokens = sum(row["caption_tokens"] for row in scored)
    return math.exp(-sum(row["log_likelihood"] for row in scored) / tokens) if tokens else None


def _distinct_2(rows: list[Row], away: int) -> float | None:
    runs = [run for row in rows for run in _runs(row.get("caption", ""), 2)]
    return len(set(runs)) / len(runs) if runs else None


def _share(*keys: str, hero: bool = False, returning: bool = False) -> Callable[[list[Row], int], float | None]:
    """Share of the judged characters that are right in all of some attributes."""

    def share(rows: list[Row], away: int) -> float | None:
        characters = [who for row in rows for who in row.get("characters", [])]
        if hero:
            characters = [who for who in characters if who["hero"]]
        if returning:
            characters = [who for who in characters if who["away"] and who["away"] > away]
        hits = [all(who[key] for key in keys) for who in characters]
        return statistics.fmean(hits) if hits else None

    return share


METRICS: dict[str, Callable[[list[Row], int], float | None]] = {
    "perplexity": _perplexity,
    "feature_error": _mean_of("feature_error"),
    "feature_mse": _mean_of("feature_mse"),
    **{name: _share(name) for name in ATTRIBUTES},
    "species_and_outfit": _share("species", "outfit"),
    "all": _share(*ATTRIBUTES),
    "hero": _share("species", "outfit", hero=True),
    "returning": _share("species", "outfit", returning=True),
    "distinct_2": _distinct_2,
    "repeated_4": _mean_of("repeated_4"),
    "seconds": _seconds,
    "cached_tokens": _most("cached_tokens"),
    "cache_mb": _most("cache_bytes", MB),
    "process_mb": _most("process_bytes", MB),
}
