"""Where a balloon covers least: a simple, honest measure of what an image shows, without a detector of faces.

A place is worth keeping free if it has edges and strong colors that differ from the image's usual ones, more so in
the middle, where pictures put their characters. That finds faces in drawings because they have both; it knows nothing
of faces. A place with even color, such as the sky, costs little.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from seedstory.export.fitting import wrap

GRID = 48  # the measure is taken on so many rows and columns
MAX_BALLOON = 180  # characters; longer captions go under the panel
PANEL_EM = 21.0  # the width of a panel in the letters of a balloon
WIDEST, TALLEST = 0.92, 0.5  # shares of the image; a balloon is taller only where it is as wide as can be
_LINE = 1.35  # em


def saliency(image: Image.Image) -> np.ndarray:
    """How much there is to see, `[GRID, GRID]`, with a sum of 1."""
    pixels = np.asarray(image.convert("RGB").resize((GRID, GRID), Image.Resampling.BOX), dtype=np.float64) / 255
    down, right = np.gradient(pixels, axis=(0, 1))
    edges = np.sqrt((down**2 + right**2).sum(-1))
    unusual = np.sqrt(((pixels - np.median(pixels, axis=(0, 1))) ** 2).sum(-1))
    rows, columns = np.mgrid[-1 : 1 : GRID * 1j, -1 : 1 : GRID * 1j]
    middle = np.exp(-(rows**2 + columns**2))
    measure = (_share(edges) + _share(unusual)) * (0.25 + middle) + 1e-9
    return measure / measure.sum()


def fits_balloon(caption: str) -> bool:
    """Whether a caption is short enough for a balloon."""
    return len(caption) <= MAX_BALLOON


def balloon_place(
    image: Image.Image, caption: str, width_of: Callable[[str], float]
) -> tuple[float, float, float, float]:
    """Where the balloon of a caption goes.

    Args:
        image: The image of the panel.
        caption: The words.
        width_of: The width of a text in em.

    Returns:
        Left, top, width and height in shares of the image. Of equally free places, the highest one is taken, which
        is read first.
    """
    seen = saliency(image)
    total = np.zeros((GRID + 1, GRID + 1))
    total[1:, 1:] = seen.cumsum(0).cumsum(1)
    best = (math.inf, (0.02, 0.02, 0.9, 0.2))
    for share in (0.4, 0.55, 0.7, WIDEST):
        lines = max(1, len(wrap(caption, share * PANEL_EM - 1.8, width_of)))
        high = (lines * _LINE + 1.4) / (PANEL_EM * image.height / image.width)
        if high > TALLEST and share < WIDEST:
            continue
        high = min(0.95, high)
        wide_cells, high_cells = round(share * GRID), max(1, round(high * GRID))
        for top in range(1, GRID - high_cells, 2):
            for left in range(1, GRID - wide_cells, 2):
                bottom, right = top + high_cells, left + wide_cells
                covered = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
                cost = covered + 0.02 * top / GRID
                if cost < best[0]:
                    best = (cost, (left / GRID, top / GRID, share, high))
    return best[1]


def _share(values: np.ndarray) -> np.ndarray:
    return values / (values.sum() + 1e-9)
