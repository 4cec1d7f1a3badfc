"""Whether a story model looks at the pictures in its context: who is drawn when only a picture has said it.

The stories' words name their characters and say nothing of what they look like. All captions are given; the true
picture is given where somebody comes in, the model draws the other pages. It does so three times: with these pictures
as they are, with their features set to zero, and with those of the same scenes in which everybody looks otherwise
(recast). A model that reads pictures draws the true appearances in the first case, chance in the second, and the
appearances of the recast ones in the third; one that does not draws the same each time.

    python -m data_tools.paper_theatre generate --out data/shown --stories 12 --split heldout --appearances shown
    (the same once more with --recast)
    python -m inference.image_use mini --data data/shown
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers.utils import logging

from inference.image_quality import tower_features
from inference.judge import WEIGHTS, Judge, score
from seedstory.cache import CachePolicy
from seedstory.generation import GivenPage, StoryEngine, StoryRequest
from seedstory.image import image_to_tensor, load_image, resize_pixels, to_square
from seedstory.pipeline import StoryPipeline
from seedstory.settings import POLICIES
from seedstory.storystream import StoryRecord, read_jsonl

CONTEXTS = ("true", "zero", "recast")
SHOWN = ("species", "outfit", "hat", "species_and_outfit")
_BATCH = 32


@dataclass(frozen=True)
class ShownStory:
    """A story twice: as it is, and recast.

    Attributes:
        record: The story.
        recast: The same story in which everybody looks otherwise; its captions are the same.
        given: Numbers of the pages whose pictures are given: the first one, and those where somebody comes in.
    """

    record: StoryRecord
    recast: StoryRecord
    given: tuple[int, ...]


def read_stories(data: Path, split: str, limit: int, pages: int) -> list[ShownStory]:
    """Stories of a data set with their recast twins.

    Raises:
        ValueError: There are none, or the two splits do not hold the same stories.
    """
    records, others = (list(read_jsonl(data / f"{name}.jsonl"))[:limit] for name in (split, f"recast-{split}"))
    if not records or len(records) != len(others):
        raise ValueError(f"{data} has {len(records)} stories in {split} and {len(others)} in recast-{split}: make both")
    found = []
    for record, other in zip(records, others, strict=True):
        if record.captions != other.captions:
            raise ValueError(f"{record.id} and {other.id} have other words: make both with --appearances shown")
        met: set[str] = set()
        given = []
        for number, truth in enumerate((record.pages or [])[:pages]):
            names = {actor["name"] for actor in (truth or {}).get("actors", ())}
            if number == 0 or names - met:
                given.append(number)
            met |= names
        if not met:
            raise ValueError(f"{record.id} has no ground truth (`pages`)")
        found.append(ShownStory(record, other, tuple(given)))
    return found


@torch.inference_mode()
def image_use(
    pipeline: StoryPipeline, judge: Judge, data: Path, stories: Sequence[ShownStory], *, pages: int, policy: str
) -> dict[str, Any]:
    """Shares of characters that look as the true and as the recast pictures show them, for each context.

    Args:
        pipeline: The model.
        judge: Looks at the pictures.
        data: Folder of the data set.
        stories: From `read_stories`.
        pages: At most so many pages of each story.
        policy: Cache policy.
    """
    figures: dict[str, Any] = {}
    for context in CONTEXTS:
        drawn: list[Tensor] = []
        truths: dict[str, list[dict[str, Any]]] = {"true": [], "recast": []}
        for story in stories:
            count = min(pages, len(story.record))
            source = story.recast if context == "recast" else story.record
            seen = _features(pipeline, data, [source.images[page] for page in story.given])
            if context == "zero":
                seen = torch.zeros_like(seen)
            given = dict(zip(story.given, seen, strict=True))
            opening = [GivenPage(story.record.captions[page], given.get(page)) for page in range(count)]
            engine = StoryEngine(pipeline.story_model, CachePolicy(name=policy), decoding=pipeline.decoding)
            engine.start_batch([StoryRequest(opening, count)])
            features = torch.stack([draft.features.cpu() for draft in engine.pages() if draft.index not in given])
            drawn.append(_pictures(pipeline, features))
            for name, record in (("true", story.record), ("recast", story.recast)):
                assert record.pages is not None, "read_stories has seen to it"
                truths[name] += [record.pages[page] or {} for page in range(count) if page not in given]
        pixels = torch.cat(drawn)
        scores = {name: score(judge, pixels, some) for name, some in truths.items()}
        figures[context] = {name: {key: one[key] for key in SHOWN} for name, one in scores.items()}
        figures["pages"], figures["characters"] = len(pixels), int(scores["true"]["characters"])
    return figures


def _features(pipeline: StoryPipeline, data: Path, paths: Sequence[str]) -> Tensor:
    """Features [P, F, Df] of pictures of the data set."""
    tower = pipeline.vision_tower
    images = [to_square(load_image(data / path), tower.config.image_size, tower.image_fit) for path in paths]
    return tower_features(tower, image_to_tensor(images))


def _pictures(pipeline: StoryPipeline, features: Tensor) -> Tensor:
    """Pictures [P, 3, S, S] in [-1, 1] at the size that the tower reads."""
    side, parts = pipeline.vision_tower.config.image_size, []
    for batch in features.split(_BATCH):
        drawn = pipeline.detokenizer(batch, torch.Generator().manual_seed(0), output_type="pt")
        assert isinstance(drawn, Tensor)
        parts.append(resize_pixels(drawn.float().cpu() * 2 - 1, side))
    return torch.cat(parts)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def main(
    model: Annotated[str, typer.Argument(help="mini, or a model folder")] = "mini",
    data: Annotated[Path, typer.Option(help="folder of the data set")] = Path("data/shown"),
    split: Annotated[str, typer.Option(help="name of its JSONL; recast-NAME lies beside it")] = "heldout",
    stories: Annotated[int, typer.Option(help="at most so many stories", min=1)] = 12,
    pages: Annotated[int, typer.Option(help="at most so many pages of each", min=2)] = 10,
    policy: Annotated[str, typer.Option(help=f"cache policy: {', '.join(POLICIES)}")] = "mm_sink",
    judge: Annotated[
        Path, typer.Option(help="folder of the judge's weights", show_default="the shipped one")
    ] = WEIGHTS,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
) -> None:
    try:
        chosen = read_stories(data, split, stories, pages)
        logging.disable_progress_bar()
        pipeline = StoryPipeline.from_pretrained(model)
        figures = image_use(pipeline, Judge.load(judge), data, chosen, pages=pages, policy=policy)
        figures |= {"model": model, "fingerprint": pipeline.identity.fingerprint, "split": split, "policy": policy}
        if json_file:
            json_file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    table = Table(title=f"{figures['characters']} characters on {figures['pages']} pages that the model drew")
    table.add_column("right, in %")
    for context in CONTEXTS:
        for looks in ("true", "recast"):
            table.add_column(f"{context} pictures: as the {looks} ones", justify="right")
    for name in SHOWN:
        cells = [figures[context][looks][name] for context in CONTEXTS for looks in ("true", "recast")]
        table.add_row(name, *(f"{100 * value:.1f}" for value in cells))
    Console().print(table)


if __name__ == "__main__":
    app()
