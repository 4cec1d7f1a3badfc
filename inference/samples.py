"""Stories as `inference.evaluate` reads them: generated ones from story folders, true ones from a data set."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedstory.image import Fit, image_to_tensor, load_image, to_square
from seedstory.story import StoryFolder
from seedstory.storystream import StoryRecord


@dataclass(frozen=True)
class EvalSample:
    """The first `P` pages of a story.

    Attributes:
        captions: Their texts.
        pixels: Their pictures, `[P, 3, S, S]` in [-1, 1].
        truths: What each page should show, as the paper theatre says it, or None where that is not known.
        length: Pages of the whole story, to its end.
        regressed: Features that the pictures were drawn from, `[P, F, Df]`, if all are known.
    """

    captions: list[str]
    pixels: Tensor
    truths: list[dict[str, Any] | None]
    length: int
    regressed: Tensor | None = None


def sample_from_record(data: Path, record: StoryRecord, pages: int, size: int, fit: Fit = "crop") -> EvalSample:
    """A story of a data set, with its true pictures, made squares of `size` px as the vision tower's `image_fit` says.

    Raises:
        ValueError: A picture is missing or cannot be read.
    """
    images = [image_to_tensor(to_square(load_image(data / path), size, fit)) for path in record.images[:pages]]
    truths = [_truth(page) for page in (record.pages or [None] * len(record))[:pages]]
    return EvalSample(record.captions[:pages], torch.stack(images), truths, len(record))


def _truth(page: dict[str, Any] | None) -> dict[str, Any] | None:
    return page if page is not None and "actors" in page and "place" in page else None


def sample_from_folder(
    path: Path, pages: int | None, size: int, truths: list[dict[str, Any] | None] | None = None, fit: Fit = "crop"
) -> EvalSample | None:
    """A story folder, up to its first page without a picture; None if that is the first page.

    Args:
        path: The folder.
        pages: At most so many; None for all.
        size: Side of the pictures in px.
        truths: What each page should show; by default as `truth.json` says, if it is there.
        fit: How a picture becomes a square, the vision tower's `image_fit`.

    Raises:
        ValueError: The story is damaged, or `truth.json` belongs to another run of the story.
    """
    folder = StoryFolder.open(path)
    captions, images, features = [], [], []
    for index in range(min(len(folder), pages or len(folder))):
        page = folder.page(index)
        if page.image is None:
            break
        captions.append(page.caption)
        images.append(image_to_tensor(to_square(page.image, size, fit)))
        features += [] if page.features is None else [page.features]
    if not images:
        return None
    if truths is None:
        truths = _read_truths(path / "truth.json", captions)
    regressed = torch.stack(features) if len(features) == len(images) else None
    return EvalSample(captions, torch.stack(images), truths[: len(images)], len(images), regressed)


def _read_truths(file: Path, captions: list[str]) -> list[dict[str, Any] | None]:
    """What `data_tools.paper_theatre annotate` read out of the captions."""
    if not file.is_file():
        return [None] * len(captions)
    try:
        read = [(page["caption"], page["scene"]) for page in json.loads(file.read_text("utf-8"))[: len(captions)]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} cannot be read: {_AGAIN} {file.parent}") from None
    if [caption for caption, _ in read] != captions:
        raise ValueError(f"{file} belongs to another run of this story: {_AGAIN} {file.parent}")
    return [scene for _, scene in read]


_AGAIN = "run python -m data_tools.paper_theatre annotate"


def find_story_folders(folder: Path, stories: int | None) -> list[Path]:
    """The story folders that a path means, itself or those in it; the first `stories` of them.

    Raises:
        ValueError: There is none.
    """
    if (folder / "story.json").is_file():
        return [folder]
    if not folder.is_dir():
        raise ValueError(f"there is no model and no folder {folder}: give mini, a model folder or a folder of stories")
    found = sorted(file.parent for file in folder.glob("*/story.json"))
    if not found:
        raise ValueError(f"{folder} holds no story (no story.json) and is no model folder (no model_index.json)")
    return found[:stories]
