"""Panels of a comic page in reading order, by a recursive X-Y cut along the gutters.

The method is that of Nagy and Seth, "Hierarchical representation of optically scanned documents" (ICPR 1984): a region
is cut where a straight line from side to side meets nothing but gutter, and its parts are cut in the other direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]
_SIDE = 1000  # px: longer side of the copy in which gutters are looked for
_DEPTH = 16  # of the recursion


@dataclass(frozen=True, kw_only=True)
class PanelSettings:
    """How a page is cut.

    Attributes:
        right_to_left: Reading order within a row, and of the two halves of a double page.
        gutter: Least width of a gutter, as a share of the page's shorter side.
        tolerance: Of 255; how far a gutter's pixels may be from its color. Scans need more than clean files.
        dirt: Share of a gutter's line that may be something else: specks, and the tip of a balloon.
        min_side: Least width and height of a panel, as a share of the page's.
    """

    right_to_left: bool = False
    gutter: float = 0.006
    tolerance: int = 32
    dirt: float = 0.01
    min_side: float = 0.08

    def __post_init__(self) -> None:
        if not 0 < self.gutter < 0.5 or not 0 < self.min_side < 1 or not 0 <= self.dirt < 0.5:
            raise ValueError(
                "gutter, min_side and dirt are shares of the page: give numbers such as 0.006, 0.08 and 0.01"
            )
        if not 0 <= self.tolerance < 128:
            raise ValueError(f"tolerance must be 0 to 127, not {self.tolerance}")


def find_panels(page: Image.Image, settings: PanelSettings | None = None) -> tuple[list[Box], int]:
    """The panels of a page.

    A page whose pictures bleed over its edges has no margin; it is cut where gutters are, and its outer panels reach
    to the edge. A page without gutters is one panel.

    Args:
        page: The page, RGB.
        settings: How to cut.

    Returns:
        Boxes (x0, y0, x1, y1) in px of the page, x1 and y1 exclusive, in reading order, and how many parts were left
        out because they are too small for a panel, such as page numbers.
    """
    settings = settings or PanelSettings()
    scale = min(1.0, _SIDE / max(page.size))
    small = page.resize((max(1, round(page.width * scale)), max(1, round(page.height * scale))), Image.Resampling.BOX)
    pixels = np.asarray(small.convert("RGB"), dtype=np.int16)
    height, width = pixels.shape[:2]
    least = (settings.min_side * width, settings.min_side * height)
    best: list[Box] = []
    small_parts = 0
    for color in _gutter_colors(pixels, settings):
        parts = _cut(np.abs(pixels - color).max(axis=2) > settings.tolerance, settings)
        kept = [box for box in parts if box[2] - box[0] >= least[0] and box[3] - box[1] >= least[1]]
        if len(kept) > len(best):
            best, small_parts = kept, len(parts) - len(kept)
    if not best:
        return [(0, 0, page.width, page.height)], 0
    return [_scaled(box, page.size, (width, height)) for box in best], small_parts


def _gutter_colors(pixels: np.ndarray, settings: PanelSettings) -> list[np.ndarray]:
    """White, black, and the color of most lines from edge to edge that have one color."""
    colors = [np.array([255, 255, 255], np.int16), np.array([0, 0, 0], np.int16)]
    plain = []
    for lines in (pixels, pixels.transpose(1, 0, 2)):
        middle = np.median(lines, axis=1, keepdims=True)
        dirty = (np.abs(lines - middle).max(axis=2) > settings.tolerance).mean(axis=1)
        plain.append(middle[dirty <= settings.dirt, 0])
    found = np.concatenate(plain)
    if len(found):
        color = np.median(found, axis=0).astype(np.int16)
        if min(int(np.abs(color - known).max()) for known in colors) > settings.tolerance:
            colors.append(color)
    return colors


def _cut(ink: np.ndarray, settings: PanelSettings) -> list[Box]:
    """The parts of a page in reading order; `ink` [H, W] is True where the page is not gutter."""
    height, width = ink.shape
    least = max(2, round(settings.gutter * min(height, width)))
    found: list[Box] = []

    def visit(box: Box, depth: int) -> None:
        x0, y0, x1, y1 = box
        region = ink[y0:y1, x0:x1]
        rows, columns = (_spans(region.mean(axis=axis) > settings.dirt, least) for axis in (1, 0))
        if not rows or not columns:
            return
        tight = (x0 + columns[0][0], y0 + rows[0][0], x0 + columns[-1][1], y0 + rows[-1][1])
        if tight != box and depth < _DEPTH:
            visit(tight, depth + 1)
            return
        rows = _spans((region.mean(axis=1) > settings.dirt) | _framed(region), least)
        columns = _spans((region.mean(axis=0) > settings.dirt) | _framed(region.T), least)
        double = (y1 - y0) > 0.7 * height and width > 1.15 * height and _parted_in_the_middle(columns, x1 - x0)
        if depth >= _DEPTH or len(rows) == len(columns) == 1:
            found.append(box)
        elif len(rows) > 1 and not double:
            for top, bottom in rows:
                visit((x0, y0 + top, x1, y0 + bottom), depth + 1)
        else:
            for left, right in columns[::-1] if settings.right_to_left else columns:
                visit((x0 + left, y0, x0 + right, y1), depth + 1)

    visit((0, 0, width, height), 0)
    return found


def _framed(region: np.ndarray) -> np.ndarray:
    """Which rows of a region without margins have ink at one of their ends.

    There runs the frame of a panel, and what is blank between its lines is the inside of a panel, not a gutter.
    """
    edge = max(3, round(0.015 * region.shape[1]))
    return np.asarray(region[:, :edge].any(axis=1) | region[:, -edge:].any(axis=1))


def _spans(inked: np.ndarray, least: int) -> list[tuple[int, int]]:
    """Runs of inked lines, those less than `least` apart taken together."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inked, [False]]).astype(np.int8)))
    spans: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if spans and start - spans[-1][1] < least:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _parted_in_the_middle(columns: list[tuple[int, int]], width: int) -> bool:
    """Whether a gutter runs down the middle of a double page."""
    gutters = [(left[1], right[0]) for left, right in zip(columns, columns[1:], strict=False)]
    return any(start <= 0.53 * width and end >= 0.47 * width for start, end in gutters)


def _scaled(box: Box, size: tuple[int, int], small: tuple[int, int]) -> Box:
    """A box of the small copy in px of the page."""
    across, down = size[0] / small[0], size[1] / small[1]
    x0, y0, x1, y1 = box
    return round(x0 * across), round(y0 * down), min(size[0], round(x1 * across)), min(size[1], round(y1 * down))
