"""What the cleaner measures of a picture holds for copies of it, and not for others."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_tools.clean.duplicates import distances
from data_tools.clean.images import fingerprint, inner_box, is_blank, is_text_card
from tests.data_tools.image_data import drawing, framed, text_card


def bits(one: Image.Image, other: Image.Image) -> int:
    both = (np.frombuffer(fingerprint(image), np.uint8) for image in (one, other))
    return int(distances(*both))


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_copies_have_near_fingerprints_and_others_far_ones():
    for seed in range(20):
        image = drawing(seed, (320, 240))
        assert bits(image, as_jpeg(image, 40)) <= 24
        assert bits(image, image.resize((160, 120), Image.Resampling.BICUBIC)) <= 24
        assert bits(image, drawing(seed + 100)) > 60


@pytest.mark.parametrize("color", ["black", "white", "#803020"])
@pytest.mark.parametrize(("top", "side"), [(30, 0), (0, 25), (20, 20)])
def test_bars_are_found_to_the_pixel_and_after_jpeg_nearly(color, top, side):
    image = framed(drawing(1, (200, 150)), top, side, color)
    assert inner_box(image) == (side, top, side + 200, top + 150)
    box = inner_box(as_jpeg(image, 75))
    assert np.abs(np.subtract(box, (side, top, side + 200, top + 150))).max() <= 1


def test_what_has_no_bars_is_left_alone():
    assert inner_box(drawing(1)) is None
    one_sided = Image.new("RGB", (200, 200), "black")
    one_sided.paste(drawing(1, (200, 160)), (0, 0))
    assert inner_box(one_sided) is None
    vignette = Image.new("RGB", (200, 200), "white")  # a drawing on paper
    ImageDraw.Draw(vignette).ellipse((60, 40, 140, 160), fill="#a04020")
    assert inner_box(vignette) is None
    assert inner_box(Image.new("RGB", (200, 200), "white")) is None
    assert inner_box(Image.new("RGB", (8, 8), "white")) is None


@pytest.mark.parametrize(("ink", "paper"), [("white", "black"), ("black", "white"), ("#402000", "#fdf3d8")])
@pytest.mark.parametrize("lines", [2, 4, 7])
def test_text_cards(ink, paper, lines):
    assert is_text_card(as_jpeg(text_card(lines, ink=ink, paper=paper), 75))


def test_drawings_are_no_text_cards():
    assert not any(is_text_card(drawing(seed)) for seed in range(20))
    row = Image.new("RGB", (240, 240), "white")
    for place in range(4):  # things in a row, as on a counting page
        ImageDraw.Draw(row).ellipse((20 + place * 55, 100, 55 + place * 55, 150), fill="green")
    assert not is_text_card(row)
    assert not is_text_card(Image.new("RGB", (100, 100), "white"))


def test_blank_images():
    assert is_blank(as_jpeg(Image.new("RGB", (80, 80), "#336699"), 50))
    assert not is_blank(drawing(3))
