"""Compare the cache policies on long stories: quality by page 10, 25, 50, 100 and 200, and cost.

SEED-Story trains on ten pages, generates many more, and compares four policies (arXiv 2407.08683, table 2). This is
that table for the paper theatre, with ground truth in place of FID: every policy gets the same held-out captions,
draws their images from its own earlier ones, and is compared with the true images.

\b
examples:
  # the stories: 200 pages each, in data/theatre/long-heldout.jsonl
  python -m data_tools.paper_theatre generate --out data/theatre --split heldout --stories 6 --pages 200
  # a first look, in three minutes on two cores
  python -m inference.long_story --data data/theatre --out runs/long --quick
  # the table; a stopped run resumes
  python -m inference.long_story --data data/theatre --out runs/long --policies recompute:50,dense:100,sink,mm_sink
  # how much must a sink hold?
  python -m inference.long_story --data data/theatre --out runs/sinks --policies mm_sink --first-tokens 4,64,128
  # free writing after page 1: seconds, memory and repetition
  python -m inference.long_story --data data/theatre --out runs/free --mode free
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import torch
import torch.nn.functional as F
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from inference.image_quality import tower_features
from inference.judge import ATTRIBUTES, WEIGHTS, Judge
from inference.long_report import Measurement, markdown, page_ranges, plot, summarize
from seedstory.cache import CachePolicy
from seedstory.generation import GivenPage, StoryEngine
from seedstory.image import image_to_tensor, load_image, to_square
from seedstory.io import write_atomic
from seedstory.pipeline import StoryPipeline
from seedstory.settings import POLICIES
from seedstory.story import page_seed
from seedstory.storystream import StoryRecord, read_jsonl

MODES = ("scripted", "free")
_BATCH = 16


@dataclass(frozen=True)
class Variant:
    """A cache policy under study, and how far its stories go."""

    label: str
    policy: CachePolicy
    pages: int


def make_variants(policies: str, pages: int, **lists: list[int]) -> list[Variant]:
    """Every policy with every combination of the settings that it heeds.

    Args:
        policies: Names, each with a limit of pages where it has one of its own: "recompute:50,mm_sink".
        pages: Pages of the stories of the others.
        lists: Values of `window_pages`, `first_tokens`, `salient_pages`, `kept_images`, `image_ends` (head and
            tail) and `max_sink_tokens`. A setting with several values is named in the label.

    Raises:
        ValueError: A policy is unknown, or a setting is out of range.
    """
    heeded = {
        "recompute": ["window_pages"],
        "dense": [],
        "window": ["window_pages"],
        "sink": ["window_pages", "first_tokens"],
        "mm_sink": ["window_pages", "first_tokens", "salient_pages", "kept_images", "image_ends", "max_sink_tokens"],
    }
    letters = {key: key[0] for key in lists} | {"image_ends": "e", "max_sink_tokens": "b"}
    variants = []
    for item in policies.split(","):
        name, _, limit = item.strip().partition(":")
        if name not in POLICIES:
            raise ValueError(f"unknown policy {name!r}: choose from {', '.join(POLICIES)}")
        if limit and not (limit.isdecimal() and int(limit) > 1):
            raise ValueError(f"{item!r}: the number of pages after the colon must be 2 or more")
        keys = heeded[name]
        for values in itertools.product(*(lists[key] for key in keys)):
            chosen = dict(zip(keys, values, strict=True))
            named = [f"{letters[key]}{value}" for key, value in chosen.items() if len(lists[key]) > 1]
            if "image_ends" in chosen:
                chosen["image_head"] = chosen["image_tail"] = chosen.pop("image_ends")
            policy = CachePolicy(name=name, **chosen)
            variants.append(Variant(" ".join([name, *named]), policy, min(int(limit or pages), pages)))
    return variants


class Bench:
    """Measures stories; holds the model, the judge and the true pictures' features.

    Args:
        pipeline: The model.
        judge: Says who stands where in a picture.
        data: Folder of the data set.
        ranges: First and last page of each range of pages, counted from 1.
        images: Pages of each range that are drawn and judged.
        steps: De-tokenizer steps.
        seed: Seed of words and pictures.
    """

    def __init__(
        self,
        pipeline: StoryPipeline,
        judge: Judge,
        data: Path,
        *,
        ranges: list[tuple[int, int]],
        images: int,
        steps: int,
        seed: int,
    ) -> None:
        self.pipeline, self.judge, self.data = pipeline, judge, data
        self.steps, self.seed = steps, seed
        self.drawn = {page for span in ranges for page in _evenly(*span, images)}
        self._true_features: dict[str, Tensor] = {}

    def request(self, variant: Variant) -> dict[str, Any]:
        """Everything besides the story that the figures of a variant depend on."""
        return {
            "policy": asdict(variant.policy),
            "length": variant.pages,
            "drawn": sorted(page for page in self.drawn if page <= variant.pages),
            "steps": self.steps,
            "seed": self.seed,
            "model": self.pipeline.identity.fingerprint,
        }

    def scripted(
        self, variant: Variant, record: StoryRecord, callback_on_page: Callable[[], Any]
    ) -> list[dict[str, Any]]:
        """Gives all captions and measures each page under the policy.

        Returns:
            For each page its log-likelihood, feature errors, costs, and the judged characters where it was drawn.
        """
        true = self.true_features(record)
        rows, features = [], []
        pages = self._pages(variant, record, [GivenPage(caption) for caption in record.captions], score=True)
        for row, draft in pages:
            seen = draft.features.cpu()
            row["log_likelihood"], row["caption_tokens"] = draft.log_likelihood, draft.caption_tokens
            row["feature_error"] = 1 - F.cosine_similarity(seen, true[draft.index], dim=-1).mean().item()
            row["feature_mse"] = F.mse_loss(seen, true[draft.index]).item()
            rows.append(row)
            features.append(seen)
            callback_on_page()
        self._judge_pages(rows, features, record)
        return rows

    def generated(
        self, variant: Variant, record: StoryRecord, callback_on_page: Callable[[], Any]
    ) -> list[dict[str, Any]]:
        """Gives page 1's caption and lets the model write on; for each page its words and its costs."""
        rows = []
        for row, draft in self._pages(variant, record, [GivenPage(record.captions[0])]):
            rows.append(row | {"caption": draft.caption})
            callback_on_page()
        return rows

    @torch.inference_mode()
    def true_features(self, record: StoryRecord) -> Tensor:
        """What the vision tower sees in the story's true pictures, `[P, F, Df]`."""
        if record.id not in self._true_features:
            tower = self.pipeline.vision_tower
            size, fit = tower.config.image_size, tower.image_fit
            images = [image_to_tensor(to_square(load_image(self.data / path), size, fit)) for path in record.images]
            self._true_features = {record.id: tower_features(tower, torch.stack(images))}
        return self._true_features[record.id]

    def _pages(
        self, variant: Variant, record: StoryRecord, opening: list[GivenPage], **options: bool
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """The first pages of a story that is always as long as its record, so that all page labels are the same."""
        engine = StoryEngine(self.pipeline.story_model, variant.policy)
        engine.start(opening, pages=len(record), seed=self.seed, **options)
        for draft in itertools.islice(engine.pages(), variant.pages):
            costs = {
                "page": draft.index + 1,
                "seconds": draft.seconds,
                "cached_tokens": draft.cached_tokens,
                "cache_bytes": engine.cache.nbytes,
                "process_bytes": psutil.Process().memory_info().rss,
            }
            yield costs, draft

    @torch.inference_mode()
    def _judge_pages(self, rows: list[dict[str, Any]], features: list[Tensor], record: StoryRecord) -> None:
        """Draws some pages and stores which attributes of each character the judge finds right, as `characters`."""
        away = page_distances(record)
        hero = next(iter(away[0]), None)
        pages = [row["page"] - 1 for row in rows if row["page"] in self.drawn]
        for start in range(0, len(pages), _BATCH):
            batch = pages[start : start + _BATCH]
            pixels = self.pipeline.detokenizer(
                torch.stack([features[page] for page in batch]),
                [torch.Generator().manual_seed(page_seed(self.seed, page)) for page in batch],
                num_inference_steps=self.steps,
                output_type="pt",
            )
            assert isinstance(pixels, Tensor)
            pixels = pixels.float() * 2 - 1
            answers = {slot: self.judge.classify(pixels, slot) for slot in self.judge.config.slots}
            for place, page in enumerate(batch):
                rows[page]["characters"] = [
                    {"name": actor["name"], "hero": actor["name"] == hero, "away": away[page][actor["name"]]}
                    | {key: answers[actor["slot"]][place][key] == actor[key] for key in ATTRIBUTES}
                    for actor in _actors(record, page)
                ]


def _actors(record: StoryRecord, page: int) -> list[dict[str, Any]]:
    """The characters of a page, as its ground truth has them."""
    truth = record.pages[page] if record.pages else None
    assert truth is not None, "the records are checked when they are chosen"
    return truth["actors"]


def page_distances(record: StoryRecord) -> list[dict[str, int | None]]:
    """For each page and character on it: pages since the character was last shown; None where it is new."""
    last: dict[str, int] = {}
    result: list[dict[str, int | None]] = []
    for page in range(len(record.pages or ())):
        names = [actor["name"] for actor in _actors(record, page)]
        result.append({name: page - last[name] if name in last else None for name in names})
        last |= dict.fromkeys(names, page)
    return result


def _evenly(first: int, last: int, count: int) -> list[int]:
    """At most `count` pages of a range, evenly spread."""
    pages = last - first + 1
    count = min(count, pages)
    return [first + (2 * i + 1) * pages // (2 * count) for i in range(count)]


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give whole numbers with commas between them", param_hint=option) from None


def measure_all(
    bench: Bench, mode: str, records: list[StoryRecord], variants: list[Variant], folder: Path
) -> list[Measurement]:
    """Measures every story under every variant, except those that the folder holds already."""
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pages"),
    )
    columns += (TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    results = []
    with Progress(*columns, speed_estimate_period=600) as bar:
        total = len(records) * sum(variant.pages for variant in variants)
        task = bar.add_task("", total=total)
        for record, variant in itertools.product(records, variants):
            bar.update(task, description=f"{variant.label}, {record.id}")
            file = folder / f"{mode}-{variant.label.replace(' ', '-')}-{record.id}.json"
            request = {"mode": mode, "story": record.id, "captions": record.captions} | bench.request(variant)
            pages = _kept(file, request)
            if pages is not None:
                total -= variant.pages
                bar.update(task, total=total)
            else:
                measure = bench.scripted if mode == "scripted" else bench.generated
                pages = measure(variant, record, lambda: bar.advance(task))
                write_atomic(file, json.dumps({"request": request, "pages": pages}) + "\n", make_folder=True)
            results.append(Measurement(variant.label, record.id, pages))
    return results


def _kept(file: Path, request: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The pages of a finished measurement, if it is there."""
    if not file.is_file():
        return None
    found = json.loads(file.read_text("utf-8"))
    other = [key for key in request if found["request"].get(key) != request[key]]
    if other:
        raise typer.BadParameter(f"{file} was measured with another {', '.join(other)}: give another --out")
    return found["pages"]


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__, no_args_is_help=True)
def main(
    data: Annotated[Path, typer.Option(help="folder of a StoryStream data set with long stories and ground truth")],
    out: Annotated[Path, typer.Option(help="folder for results and report; finished stories there are kept")],
    split: Annotated[str, typer.Option(help="name of the JSONL without the ending")] = "long-heldout",
    mode: Annotated[str, typer.Option(help="scripted (captions given) or free (after page 1)")] = "scripted",
    policies: Annotated[
        str, typer.Option(help="policies, each with its own limit of pages if wanted: recompute:50,mm_sink")
    ] = ",".join(POLICIES),
    lengths: Annotated[str, typer.Option(help="pages at which a range of the report ends")] = "10,25,50,100,200",
    stories: Annotated[int, typer.Option(help="how many stories", min=1)] = 4,
    window: Annotated[str, typer.Option(help="pages that stay whole; several, 12,5, are compared")] = str(
        CachePolicy.window_pages
    ),
    first_tokens: Annotated[str, typer.Option(help="first tokens kept (sink, mm_sink)")] = str(
        CachePolicy.first_tokens
    ),
    salient_pages: Annotated[
        str, typer.Option(help="pages whose words are kept, as names first occur there (mm_sink)")
    ] = str(CachePolicy.salient_pages),
    kept_images: Annotated[str, typer.Option(help="evicted pictures of which something is kept (mm_sink)")] = str(
        CachePolicy.kept_images
    ),
    image_ends: Annotated[str, typer.Option(help="head and tail kept of a picture (mm_sink)")] = str(
        CachePolicy.image_head
    ),
    max_sink_tokens: Annotated[str, typer.Option(help="most tokens kept of evicted pages (mm_sink)")] = str(
        CachePolicy.max_sink_tokens
    ),
    images: Annotated[int, typer.Option(help="pages of each range that are drawn and judged", min=0)] = 50,
    steps: Annotated[int, typer.Option(help="de-tokenizer steps", min=1)] = 4,
    model: str = "mini",
    judge: Annotated[Path, typer.Option(help="folder of the judge's weights")] = WEIGHTS,
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
    quick: Annotated[bool, typer.Option(help="one story of 50 pages, window of 5: three minutes")] = False,
) -> None:
    if mode not in MODES:
        raise typer.BadParameter(f"{mode!r}: choose {' or '.join(MODES)}", param_hint="--mode")
    if quick:
        policies, lengths, stories, window, images = ",".join(POLICIES), "10,25,50", 1, "5", 10
    settings = {
        "window_pages": _numbers(window, "--window"),
        "first_tokens": _numbers(first_tokens, "--first-tokens"),
        "salient_pages": _numbers(salient_pages, "--salient-pages"),
        "kept_images": _numbers(kept_images, "--kept-images"),
        "image_ends": _numbers(image_ends, "--image-ends"),
        "max_sink_tokens": _numbers(max_sink_tokens, "--max-sink-tokens"),
    }
    try:
        ranges = page_ranges(_numbers(lengths, "--lengths"))
        variants = make_variants(policies, ranges[-1][1], **settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    ends = [end for _, end in ranges]
    records = _records(data / f"{split}.jsonl", stories, max(variant.pages for variant in variants), ends)

    pipeline = StoryPipeline.from_pretrained(model)
    bench = Bench(pipeline, Judge.load(judge), data, ranges=ranges, images=images, steps=steps, seed=seed)
    results = measure_all(bench, mode, records, variants, out / "results")
    if mode == "free":  # how often stories of this kind repeat themselves
        for record in records:
            captions = [{"page": page, "caption": caption} for page, caption in enumerate(record.captions, 1)]
            results.append(Measurement("the data set", record.id, captions[: ranges[-1][1]]))

    report: dict[str, Any] = {
        "mode": mode,
        "model": pipeline.identity.to_dict(),
        "data": f"{split}: {', '.join(record.id for record in records)}",
        "settings": settings | {"seed": seed, "steps": steps, "images": images},
        "away": max(settings["window_pages"]),
    }
    report |= summarize(results, ranges, away=report["away"])
    for path in (out / "report.json", json_file):
        if path is not None:
            write_atomic(path, json.dumps(report, indent=1) + "\n", make_folder=True)
    plot(report, out / "pages")
    write_atomic(out / "report.md", markdown(report), make_folder=True)
    typer.echo(f"{markdown(report)}\n{out / 'report.md'}")


def _records(file: Path, stories: int, pages: int, ends: list[int]) -> list[StoryRecord]:
    """The stories to generate, all of so many pages; `ends` are those of the ranges, for advice."""
    if not file.is_file():
        raise typer.BadParameter(
            f"there is no {file}: write it with python -m data_tools.paper_theatre generate --out {file.parent} "
            f"--split heldout --stories {stories} --pages {max(pages, 200)}"
        )
    records = list(itertools.islice(read_jsonl(file), stories))
    if len(records) < stories:
        raise typer.BadParameter(f"{file} has {len(records)} stories, not {stories}", param_hint="--stories")
    for record in records:
        if record.pages is None or None in record.pages:
            raise typer.BadParameter(f"{file}: story {record.id} lacks ground truth (`pages`)")
        if len(record) < pages:
            shorter = [str(end) for end in ends if end < len(record)] + [str(len(record))]
            raise typer.BadParameter(
                f"{file}: story {record.id} has {len(record)} pages, not {pages}: give --lengths {','.join(shorter)}, "
                f"or write longer ones with python -m data_tools.paper_theatre generate --out {file.parent} "
                f"--split heldout --stories {stories} --pages {pages}",
                param_hint="--lengths",
            )
    return records


if __name__ == "__main__":
    app()
