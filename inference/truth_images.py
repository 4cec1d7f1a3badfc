"""Pictures of a StoryStream data set with the paper theatre's ground truth, for judging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seedstory.storystream import read_jsonl


class TruthImages:
    """Pictures of one split in memory, uint8, with the ground truth of each page.

    Args:
        folder: of the data set.
        split: name of its JSONL file without the ending.
        limit: at most so many pictures.
    """

    def __init__(self, folder: str | Path, split: str, limit: int | None = None) -> None:
        folder = Path(folder)
        self.paths: list[Path] = []
        self.truths: list[dict[str, Any]] = []
        for record in read_jsonl(folder / f"{split}.jsonl"):
            truths = [truth for truth in record.pages or () if truth is not None]
            if len(truths) < len(record):
                raise ValueError(f"{folder / split}.jsonl: story {record.id} has no ground truth (`pages`)")
            self.paths += [folder / image for image in record.images]
            self.truths += truths
        self.paths, self.truths = self.paths[:limit], self.truths[:limit]
        self.images = torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in self.paths])

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def slots(self) -> dict[str, list[float]]:
        """Each slot's box in units of the picture's side: the union of all boxes seen on it."""
        size = self.images.shape[1]
        boxes: dict[str, list[float]] = {}
        for truth in self.truths:
            for actor in truth["actors"]:
                new = [edge / size for edge in actor["box"]]
                old = boxes.get(actor["slot"], new)
                boxes[actor["slot"]] = [*map(min, old[:2], new[:2]), *map(max, old[2:], new[2:])]
        return boxes

    @property
    def views(self) -> dict[str, list[str]]:
        """The slots of each view, all that were seen in it."""
        views: dict[str, set[str]] = {}
        for truth in self.truths:
            views.setdefault(view_of(truth), set()).update(actor["slot"] for actor in truth["actors"])
        return {view: sorted(slots) for view, slots in views.items()}

    def labels(self, attributes: tuple[str, ...]) -> dict[str, list[str]]:
        """Values of each attribute of an actor in the data."""
        actors = [actor for truth in self.truths for actor in truth["actors"]]
        return {name: sorted({actor[name] for actor in actors}) for name in attributes}

    def pil_images(self, rows: Tensor) -> list[Image.Image]:
        """Pictures as they lie in the data set."""
        return [Image.fromarray(self.images[row].numpy()) for row in rows.tolist()]

    def pixels(self, rows: Tensor) -> Tensor:
        """Pictures [B, 3, S, S] in [-1, 1]."""
        return self.images[rows].permute(0, 3, 1, 2).float() / 127.5 - 1


def view_of(truth: dict[str, Any]) -> str:
    """The view of a page; a record without one is of the middle view."""
    return truth.get("view", "middle")
