"""The printed book and what all formats share: safe words, fonts, places of balloons, layouts."""

import logging
import re
import sys

import numpy as np
import pytest
from PIL import Image

from seedstory.errors import RequestError
from seedstory.export import EXPORTS, get_writer, write_book
from seedstory.export.balloons import balloon_place, saliency
from seedstory.export.book import Book, BookDesign, direction_of
from seedstory.export.fitting import fit, wrap
from seedstory.export.fonts import REPLACEMENT, make_fonts
from seedstory.export.typeset import breakable, comic_groups
from tests.seedstory.book_stories import hostile_story, make_story, output, program

pytest.importorskip("typst", reason="the extra book is not installed")

COMIC = BookDesign(layout="comic", balloons=True, author="Ann Lee", license="CC BY 4.0")


def test_every_format_has_its_writer():
    assert set(EXPORTS) == {"html", "pdf", "epub", "cbz", "mp4", "vistorybench"}
    assert [get_writer(name).__name__ for name in EXPORTS] == [f"write_{name}" for name in EXPORTS]
    with pytest.raises(RequestError, match="unknown format 'docx': choose one of html"):
        get_writer("docx")


def test_designs_are_checked():
    for wrong, said in (({"layout": "scroll"}, "layout"), ({"style": "neon"}, "style"), ({"balloons": True}, "comic")):
        with pytest.raises(RequestError, match=said):
            BookDesign(**wrong)
    with pytest.raises(RequestError, match="at most"):
        BookDesign(author="x" * 501)


def test_words_are_safe_for_xml_and_keep_what_they_say():
    book = Book.of(hostile_story())
    words = book.texts()
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\u202a-\u202e\u2066-\u2069]", words)
    assert "👩‍👩‍👧" in words and "]]>" in words and "controls" in words
    assert [direction_of(page.caption) for page in book.pages[7:10]] == ["ltr", "rtl", "rtl"]


def test_a_missing_library_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(RequestError, match=r"^a book as PDF needs typst: pip install 'seedstory\[book\]'$"):
        write_book(make_story(["One."]), tmp_path / "book.pdf", "pdf")
    assert not list(tmp_path.iterdir())


def test_fonts_cover_scripts_and_say_what_they_lack(tmp_path, caplog):
    text = "Latin Ελληνικά Кириллица 中文 ひらがな 한국어 العربية עברית हिन्दी ไทย 🦊"
    with caplog.at_level(logging.WARNING):
        fonts = make_fonts(text, "", tmp_path)
        assert fonts.missing == {} and not caplog.records
        assert fonts.families[0] == "Noto Serif" and {"Noto Naskh Arabic", "Noto Serif JP"} <= set(fonts.families)
        lacking = make_fonts("A \u16a0\u16a2", "", tmp_path / "..")
    assert lacking.missing == {"Runic": 2} and "Runic (2 characters)" in caplog.text
    assert lacking.show("A \u16a0") == f"A {REPLACEMENT}"
    assert sum(file.path.stat().st_size for file in fonts.files) < 400_000


def test_fonts_are_the_same_bytes_each_time(tmp_path):
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append([file.path.read_bytes() for file in make_fonts("Fox العربية", "", tmp_path / name).files])
    assert made[0] == made[1]


def test_text_is_fitted_whole():
    def width(text):
        return 0.5 * len(text)

    text = "one two three four five six " * 30 + "w" * 200
    size, parts = fit(text.strip(), 200, 100, (40, 20, 10), width, 1.4)
    assert size == 10 and "".join(parts).replace(" ", "") == text.replace(" ", "")
    assert fit("short", 200, 100, (40, 20, 10), width, 1.4) == (40, ["short"])
    assert all(width(line) <= 10 for line in wrap(text, 10, width))
    assert wrap("", 10, width) == []
    assert breakable("W" * 40).replace("\u200b", "") == "W" * 40 and "\u200b" in breakable("W" * 40)
    assert breakable("a short text") == "a short text"


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_balloons_keep_away_from_what_is_seen(corner):
    rng = np.random.default_rng(0)
    pixels = np.full((96, 96, 3), 210, np.uint8)
    row, column = (45 * side for side in corner)
    pixels[row : row + 50, column : column + 50] = rng.integers(0, 255, (50, 50, 3))
    image = Image.fromarray(pixels)
    left, top, width, height = balloon_place(image, "Good night, said the owl.", lambda text: 0.5 * len(text))
    assert 0 <= left and left + width <= 1.01 and 0 <= top and top + height <= 1
    seen = saliency(image)
    cells = seen.shape[0]
    inside = seen[int(top * cells) : int((top + height) * cells), int(left * cells) : int((left + width) * cells)]
    assert inside.sum() < 0.05


def test_many_words_have_a_page_of_their_own():
    pages = Book.of(make_story(["short"] * 5 + ["long " * 100] + ["short"] * 7)).pages
    assert [len(group) for group in comic_groups(pages)] == [4, 1, 1, 4, 3]
    assert [len(group) for group in comic_groups(pages[:5] + pages[6:], balloons=True)] == [6, 6]


def test_pdf_is_print_ready_and_the_same_each_time(tmp_path):
    captions = ["A fox finds a lantern.", "It is warm. 中文", "مرحبا יום"]
    story = make_story(captions, language="en-GB")
    path = write_book(story, tmp_path / "book.pdf", "pdf")
    data = path.read_bytes()
    assert data == write_book(story, tmp_path / "again.pdf", "pdf").read_bytes()
    assert b"/StructTreeRoot" in data and b"/MarkInfo" in data
    program("pdfinfo")
    info = output("pdfinfo", "-box", path)
    boxes = {
        name: [float(n) for n in re.search(rf"{name}:\s+(.*)", info)[1].split()] for name in ("TrimBox", "BleedBox")
    }
    assert boxes["TrimBox"] == pytest.approx([8.5, 8.5, 603.78, 603.78], abs=0.05)
    assert boxes["BleedBox"] == pytest.approx([0, 0, 612.28, 612.28], abs=0.05)
    assert re.search(r"Tagged:\s+yes", info) and re.search(r"Pages:\s+10", info) and "The Lantern" in info
    fonts = output("pdffonts", path).splitlines()[2:]
    assert len(fonts) >= 4 and all(line.split()[-5] == "yes" for line in fonts)
    images = output("pdfimages", "-list", path).splitlines()[2:]
    assert {tuple(line.split()[3:5]) for line in images} == {("48", "48")}  # their own pixels
    text = output("pdftotext", path, "-")
    assert "A fox finds a lantern." in text and "中文" in text and "No license is stated" in text and "seed 7" in text


@pytest.mark.parametrize(
    "design", [BookDesign(style="night"), BookDesign(layout="comic"), COMIC], ids=["book", "comic", "balloons"]
)
def test_hostile_words_are_printed_as_they_are(tmp_path, design):
    path = write_book(hostile_story(), tmp_path / "book.pdf", "pdf", design=design)
    program("pdftotext")
    text = re.sub(r"\s|\u200b", "", output("pdftotext", path, "-"))
    assert '#import"@preview/x:1.0.0":*#panic("attacked")#read("/etc/passwd")$x^2$*b*_i_`c`<label>@ref' in text
    assert "<script>window.attacked=1</script>" in text and text.count("W") >= 3000
    assert text.count("longwordsofacaption") >= 150 and "root:" not in text


@pytest.mark.parametrize("count", [1, 60])
def test_short_and_long_stories(tmp_path, count):
    story = make_story([f"Page {number}." for number in range(1, count + 1)], blank=tuple(range(2, count, 3)))
    for design, pages in ((BookDesign(), 4 + 2 * count), (BookDesign(layout="comic"), 3 + -(-count // 4))):
        path = write_book(story, tmp_path / "book.pdf", "pdf", design=design)
        program("pdfinfo")
        assert re.search(rf"Pages:\s+{pages}\n", output("pdfinfo", path))
