"""What a cleaner measures of a picture: its fingerprint, its bars, and whether it shows nothing but text.

Shapes: H, W height and width in px. All pictures are RGB, upright, as `seedstory.image.load_image` gives them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops

Box = tuple[int, int, int, int]

BITS = 256  # of a fingerprint
_SIDE = 32  # px of the picture that a fingerprint is taken of
_WAVES = 16  # frequencies a side
_NEAR = 24  # gray levels within which a color counts as the same: what JPEG and WebP do to a flat area
_CLEAR = 64  # gray levels from which a pixel stands out


def fingerprint(image: Image.Image) -> bytes:
    """The perceptual hash of a picture, 256 bits: low frequencies of its cosine transform, above their median or not.

    Copies in another size, quality or format differ by 0 to 24 bits, different pictures by about 128: of 8 million
    pairs of 4,006 picture-book pages, 772 lie within 24 bits and 816 within 48. A cut by 3 % a side is not recognized.
    """
    gray = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float64)
    waves = (_COSINES @ gray @ _COSINES.T).ravel()
    return np.packbits(waves > np.median(waves[1:])).tobytes()


def is_blank(image: Image.Image) -> bool:
    """Whether a picture is all of one color, but for what compression does to it."""
    small = image.resize((64, 64), Image.Resampling.BOX)
    return bool(np.ptp(np.asarray(small), axis=(0, 1)).max() <= _NEAR // 2)


def inner_box(image: Image.Image) -> Box | None:
    """The box within letterbox or pillarbox bars, or None where there are none.

    Bars are two opposite edges of one color and nearly the same depth, and the picture ends at them along a straight
    line. That line distinguishes a film in a frame from a drawing on white paper.
    """
    top, bottom = _bars(image, image.height // 2)
    image = image.crop((0, top, image.width, image.height - bottom))
    turned = image.transpose(Image.Transpose.TRANSPOSE)
    left, right = _bars(turned, turned.height // 2)
    if top + bottom + left + right == 0:
        return None
    return left, top, image.width - right, top + image.height


def is_text_card(image: Image.Image) -> bool:
    """Whether a picture is a card of at least two lines of text on one color: titles, credits, "The end".

    Its foreground falls into low bands across the whole width, with blank rows between them and many short strokes in
    each. Single lines of text, and text inside a frame, are not recognized.
    """
    small = image.copy()
    small.thumbnail((256, 256), Image.Resampling.BOX)
    away = _distance(small, _main_color(small))  # [H, W]
    ink = away > _CLEAR
    if (away <= _NEAR).mean() < 0.6 or not 0.002 < ink.mean() < 0.35:
        return False
    height, width = ink.shape
    steps = np.flatnonzero(np.diff(ink.any(axis=1), prepend=False, append=False))
    strokes = (ink & ~np.roll(ink, 1, axis=1)).sum(axis=1)  # [H]: where ink begins, counted along each row
    lines = [
        (first, end)
        for first, end in steps.reshape(-1, 2)
        if 3 <= end - first <= 0.2 * height and strokes[first:end].mean() >= 3 * width / 256
    ]
    return len(lines) >= 2 and sum(ink[first:end].sum() for first, end in lines) >= 0.9 * ink.sum()


def _bars(image: Image.Image, limit: int) -> tuple[int, int]:
    """Depth of the bars at the top and bottom of a picture in px, (0, 0) where there is no pair of them."""
    top, line_above = _bar(image, limit)
    if top < max(3, image.height // 50):
        return 0, 0
    bottom, line_below = _bar(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), limit)
    even = abs(top - bottom) <= max(2, 0.03 * image.height)
    straight = min(line_above, line_below) >= 0.2 and line_above + line_below >= 1.2
    return (top, bottom) if bottom and even and straight and top + bottom < 0.8 * image.height else (0, 0)


def _bar(image: Image.Image, limit: int) -> tuple[int, float]:
    """Depth of the bar at the top in px, and which part of the rows below it the picture fills at once."""
    edge = np.asarray(image.crop((0, 0, image.width, 1)), np.uint8)[0]
    color = tuple(int(level) for level in np.median(edge, axis=0))
    away = _distance(image.crop((0, 0, image.width, min(limit + 5, image.height))), color) > _NEAR  # [H, W]
    share = away.mean(axis=1)
    busy = np.flatnonzero(share > 0.005)
    if not len(busy) or busy[0] == 0:
        return 0, 0.0
    near = share[busy[0] : busy[0] + 5]  # compression blurs the line: it is where the picture has half set in
    depth = int(busy[0] + np.argmax(near >= near.max() / 2))
    return depth, float(away[depth : depth + 3].any(axis=0).mean())


def _distance(image: Image.Image, color: tuple[int, ...]) -> np.ndarray:
    """How far each pixel is from a color in its worst channel, [H, W] uint8."""
    red, green, blue = ImageChops.difference(image, Image.new("RGB", image.size, color)).split()
    return np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))


def _main_color(image: Image.Image) -> tuple[int, ...]:
    """The most frequent color of a picture, taken in steps of 16 levels."""
    pixels = np.asarray(image.resize((64, 64), Image.Resampling.NEAREST)).reshape(-1, 3)
    coarse = (pixels >> 4).astype(np.int32) @ (256, 16, 1)
    common = np.bincount(coarse, minlength=4096).argmax()
    return tuple(int(level) for level in np.median(pixels[coarse == common], axis=0))


def _cosines() -> np.ndarray:
    """Rows of the discrete cosine transform, [_WAVES, _SIDE]."""
    places = np.arange(_SIDE) * 2 + 1
    return np.cos(np.pi * np.arange(_WAVES)[:, None] * places / (2 * _SIDE))


_COSINES = _cosines()
