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


class ShuffledRows:
    """An endless stream of row numbers: every epoch holds each row once, in a seeded order of its own.

    Args:
        count: rows.
        seed: of the orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._orders: dict[int, Tensor] = {}

    def take(self, start: int, length: int) -> list[int]:
        """The stream's rows from `start` on; any part, in any order of asking."""
        rows: list[int] = []
        while len(rows) < length:
            epoch, offset = divmod(start + len(rows), self.count)
            rows += self._order(epoch)[offset : offset + length - len(rows)].tolist()
        return rows

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {
                epoch: torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed * 100_003 + epoch))
            }
        return self._orders[epoch]


def noise_of(seed: int, number: int) -> torch.Generator:
    """The random numbers of one sample of a run, whatever batch or process it falls into."""
    return torch.Generator().manual_seed((seed + 1) * 0x9E3779B1 + number)
