"""PDF picture books: pictures without the text on them, text without pictures, and hostile files."""

from pathlib import Path

import numpy as np
import pytest

from data_tools.importers.harvest import Source, Target
from data_tools.importers.pdf import convert
from seedstory.picture import read_picture
from tests.data_tools.importers.sources import art, check_stored, file_of, reasons, stored, write, write_pdf


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
    picture = read_picture(stored(target, done.records[0].images[0]))
    assert picture.size == (400, 240)  # the box at 2 px a point, and nothing around it
    pixels = np.asarray(picture)
    assert (pixels[0:60] == [180, 40, 40]).all()  # no letter on it
    assert done.records[0].captions[0] in ("inside the picture above", "above inside the picture")
    kept, target = imported(tmp_path / "b.pdf", tmp_path, side=800, keep_text=True)
    assert not (np.asarray(read_picture(stored(target, kept.records[0].images[0])))[:200] == [180, 40, 40]).all()


def test_the_box_that_text_is_printed_on_is_no_part_of_the_picture(tmp_path):
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


def write_raw_pdf(path, drawing: str, image: str = "", more: str = "", states: str = "", ground: str = "") -> Path:
    """A PDF written by hand: `drawing` shows /Im, whose dictionary may say more, on a ground."""
    jpeg, content = file_of(art(3, (320, 320))), f"{ground} q {drawing} /Im Do Q".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 600] /Contents 4 0 R /Resources << /XObject << /Im 5 0 R >> "
        + f"/ExtGState << /G << {states} >> >> >> >>".encode(),
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content),
        f"<< /Type /XObject /Subtype /Image /Width 320 /Height 320 /BitsPerComponent 8 /ColorSpace /DeviceRGB "
        f"/Filter /DCTDecode {image} /Length {len(jpeg)} >>\nstream\n".encode()
        + jpeg
        + b"\nendstream",
        *([more.encode("latin-1")] if more else []),
    ]
    data, places = b"%PDF-1.6\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, one)
    rows = b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"xref\n0 %d\n0000000000 65535 f \n%b" % (len(objects) + 1, rows)
    data += b"trailer << /Root 1 0 R /Size %d >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, data.rindex(b"xref"))
    return write(path, data)


PLACE = "400 0 0 400 100 120 cm"
HALF = "".join(chr(0 if x < 160 else 255) for _ in range(320) for x in range(320))
MASK = (
    "<< /Type /XObject /Subtype /Image /Width 320 /Height 320 /BitsPerComponent 8 /ColorSpace /DeviceGray "
    f"/Length {320 * 320} >>\nstream\n{HALF}\nendstream"
)


def rendered(tmp_path, **options):
    """What is stored of such a page, and whether that is the JPEG itself."""
    done, target = imported(write_raw_pdf(tmp_path / "b.pdf", **options), tmp_path, side=600)
    data = stored(target, done.records[0].images[0])
    return read_picture(data), data == file_of(art(3, (320, 320)))


def test_a_plain_picture_is_taken_over(tmp_path):
    assert rendered(tmp_path, drawing=PLACE)[1]
    assert rendered(tmp_path, drawing=f"/G gs {PLACE}", states="/BM /Normal /CA 1 /ca 1")[1]


@pytest.mark.parametrize(
    ("ground", "colour"),
    [("", (255, 255, 255)), ("1 0.9 0.2 rg 0 0 600 600 re f", (255, 230, 51))],
    ids=["paper", "ground"],
)
def test_a_soft_mask_lets_the_ground_through(tmp_path, ground, colour):
    picture, same = rendered(tmp_path, drawing=PLACE, image="/SMask 6 0 R", more=MASK, ground=ground)
    assert not same
    if ground:
        assert (
            np.abs(np.asarray(picture)[300, 150].astype(int) - (255, 230, 51)).max() < 4
        )  # the left half of its place
    else:
        assert picture.width < 0.6 * picture.height  # nothing but its right half is to be seen


@pytest.mark.parametrize(
    "options",
    [
        {"drawing": f"100 120 200 400 re W n {PLACE}"},
        {"drawing": f"100 120 m 500 120 l 300 520 l h W n {PLACE}"},
        {"drawing": PLACE, "image": "/Decode [1 0 1 0 1 0]"},
        {"drawing": f"/G gs {PLACE}", "states": "/BM /Multiply", "ground": "0 0.6 1 rg 0 0 600 600 re f"},
        {"drawing": f"/G gs {PLACE}", "states": "/BM /SoftLight", "ground": "0.2 g 0 0 600 600 re f"},
        {"drawing": f"/G gs {PLACE}", "states": "/ca 0.3"},
        {"drawing": "400 0 0 400 400 120 cm"},
        {"drawing": PLACE, "image": "/Mask [0 90 0 90 0 90]"},
    ],
    ids=["clip", "triangle", "decode", "multiply", "soft light", "opacity", "over the edge", "colour key"],
)
def test_a_picture_that_the_page_shows_otherwise_is_rendered(tmp_path, options):
    picture, same = rendered(tmp_path, **options)
    assert not same
    assert min(picture.size) > 100


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


def test_a_picture_of_too_many_pixels_is_not_unpacked(tmp_path):
    path = write_pdf(tmp_path / "b.pdf", [{"jpeg": (0, 0, 400, 300, art(1, (640, 480)))}])
    data = path.read_bytes().replace(b"/Width 640", b"/Width 99640").replace(b"/Height 480", b"/Height 99480")
    done, _ = imported(write(tmp_path / "bomb.pdf", data), tmp_path)
    assert (done.records, reasons(done.drops)[-1]) == ([], "no-pages")


def test_a_huge_page_is_rendered_small(tmp_path):
    path = write_pdf(tmp_path / "b.pdf", [{"box": (0, 0, 14000, 9000)}], size=(14400, 14400))
    done, target = imported(path, tmp_path, side=512)
    assert max(read_picture(stored(target, done.records[0].images[0])).size) <= 512
