"""Pictures of a StoryStream data set with the paper theatre's ground truth, for judging."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seedstory.storystream import read_jsonl


class TruthPictures:
    """Pictures of one split in memory, uint8, with the ground truth of each page.

    Args:
        folder: of the data set.
        split: name of its JSONL file without the ending.
        limit: at most so many pictures.
    """

    def __init__(self, folder: str | Path, split: str, limit: int | None = None) -> None:
        folder = Path(folder)
        self.paths: list[Path] = []
        self.truths: list[dict] = []
        for record in read_jsonl(folder / f"{split}.jsonl"):
            if record.pages is None:
                raise ValueError(f"{folder / split}.jsonl: story {record.id} has no ground truth (`pages`)")
            self.paths += [folder / image for image in record.images]
            self.truths += record.pages
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

    def showing(self, slot: str) -> Tensor:
        """Rows of the pictures in whose view a slot is; a record without a view is of the middle one."""
        views = [truth.get("view", "middle") for truth in self.truths]
        here = [any(actor["slot"] == slot for actor in truth["actors"]) for truth in self.truths]
        seen = {view for view, stands in zip(views, here, strict=True) if stands}
        return torch.tensor([row for row, view in enumerate(views) if view in seen])

    def labels(self, attributes: tuple[str, ...], nobody: str) -> dict[str, list[str]]:
        """Class names of each attribute; the first attribute also gets the class `nobody`."""
        actors = [actor for truth in self.truths for actor in truth["actors"]]
        names = {name: sorted({actor[name] for actor in actors}) for name in attributes}
        names[attributes[0]].append(nobody)
        return names

    def pixels(self, rows: Tensor) -> Tensor:
        """Pictures [B, 3, S, S] in [-1, 1]."""
        return self.images[rows].permute(0, 3, 1, 2).float() / 127.5 - 1

    def targets(self, rows: Tensor, slot: str, labels: dict[str, list[str]], nobody: str) -> dict[str, Tensor]:
        """Class indices [B] of each attribute on a slot; -100 where nobody stands (species: `nobody`)."""
        targets: dict[str, list[int]] = {name: [] for name in labels}
        for row in rows.tolist():
            actor = next((a for a in self.truths[row]["actors"] if a["slot"] == slot), None)
            for name, classes in labels.items():
                if actor is not None:
                    targets[name].append(classes.index(actor[name]))
                else:
                    targets[name].append(classes.index(nobody) if nobody in classes else -100)
        return {name: torch.tensor(values) for name, values in targets.items()}
