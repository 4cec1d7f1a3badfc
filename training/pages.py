"""Pages of a StoryStream data set as pixels in memory, with a weight for every region of a picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seedstory.picture import STORED, read_picture, square
from seedstory.storystream import read_jsonl

WEIGHT_SCALE = 4


class PagePictures:
    """All pictures of one split, uint8 [N, 3, S, S], and a weight map [N, S/4, S/4] that favours heads.

    Where the data set knows the characters' boxes, the upper half of each box (head and hat) weighs
    `head_weight`, all else 1; without boxes every weight is 1.

    Args:
        folder: of the data set.
        split: name of the JSONL file without its ending; several are joined by "+".
        size: side of a picture in px; of others the centre square is scaled, as when features are computed and when a
            picture opens a story.
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
            picture = read_picture(path, formats=STORED)
            self.pixels[index] = torch.from_numpy(np.array(square(picture, size))).permute(2, 0, 1)
            scale = size / min(picture.size)
            cut = [(edge - min(picture.size)) // 2 for edge in picture.size]
            for actor in truth.get("actors", ()):
                x0, y0, x1, y1 = (
                    min(max(int((edge - less) * scale / WEIGHT_SCALE), 0), size // WEIGHT_SCALE)
                    for edge, less in zip(actor["box"], cut * 2, strict=True)
                )
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
