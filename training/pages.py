"""Pages of a StoryStream data set as pixels in memory, with a weight for every region of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from seedstory.image import STORED, Fit, load_image, to_square
from seedstory.storystream import read_jsonl
from training.backend import Backend
from training.recipes import NoRecipe, Recipe
from training.splits import fingerprint, open_split

T = TypeVar("T")

WEIGHT_SCALE = 4


class PageImages:
    """All pictures of one split, [N, 3, S, S], and a weight map [N, S/4, S/4] of their regions.

    Args:
        folder: of the data set.
        split: name of the JSONL file without its ending; several are joined by "+".
        size: side of a picture in px; of others the center square is scaled, as when features are computed and when a
            picture opens a story.
        recipe: says what each region weighs; without one every weight is 1.
        limit: at most so many pictures.
        keep: hold them all in memory, as `pixels` (uint8) and `weights`; without it `batch` reads them from disk.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        size: int = 128,
        recipe: Recipe | None = None,
        limit: int | None = None,
        keep: bool = True,
        fit: Fit = "crop",
    ) -> None:
        folder = Path(folder)
        pages: list[tuple[Path, dict[str, Any], str]] = []
        for name in split.split("+"):
            for record in read_jsonl(folder / f"{name}.jsonl"):
                truths = record.pages or [{}] * len(record.images)
                pages += [
                    (folder / image, truth or {}, caption)
                    for image, truth, caption in zip(record.images, truths, record.captions, strict=True)
                ]
        pages = pages[:limit]
        if not pages:
            raise ValueError(f"{folder / split}.jsonl holds no pages")
        self.pages, self.size, self.recipe, self.keep = pages, size, recipe or NoRecipe(), keep
        self.folder, self.split = folder, split
        self.fit: Fit = fit
        self.even = isinstance(self.recipe, NoRecipe)
        self.truths, self.captions = [truth for _, truth, _ in pages], [caption for _, _, caption in pages]
        if keep:
            self.pixels, self.weights = self._read(range(len(pages)))

    def __len__(self) -> int:
        return len(self.pages)

    def identity(self) -> dict[str, Any]:
        """What the pictures and their weights are made from, as plain values, without reading one."""
        splits = [fingerprint(open_split(self.folder, name)) for name in self.split.split("+")]
        recipe = None if self.even else repr(getattr(self.recipe, "settings", self.recipe.__class__.__name__))
        return {"splits": splits, "size": self.size, "fit": self.fit, "recipe": recipe}

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, S, S] in [-1, 1] and weights [B, S/4, S/4] of the given rows."""
        pixels, weights = (self.pixels[rows], self.weights[rows]) if self.keep else self._read(rows.tolist())
        return pixels.float() / 127.5 - 1, weights

    def _read(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        size, grid = self.size, self.size // WEIGHT_SCALE
        pixels = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        weights = torch.ones(len(rows), grid, grid)

        def load(index: int) -> None:
            path, truth, _ = self.pages[rows[index]]
            image = load_image(path, formats=STORED)
            pixels[index] = torch.from_numpy(np.array(to_square(image, size, self.fit))).permute(2, 0, 1)
            regions = self.recipe.region_weights(truth, image.size, grid)
            if regions is not None:
                weights[index] = regions

        with ThreadPoolExecutor() as pool:
            list(pool.map(load, range(len(rows))))
        return pixels, weights


def check_image_size(size: int) -> None:
    """Refuse sides of images that the networks of stage 1 cannot halve four times."""
    if size < 16 or size % 16:
        raise ValueError(f"image_size must be a multiple of 16, not {size}")


class ShuffledSampler:
    """An endless stream of row numbers: every epoch holds each row once, in a seeded order of its own.

    Args:
        count: rows.
        seed: of the orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._last: tuple[int, Tensor] | None = None

    def take(self, start: int, length: int) -> list[int]:
        """The stream's rows from `start` on; any part, in any order of asking."""
        rows: list[int] = []
        while len(rows) < length:
            epoch, offset = divmod(start + len(rows), self.count)
            rows += self._order(epoch)[offset : offset + length - len(rows)].tolist()
        return rows

    def _order(self, epoch: int) -> Tensor:
        last = self._last  # read once: another thread may ask for another epoch meanwhile
        if last is None or last[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
            last = self._last = epoch, torch.randperm(self.count, generator=generator)
        return last[1]


def noise_of(seed: int, number: int) -> torch.Generator:
    """The random numbers of one sample of a run, whatever batch or process it falls into."""
    return torch.Generator().manual_seed((seed + 1) * 0x9E3779B1 + number)


def cut(samples: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """Cut samples into `count` runs of nearly equal length."""
    if len(samples) < count:
        raise ValueError(f"a step of {len(samples)} samples cannot be cut into {count} micro-batches")
    edges = [len(samples) * number // count for number in range(count + 1)]
    return [samples[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]


def compute_on_all(compute: Callable[[Any], T], items: Sequence[Any], backend: Backend) -> list[T]:
    """What `compute` makes of each item, in order: every process does its share of the work, and all get all of it."""
    shares = backend.gathered([compute(item) for item in items[backend.rank :: backend.processes]])
    return [shares[number % backend.processes][number // backend.processes] for number in range(len(items))]
