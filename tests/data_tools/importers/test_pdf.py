"""PDF picture books: pictures without the text on them, text without pictures, and hostile files."""

import numpy as np
import pypdfium2
import pytest
from PIL import Image, ImageChops

from data_tools.importers.pdf import convert
from data_tools.importers.run_import import Source, Target
from seedstory.image import load_image
from tests.data_tools.importers.sources import (
    art,
    check_stored,
    file_of,
    reasons,
    stored,
    write,
    write_pdf,
    write_raw_pdf,
)


def imported(path, tmp_path, **options):
    target = Target(tmp_path / "out", format="png")
    return convert(Source("book", path), target, **options), target


def test_a_jpeg_is_stored_as_the_file_that_it_is(tmp_path):
    page = {"jpeg": (0, 0, 400, 300, art(1)), "text": [(40, 40, "Mia saw a ship."), (380, 5, "3")]}
    done, target = imported(write_pdf(tmp_path / "b.pdf", [page]), tmp_path)
    (record,) = done.records
    assert record.captions == ["Mia saw a ship."]  # the page number is none of it
    assert stored(target, record.images[0]) == file_of(art(1))
    assert record.pages == [{"source_page": 1}]
    check_stored(done, target)


def test_other_pages_are_rendered_without_their_text(tmp_path):
    page = {
        "box": (100, 60, 200, 120),
        "jpeg": (120, 80, 60, 45, art(1)),
        "text": [(110, 150, "inside the picture"), (20, 270, "above")],
    }
    done, target = imported(write_pdf(tmp_path / "b.pdf", [page]), tmp_path, side=800)
    image = load_image(stored(target, done.records[0].images[0]))
    assert image.size == (400, 240)  # the box at 2 px a point, and nothing around it
    pixels = np.asarray(image)
    assert (pixels[0:60] == [180, 40, 40]).all()  # no letter on it
    assert done.records[0].captions[0] in ("inside the picture above", "above inside the picture")
    kept, target = imported(tmp_path / "b.pdf", tmp_path, side=800, keep_text=True)
    assert not (np.asarray(load_image(stored(target, kept.records[0].images[0])))[:200] == [180, 40, 40]).all()


def test_the_box_that_text_is_printed_on_is_no_part_of_the_image(tmp_path):
    page = {"box": (0, 0, 400, 80), "jpeg": (50, 100, 240, 180, art(1)), "text": [(20, 40, "on a red box")]}
    done, target = imported(write_pdf(tmp_path / "b.pdf", [page]), tmp_path, side=800)
    assert stored(target, done.records[0].images[0]) == file_of(art(1))
    assert done.records[0].captions == ["on a red box"]


def test_pages_of_text_and_ornaments(tmp_path):
    pages = [
        {"text": [(50, 150, "Title")]},
        {"jpeg": (0, 0, 400, 300, art(1))},
        {"text": [(50, 150, "One.")], "box": (180, 20, 20, 10)},
        {"jpeg": (0, 0, 400, 300, art(2))},
        {"text": [(50, 150, "Two.")], "box": (0, 0, 400, 300)},
    ]
    path = write_pdf(tmp_path / "b.pdf", pages)
    assert imported(path, tmp_path)[0].records[0].captions == ["One.", "Two."]
    assert imported(path, tmp_path, text_first=True)[0].records[0].captions == ["Title", "One."]


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7\n", b"\x00" * 5000, b"<html>"])
def test_no_pdf(tmp_path, data):
    done, _ = imported(write(tmp_path / "b.pdf", data), tmp_path)
    assert (done.records, reasons(done.drops)) == ([], ["unreadable-book"])


def test_a_damaged_file_is_read_as_far_as_possible(tmp_path):
    whole = write_pdf(tmp_path / "b.pdf", [{"jpeg": (0, 0, 400, 300, art(n)), "text": [(9, 9, "x")]} for n in range(3)])
    data = whole.read_bytes()
    for cut in range(200, len(data), 2500):
        write(tmp_path / "cut.pdf", data[:cut])
        done, _ = imported(tmp_path / "cut.pdf", tmp_path)
        assert done.records or done.drops


def test_an_image_of_too_many_pixels_is_not_unpacked(tmp_path):
    path = write_pdf(tmp_path / "b.pdf", [{"jpeg": (0, 0, 400, 300, art(1, (640, 480)))}])
    data = path.read_bytes().replace(b"/Width 640", b"/Width 99640").replace(b"/Height 480", b"/Height 99480")
    done, _ = imported(write(tmp_path / "bomb.pdf", data), tmp_path)
    assert (done.records, reasons(done.drops)[-1]) == ([], "no-pages")


def test_a_huge_page_is_rendered_small(tmp_path):
    path = write_pdf(tmp_path / "b.pdf", [{"box": (0, 0, 14000, 9000)}], size=(14400, 14400))
    done, target = imported(path, tmp_path, side=512)
    assert max(load_image(stored(target, done.records[0].images[0])).size) <= 512


DRAW = "/Gs gs 320 0 0 240 40 30 cm /Im Do"  # upright, two points a pixel
GRAY = "/Type /XObject /Subtype /Image /Width 160 /Height 120 /BitsPerComponent 8 /ColorSpace /DeviceGray"
BITS = "/Type /XObject /Subtype /Image /Width 2 /Height 1 /BitsPerComponent 1 /ImageMask true"
GROUP = "/Type /XObject /Subtype /Form /BBox [0 0 400 300] /Group << /S /Transparency /CS /DeviceGray >>"
NOTE = "/Type /Annot /Subtype /Stamp /Rect [100 100 200 200] /F 4 /AP << /N 7 0 R >>"
RGB = "/ColorSpace /DeviceRGB"
OVAL = bytes(255 * ((x - 80) ** 2 / 4900 + (y - 60) ** 2 / 2500 < 1) for y in range(120) for x in range(160))
CURVED = "40 150 m 40 280 360 280 360 150 c 360 20 40 20 40 150 c W n"

CHANGED = {
    "soft mask": {"keys": f"{RGB} /SMask 6 0 R", "others": ((GRAY, OVAL),)},
    "stencil mask": {"keys": f"{RGB} /Mask 6 0 R", "others": ((BITS, b"\x40"),)},
    "color key": {"keys": f"{RGB} /Mask [0 130 0 255 0 255]"},
    "clip path": {"content": f"100 60 100 150 re W n {DRAW}"},
    "curved clip path": {"content": f"{CURVED} {DRAW}"},
    "inverted": {"keys": f"{RGB} /Decode [1 0 1 0 1 0]"},
    "darkened": {"keys": f"{RGB} /Decode [0 0.5 0 0.5 0 0.5]"},
    "constant alpha": {"resources": "/ExtGState << /Gs << /ca 0.5 >> >>"},
    "mask of the state": {
        "resources": "/ExtGState << /Gs << /SMask << /S /Luminosity /G 6 0 R >> >> >>",
        "others": ((GROUP, b"1 g 100 60 150 150 re f"),),
    },
    "soft light": {
        "resources": "/ExtGState << /Gs << /BM /SoftLight >> >>",
        "before": "0.3 0.6 0.9 rg 0 0 400 300 re f",
    },
    "multiply": {"resources": "/ExtGState << /Gs << /BM /Multiply >> >>", "before": "0.3 0.6 0.9 rg 0 0 400 300 re f"},
    "drawn over": {"after": "0 0 1 rg 100 60 50 50 re f"},
    "annotated": {
        "page": "/MediaBox [0 0 400 300] /Annots [6 0 R]",
        "others": ((NOTE, None), ("/Type /XObject /Subtype /Form /BBox [0 0 100 100]", b"0 1 0 rg 0 0 100 100 re f")),
    },
    "cropped": {"page": "/MediaBox [0 0 400 300] /CropBox [100 100 350 250]"},
    "stretched": {"content": "320 0 0 160 40 30 cm /Im Do"},
    "on a turned page": {"page": "/MediaBox [0 0 400 300] /Rotate 90"},
    "turned": {"content": "0 240 -320 0 360 30 cm /Im Do"},
    "mirrored": {"content": "-320 0 0 240 360 30 cm /Im Do"},
    "within a form": {
        "content": "0.5 0 0 0.5 20 10 cm /Fm Do",
        "resources": "/XObject << /Im 5 0 R /Fm 6 0 R >>",
        "others": (
            (
                "/Type /XObject /Subtype /Form /BBox [0 0 800 600] /Resources << /XObject << /Im 5 0 R >> >>",
                b"640 0 0 480 40 30 cm /Im Do",
            ),
        ),
    },
}

SAME = {
    "plain": {},
    "gray": {"keys": "/ColorSpace /DeviceGray", "image": art(1).convert("L")},
    "identity decode": {"keys": f"{RGB} /Decode [0 1 0 1 0 1]"},
    "wide clip path": {"content": f"0 0 400 300 re W n {DRAW}"},
    "nothing blended": {"resources": "/ExtGState << /Gs << /BM /Normal /ca 1 >> >>"},
    "overprint on white": {"resources": "/ExtGState << /Gs << /OP true /op true /OPM 1 >> >>"},
    "odd page": {"page": "/MediaBox [-7.3 11.9 595.276 841.89]", "content": "313.7 0 0 235.275 41.3 33.7 cm /Im Do"},
    "bleeding a hair": {"content": "400.4 0 0 300.3 -0.2 -0.1 cm /Im Do"},
}


def page_with_image(path, content=DRAW, before="", after="", image=None, **parts):
    content = f"q {before} Q q {content} Q q {after} Q"
    return write_raw_pdf(path, content, image=image or art(1), **parts)


def as_rendered(path):
    """What a reader of the only page sees, cut down to what is drawn."""
    with pypdfium2.PdfDocument(path) as document:
        page = document[0].render(scale=4).to_pil().convert("RGB")
    ink = ImageChops.difference(page, Image.new("RGB", page.size, "white")).convert("L")
    return page.crop(ink.point(lambda value: 255 * (value > 12)).getbbox())


@pytest.mark.parametrize("case", CHANGED)
def test_an_image_that_the_page_changes_is_rendered(tmp_path, case):
    path = page_with_image(tmp_path / "b.pdf", **CHANGED[case])
    done, target = imported(path, tmp_path)
    data = stored(target, done.records[0].images[0])
    assert data != file_of(art(1))
    seen, wanted = load_image(data), as_rendered(path)
    assert abs(seen.width / seen.height / (wanted.width / wanted.height) - 1) < 0.03
    away = np.abs(np.asarray(seen, float) - np.asarray(wanted.resize(seen.size, Image.Resampling.BOX), float))
    assert away.mean() < 6


@pytest.mark.parametrize("case", SAME)
def test_an_image_that_the_page_shows_as_it_is_keeps_its_bytes(tmp_path, case):
    done, target = imported(page_with_image(tmp_path / "b.pdf", **SAME[case]), tmp_path)
    assert stored(target, done.records[0].images[0]) == file_of(SAME[case].get("image") or art(1))


def test_a_region_is_rendered_at_the_resolution_of_its_image(tmp_path):
    image, keys = art(1, (640, 480)), f"{RGB} /Decode [1 0 1 0 1 0]"
    path = page_with_image(tmp_path / "b.pdf", image=image, keys=keys)
    done, target = imported(path, tmp_path, side=100)
    seen = load_image(stored(target, done.records[0].images[0]))
    away = ImageChops.difference(seen, ImageChops.invert(load_image(file_of(image))))
    assert max(high for _, high in away.getextrema()) <= 1  # pixel on pixel
    tiny = page_with_image(
        tmp_path / "c.pdf", "4 0 0 3 0 0 cm /Im Do", image=art(1, (2600, 1950)), keys=keys, page="/MediaBox [0 0 4 3]"
    )
    done, target = imported(tiny, tmp_path)
    assert max(load_image(stored(target, done.records[0].images[0])).size) == 2048  # bounded
