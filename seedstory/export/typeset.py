"""Sets a book with Typst: words go in as data (a JSON file), pages come out as PDF or as pixels."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

from seedstory.errors import StoryFolderError
from seedstory.export.balloons import balloon_place, fits_balloon
from seedstory.export.book import BLANK, Book, BookPage, direction_of, png_of, require
from seedstory.export.fonts import BookFonts, make_fonts

TEMPLATE = Path(__file__).parent / "book.typ"
BLEED = 3.0  # mm
# Trim size and margin in mm: a square picture book, a comic of the usual format.
FORMATS = {"picture-book": (210.0, 210.0, 24.0), "comic": (170.0, 260.0, 11.0)}
LONG_CAPTION = 420  # characters: more and the panel gets a page of its own
LONG_WORD = 18  # characters: longer ones may break anywhere


def typeset(
    book: Book, *, output: str = "pdf", ppi: float = 144.0, bleed: bool = True, cards: bool = False
) -> list[bytes]:
    """The pages of a book.

    Args:
        book: The book.
        output: "pdf" (one file, PDF/UA-1) or "png" (a file for each page).
        ppi: Pixels per inch of the PNG files.
        bleed: Whether pages go on beyond the trim, for printing.
        cards: Only title, credits, a page without a picture, and end, as a film needs them; square.

    Raises:
        RequestError: typst or the fonts are not installed.
    """
    typst = require("typst", f"a book as {output.upper()}")
    with tempfile.TemporaryDirectory(prefix="seedstory-book-") as name:
        folder = Path(name)
        (folder / "fonts").mkdir()
        fonts = make_fonts(book.texts(), book.language, folder / "fonts")
        data = book_data(book, fonts, folder, bleed=BLEED if bleed else 0.0)
        if cards:
            width, height, margin = FORMATS["picture-book"]
            data |= {"layout": "cards", "groups": [], "width": width, "height": height, "margin": margin}
        (folder / "book.json").write_text(json.dumps(data, ensure_ascii=False), "utf-8")
        shutil.copyfile(TEMPLATE, folder / "book.typ")
        options: dict[str, Any] = {"pdf_standards": ["ua-1"]} if output == "pdf" else {"ppi": ppi}
        try:
            made = typst.compile(
                str(folder / "book.typ"),
                root=name,
                format=output,
                font_paths=[str(folder / "fonts")],
                ignore_system_fonts=True,
                **options,
            )
        except typst.TypstError as error:
            raise StoryFolderError(f"the book cannot be set: {error.message}") from None
    return list(made) if isinstance(made, list) else [made]


def book_data(book: Book, fonts: BookFonts, folder: Path, *, bleed: float) -> dict[str, Any]:
    """What the template reads; writes the images that it names into `folder`."""
    design = book.design
    width, height, margin = FORMATS[design.layout]
    lang, _, rest = book.language.partition("-")
    region = next((part for part in rest.split("-") if re.fullmatch("[A-Za-z]{2}", part)), None)

    def words(text: str) -> dict[str, str]:
        return {"text": breakable(fonts.show(text)), "dir": direction_of(text)}

    entries = []
    for page, image in book.images():
        entry: dict[str, Any] = {"number": page.number, "caption": words(page.caption), "alt": page.alt}
        entry |= {"image": None, "ratio": 1.0, "balloon": None}
        if image is not None:
            entry["image"] = f"page-{page.number}.png"
            entry["ratio"] = image.height / image.width
            (folder / entry["image"]).write_bytes(png_of(image))
            if design.balloons and page.caption and fits_balloon(page.caption):
                place = balloon_place(image, page.caption, fonts.width)
                entry["balloon"] = dict(zip(("x", "y", "width", "height"), place))
        entries.append(entry)
    cover = entries[0]
    return {
        "title": book.title,
        "heading": words(book.title),
        "author": words(book.author),
        "authors": [book.author] if book.author else [],
        "summary": book.pages[0].caption[:300],
        "lang": lang if re.fullmatch("[a-z]{2,3}", lang) else "en",
        "region": region,
        "families": fonts.families,
        "colors": design.colors,
        "layout": design.layout,
        "balloons": design.balloons,
        "width": width,
        "height": height,
        "margin": margin,
        "bleed": bleed,
        "byline": book.byline,
        "ending": book.ending,
        "blank": BLANK,
        "cover": cover["image"],
        "cover_alt": cover["alt"],
        "credits": [words(line) for line in book.credits],
        "colophon": [words(line) for line in book.colophon],
        "groups": [[entries[page.index] for page in group] for group in comic_groups(book.pages, design.balloons)],
    }


def comic_groups(pages: list[BookPage], balloons: bool = False) -> list[list[BookPage]]:
    """The panels of each page of a comic: four, or six where every caption is in a balloon; many words stand alone."""
    groups: list[list[BookPage]] = []
    for page in pages:
        last = groups[-1] if groups else []
        size = 6 if balloons and all(fits_balloon(one.caption) for one in [*last, page]) else 4
        if not last or len(last) >= size or any(len(one.caption) > LONG_CAPTION for one in (last[-1], page)):
            groups.append([])
        groups[-1].append(page)
    return groups


def breakable(text: str) -> str:
    """A text whose very long words may break: a space without width after every few of their characters."""
    return re.sub(rf"\S{{{LONG_WORD + 1},}}", lambda word: _broken(word[0]), text)


def _broken(word: str) -> str:
    if not word.isascii() and direction_of(word) == "rtl":
        return word if len(word) < 3 * LONG_WORD else "\u200b".join(_parts(word))
    return "\u200b".join(_parts(word))


def _parts(word: str) -> list[str]:
    """A word in parts of six characters; marks and joined emoji stay with what they belong to."""
    parts, start = [], 0
    for place in range(1, len(word)):
        joined = word[place] in "\u200d\ufe0f" or word[place - 1] == "\u200d" or _is_mark(word[place])
        if place - start >= 6 and not joined:
            parts.append(word[start:place])
            start = place
    return [*parts, word[start:]]


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M") or "\U0001f3fb" <= char <= "\U0001f3ff" or char >= "\U000e0000"
