"""A user's picture: every format read, every bad file refused in one line, pixels to tensors and back."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from seedstory.image import (
    FORMATS,
    MAX_SIDE,
    STORED,
    image_to_tensor,
    load_image,
    read_image_header,
    tensor_to_image,
    to_square,
)


def gradient(width: int = 48, height: int = 32) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that announces any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_reads_every_format(tmp_path, kind):
    file = tmp_path / f"picture.{kind.lower()}"
    gradient().save(file, kind)
    image = load_image(file)
    assert image.mode == "RGB" and image.size == (48, 32) and not image.info
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(gradient()).astype(int)).mean()
    assert difference < 12  # JPEG, WebP and GIF lose a little


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_upright_and_strips_exif(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "camera"
    buffer = io.BytesIO()
    gradient().save(buffer, "PNG", exif=exif)
    with Image.open(io.BytesIO(buffer.getvalue())) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")
    image = load_image(buffer.getvalue())
    assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert not image.getexif() and not image.info


def test_transparency_becomes_white():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert load_image(image).getpixel((3, 3)) == (255, 255, 255)
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    assert load_image(half).getpixel((3, 3)) == (127, 127, 127)
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([255, 0, 0] * 256)
    buffer = io.BytesIO()
    palette.save(buffer, "GIF", transparency=0)
    assert load_image(buffer.getvalue()).getpixel((3, 3)) == (255, 255, 255)


def test_16_bit_gray_is_scaled_not_clipped():
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 16), 128 * 257, np.uint16)).save(buffer, "PNG")
    assert load_image(buffer.getvalue()).getpixel((3, 3)) == (128, 128, 128)


def test_first_frame_of_an_animation():
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert load_image(buffer.getvalue()).getpixel((3, 3)) == (255, 0, 0)


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, I am a letter", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture"),
        (png_header(30_000, 30_000), "too large"),
        (png_header(10_000, 9_000), "too large"),
        (png_header(MAX_SIDE + 1, 8), "too large"),
        (png_header(0, 0), "not a picture|too small"),
        (png_header(1, 1), "too small"),
        (png_header(500, 500), "damaged"),
        (jpeg(gradient(300, 200))[:1500], "damaged"),
        (jpeg(gradient(300, 200))[:30], "not a picture"),
    ],
)
def test_refuses_bad_files_in_one_line(tmp_path, data, message):
    file = tmp_path / "bad.png"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        load_image(file)
    assert "bad.png" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_header_gives_format_and_size_and_a_list_is_kept_to(tmp_path, kind):
    file = tmp_path / f"picture.{kind.lower()}"
    gradient().save(file, kind)
    assert read_image_header(file) == read_image_header(file.read_bytes()) == (kind, (48, 32))
    for read in (read_image_header, load_image):
        if kind in STORED:
            read(file, formats=STORED)
        else:
            with pytest.raises(ValueError, match=r"is not a picture that can be read: save it as JPEG, PNG or WEBP$"):
                read(file, formats=STORED)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "PNG with its EXIF behind the pixels"])
def test_header_and_pixels_agree_on_an_image_that_is_turned(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    gradient().save(buffer, kind.partition(" ")[0], exif=exif)
    data = buffer.getvalue()
    if " " in kind:
        at = data.index(b"eXIf") - 4
        end = at + 12 + int.from_bytes(data[at : at + 4])
        tail = data.index(b"IEND") - 4
        data = data[:at] + data[end:tail] + data[at:end] + data[tail:]
    assert read_image_header(data)[1] == load_image(data).size == ((32, 48) if orientation > 4 else (48, 32))


def test_the_header_is_judged_before_pixels():
    with pytest.raises(ValueError, match="^it is too large: "):
        read_image_header(png_header(10_000, 9_000), "it")
    assert read_image_header(png_header(500, 500)) == ("PNG", (500, 500))  # damage behind the header is not looked for


def test_refuses_what_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match="folder"):
        load_image(tmp_path)


def test_square_crops_the_center_or_pads_or_stretches():
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (30, 0, 60, 30))
    assert np.array_equal(np.asarray(to_square(image, 30)), np.full((30, 30, 3), (0, 0, 255)))
    padded = to_square(image, 90, fit="pad")
    assert padded.size == (90, 90)
    assert padded.getpixel((45, 5)) == (255, 255, 255) and padded.getpixel((45, 45)) == (0, 0, 255)
    stretched = to_square(image, 30, fit="stretch")
    assert [stretched.getpixel((x, 15)) for x in (2, 15, 27)] == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]
    with pytest.raises(ValueError, match="fit must be one of crop, pad, stretch"):
        to_square(image, 30, fit="squash")


def test_tensor_round_trip_is_exact():
    image = gradient()
    pixels = image_to_tensor(image)
    assert pixels.shape == (3, 32, 48) and pixels.dtype == torch.float32
    assert pixels.min() >= -1 and pixels.max() <= 1
    assert np.array_equal(np.asarray(tensor_to_image(pixels)), np.asarray(image))
    batch = image_to_tensor([image, image])
    assert batch.shape == (2, 3, 32, 48) and len(tensor_to_image(batch)) == 2


def test_to_image_refuses_nan_and_odd_shapes():
    with pytest.raises(ValueError, match="NaN"):
        tensor_to_image(torch.full((3, 8, 8), float("nan")))
    with pytest.raises(ValueError, match="shape"):
        tensor_to_image(torch.zeros(1, 8, 8))
