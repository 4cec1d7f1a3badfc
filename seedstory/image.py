"""Reading a user's picture safely, and pictures to tensors and back.

A picture from outside is judged by its header before one pixel is decoded: its format must be on a short
list and its size within limits, so that a small file cannot unfold into gigabytes of memory.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from PIL import Image

from seedstory.errors import DataError
from seedstory.io import read_regular

if TYPE_CHECKING:
    import torch

Fit = Literal["crop", "pad", "stretch"]
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
STORED = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
}  # what a data set keeps as it came, with its suffix
MAX_BYTES = 64 * 2**20
MAX_SIDE = 20_000  # px
MAX_PIXELS = 80_000_000  # below the size at which Pillow itself warns
MIN_SIDE = 8  # px

# How to turn the stored pixels upright, by the value of EXIF tag 0x0112.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    source: str | os.PathLike[str] | bytes | Image.Image, name: str | None = None, formats: Collection[str] = FORMATS
) -> Image.Image:
    """Reads any common picture as plain RGB: upright, on white where it was transparent, without metadata.

    Args:
        source: A file, the bytes of one, or a picture already open.
        name: What to call it in errors; the file name if None.
        formats: What a file may be, some of `FORMATS`.

    Returns:
        A new RGB picture that shares nothing with the source. Of an animation, the first frame.

    Raises:
        DataError: There is no such file, it is no picture in one of `formats`, is damaged, or is too large or
            too small. One line that names the file and says what to do.
    """
    if isinstance(source, Image.Image):
        name = name or "the picture"
        _check_size(source.size, name)
        return _plain(source, name)
    data, name = _named(source, name)
    with _open(data, name, formats) as image:
        _check_size(image.size, name)
        return _plain(image, name)


def read_image_header(
    source: str | os.PathLike[str] | bytes, name: str | None = None, formats: Collection[str] = FORMATS
) -> tuple[str, tuple[int, int]]:
    """Judges a picture by its header, as `load_image` does before it decodes a pixel.

    Args:
        source: A file, or the bytes of one.
        name: What to call it in errors; the file name if None.
        formats: What it may be, some of `FORMATS`.

    Returns:
        Its format, and its (width, height) in px, upright as `load_image` gives it.

    Raises:
        DataError: As in `load_image`, but for damage behind the header.
    """
    data, name = _named(source, name)
    with _open(data, name, formats) as image:
        _check_size(image.size, name)
        turned = image.format != "TIFF" and _orientation(image, data) >= 5  # Pillow turns the size of a TIFF by itself
        return str(image.format), image.size[::-1] if turned else image.size


def to_square(image: Image.Image, size: int, fit: Fit = "crop") -> Image.Image:
    """A picture as a square of `size` px.

    Args:
        image: Any RGB picture.
        size: Side of the result in px.
        fit: "crop" keeps the center and cuts the longer sides; "pad" keeps all and adds white; "stretch" keeps all
            and its proportions not, by bilinear interpolation, as some published vision towers were trained.
    """
    if size < 1:
        raise DataError(f"size must be at least 1 px, not {size}")
    if fit not in get_args(Fit):
        raise DataError(f"fit must be one of {', '.join(get_args(Fit))}, not {fit!r}")
    if fit == "stretch":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    width, height = image.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        center = image.crop((left, top, left + side, top + side))
        return center.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    paper = Image.new("RGB", (size, size), "white")
    resized = image.resize(inner, Image.Resampling.LANCZOS, reducing_gap=3.0)
    paper.paste(resized, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return paper


def image_to_tensor(image: Image.Image | Sequence[Image.Image]) -> torch.Tensor:
    """Pixels as float32 in [-1, 1]: `[3, H, W]` of one picture, `[B, 3, H, W]` of several of one size."""
    import torch

    if not isinstance(image, Image.Image):
        return torch.stack([image_to_tensor(one) for one in image])
    pixels = np.array(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous() / 127.5 - 1.0


def resize_pixels(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Pixels `[B, 3, H, W]` as squares of `size` px: smaller ones by means of areas, larger ones bicubic."""
    from torch.nn import functional

    if pixels.shape[-1] == size:
        return pixels
    mode = "area" if pixels.shape[-1] > size else "bicubic"
    return functional.interpolate(pixels, (size, size), mode=mode)


def tensor_to_image(pixels: torch.Tensor) -> Image.Image | list[Image.Image]:
    """A picture from pixels `[3, H, W]` in [-1, 1], or a list of pictures from `[B, 3, H, W]`.

    Raises:
        DataError: The tensor has another shape or holds NaN.
    """
    if pixels.ndim == 4:
        return [_tensor_to_image(one) for one in pixels]
    return _tensor_to_image(pixels)


def _tensor_to_image(pixels: torch.Tensor) -> Image.Image:
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise DataError(f"pixels must have shape [3, H, W] or [B, 3, H, W], not {list(pixels.shape)}")
    values = pixels.detach().float().cpu()
    if values.isnan().any():
        raise DataError("the picture holds NaN: the de-tokenizer has failed, try another dtype or seed")
    values = ((values.clamp(-1, 1) + 1.0) * 127.5).round().byte()
    return Image.fromarray(values.permute(1, 2, 0).contiguous().numpy(), "RGB")


def _named(source: str | os.PathLike[str] | bytes, name: str | None) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, name or "the picture"
    name = name or str(source)
    return read_regular(source, limit=MAX_BYTES, what=name), name


def _open(data: bytes, name: str, formats: Collection[str]) -> Image.Image:
    """Parses the header only."""
    if not data:
        raise DataError(f"{name} is empty (0 bytes): give a picture file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=list(formats))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(
            f"{name} is too large: its header announces more than {MAX_PIXELS // 1_000_000} megapixels; save it smaller"
        ) from None
    except Exception:  # noqa: BLE001 - Pillow raises many kinds for a file that is no picture
        *others, last = formats
        choice = f"{', '.join(others)} or {last}" if others else last
        raise DataError(f"{name} is not a picture that can be read: save it as {choice}") from None


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise DataError(
            f"{name} is too large: {width} x {height} px, at most {MAX_PIXELS // 1_000_000} megapixels and "
            f"{MAX_SIDE} px a side can be read; save it smaller"
        )
    if min(size) < MIN_SIDE:
        raise DataError(f"{name} is too small: {width} x {height} px, at least {MIN_SIDE} px a side are needed")


def _plain(image: Image.Image, name: str) -> Image.Image:
    """Decodes; turns upright; drops alpha and metadata."""
    if image.mode == "F" or image.mode == "I":
        raise DataError(f"{name} has {image.mode!r} pixels (32 bits a channel): save it with 8 bits a channel")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes about odd metadata, which is dropped here anyway
            image.load()
            turn = _UPRIGHT.get(_orientation(image))
            if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
                image = Image.fromarray((np.asarray(image).astype(np.float32) / 257.0).round().astype(np.uint8))
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            if image.mode != "RGB":
                image = image.convert("RGB")
            if turn is not None:
                image = image.transpose(turn)
            plain = Image.new("RGB", image.size, None)
            plain.paste(image)
    except Exception as error:  # noqa: BLE001 - Pillow raises many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name} is damaged ({reason}): save it again or give another picture") from None
    return plain


def _orientation(image: Image.Image, data: bytes = b"") -> int:
    """EXIF orientation, 1 (upright) where the EXIF block is unreadable: the pixels are still a picture.

    Given the bytes of the file, no pixel of a PNG is decoded for it, unless its EXIF block may lie behind them.
    """
    try:
        if image.format == "PNG" and data and b"eXIf" not in data and b"Raw profile type" not in data:
            return 1
        return image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - Pillow raises many kinds for a damaged block
        return 1
