"""The book for readers of comics: an archive of pages as pictures, with a ComicInfo.xml."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path

from PIL import Image

from seedstory.export.book import Book, BookDesign, direction_of
from seedstory.export.files import write_export, zip_bytes
from seedstory.export.typeset import typeset
from seedstory.story import Story, StoryFolder

PPI = 160.0  # a page of a comic has 1071 x 1638 pixels


def write_cbz(story: Story | StoryFolder, path: str | Path, *, design: BookDesign | None = None) -> Path:
    """Writes a story as a CBZ archive; by default a comic with captions under its panels.

    A page is one picture, words included, so images are enlarged to it; the colophon and ComicInfo.xml say how many
    pixels they had. The same story gives the same bytes.

    Args:
        story: A story in memory, or a story folder.
        path: The file to write, whole or not at all. Its folder must exist.
        design: Layout, colors, author and license; None for a comic.

    Returns:
        The path.

    Raises:
        RequestError: The extra `book` is not installed.
        StoryFolderError: The story has no page, or the file cannot be written.
    """
    book = Book.of(story, design or BookDesign(layout="comic"))
    pages = typeset(book, output="png", ppi=PPI, bleed=False)
    digits = max(3, len(str(len(pages))))
    files = [("ComicInfo.xml", _comic_info(book, pages).encode("utf-8"))]
    files += [(f"{number:0{digits}d}.png", data) for number, data in enumerate(pages, 1)]
    return write_export(path, zip_bytes(files))


def _comic_info(book: Book, pages: list[bytes]) -> str:
    """Metadata in the form of Anansi's ComicInfo 2.0, its elements in the order of the schema."""
    entries = []
    for number, data in enumerate(pages):
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
        kind = ' Type="FrontCover"' if number == 0 else ' Type="Other"' if number == len(pages) - 1 else ""
        entries.append(
            f'<Page Image="{number}"{kind} ImageSize="{len(data)}" ImageWidth="{width}" ImageHeight="{height}"/>'
        )
    values = {
        "Title": book.title,
        "Summary": book.pages[0].caption,
        "Notes": " ".join([*book.colophon, book.license]),
        "Writer": book.author,
        "PageCount": str(len(pages)),
        "LanguageISO": book.language,
        "Manga": "YesAndRightToLeft" if direction_of(book.title) == "rtl" else "No",
    }
    filled = "\n".join(f"<{name}>{escape(value, quote=False)}</{name}>" for name, value in values.items() if value)
    listed = "\n".join(entries)
    return f"""<?xml version="1.0" encoding="utf-8"?>
<ComicInfo xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">
{filled}
<Pages>
{listed}
</Pages>
</ComicInfo>
"""
