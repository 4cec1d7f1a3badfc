"""Pages of a StoryStream data set as pixels in memory, with a weight for every region of a picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seedstory.storystream import read_jsonl

WEIGHT_SCALE = 4


class PagePictures:
    """All pictures of one split, uint8 [N, 3, S, S], and a weight map [N, S/4, S/4] that favours heads.

    Where the data set knows the characters' boxes, the upper half of each box (head and hat) weighs
    `head_weight`, all else 1; without boxes every weight is 1.

    Args:
        folder: of the data set.
        split: name of the JSONL file without its ending; several are joined by "+".
        size: side of a picture in px; others are resized.
        head_weight: weight of heads in the reconstruction loss.
        limit: at most so many pictures.
    """

    def __init__(
        self, folder: str | Path, split: str, size: int = 128, head_weight: float = 4.0, limit: int | None = None
    ) -> None:
        folder = Path(folder)
        pages: list[tuple[Path, dict]] = []
        for name in split.split("+"):
            for record in read_jsonl(folder / f"{name}.jsonl"):
                truths = record.pages or [{}] * len(record.images)
                pages += [(folder / image, truth or {}) for image, truth in zip(record.images, truths, strict=True)]
        pages = pages[:limit]
        if not pages:
            raise ValueError(f"{folder / split}.jsonl holds no pages")
        self.pixels = torch.empty(len(pages), 3, size, size, dtype=torch.uint8)
        self.weights = torch.ones(len(pages), size // WEIGHT_SCALE, size // WEIGHT_SCALE)
        self.truths = [truth for _, truth in pages]

        def load(index: int) -> None:
            path, truth = pages[index]
            with Image.open(path, formats=("PNG", "WEBP", "JPEG")) as picture:
                scale = size / picture.width
                picture = picture.convert("RGB")
                if picture.size != (size, size):
                    picture = picture.resize((size, size), Image.Resampling.LANCZOS)
                self.pixels[index] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
            for actor in truth.get("actors", ()):
                x0, y0, x1, y1 = (int(edge * scale / WEIGHT_SCALE) for edge in actor["box"])
                self.weights[index, y0 : (y0 + y1) // 2 + 1, x0 : x1 + 1] = head_weight

        with ThreadPoolExecutor() as pool:
            list(pool.map(load, range(len(pages))))

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, S, S] in [-1, 1] and weights [B, S/4, S/4] of the given rows."""
        return self.pixels[rows].float() / 127.5 - 1, self.weights[rows]


def shuffled_rows(count: int, batch_size: int, seed: int):
    """Yield batches of row numbers for ever, each epoch in a new seeded order; short last batches are dropped."""
    epoch = 0
    while True:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        for start in range(0, max(count - batch_size, 0) + 1, batch_size):
            yield order[start : start + batch_size]
        epoch += 1
