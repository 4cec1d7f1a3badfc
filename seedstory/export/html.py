"""One HTML file that is the whole book: pictures inside, no network, readable without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Iterable
from html import escape
from pathlib import Path

from PIL import Image

from seedstory.export.balloons import PANEL_EM, balloon_place, fits_balloon
from seedstory.export.book import BLANK, Book, BookDesign, BookPage, direction_of, png_of
from seedstory.export.files import write_export
from seedstory.story import Story, StoryFolder

_STYLE = (Path(__file__).parent / "book.css").read_text("utf-8")
# Turns pages, reads aloud, switches to dark; without it the browser scrolls as always.
_SCRIPT = (Path(__file__).parent / "book.js").read_text("utf-8")


def write_html(story: Story | StoryFolder, path: str | Path, *, design: BookDesign | None = None) -> Path:
    """Writes a story as one self-contained HTML file.

    The page carries a content security policy that forbids every connection, and all text of the story is
    escaped: captions are a model's or a user's words, not markup. Reading aloud takes voices of the device alone.

    Args:
        story: A story in memory, or a story folder, which is read one page at a time.
        path: The file to write, whole or not at all. Its folder must exist.
        design: Layout, colors, author and license.

    Returns:
        The path.

    Raises:
        StoryFolderError: The story has no page, or the file cannot be written.
    """
    return write_export(path, "".join(_parts(Book.of(story, design))))


def _parts(book: Book) -> Iterable[str]:
    yield _head(book)
    yield _cover(book)
    yield f'<main class="{book.design.layout}" aria-label="Story">\n'
    for page, image in book.images():
        yield _leaf(book, page, image)
    yield "</main>\n" + _colophon(book) + f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _head(book: Book) -> str:
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode("utf-8")).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    language = f' lang="{escape(book.language)}"' if book.language else ""
    theme = {"night": ' data-theme="dark"', "plain": ' data-style="plain"'}.get(book.design.style, "")
    direction = ' dir="rtl"' if direction_of(book.title) == "rtl" else ""
    return f"""<!doctype html>
<html{language}{direction}{theme}>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="seedstory">
<meta name="description" content="{escape(book.pages[0].caption)}">
<title>{escape(book.title)}</title>
<style>
{_STYLE}</style>
</head>
<body>
"""


def _cover(book: Book) -> str:
    first = book.image(0)
    vignette = f'<img class="vignette" alt="" src="{_data_url(first)}">\n' if first else ""
    author = f'<p class="author" dir="auto">{escape(book.author)}</p>\n' if book.author else ""
    return f"""<header class="leaf cover">
{vignette}<h1 dir="auto" class="words">{escape(book.title)}</h1>
<p class="ornament" aria-hidden="true">\N{BLACK FLORETTE}</p>
<p class="byline" lang="en">{escape(book.byline)}</p>
{author}</header>
"""


def _leaf(book: Book, page: BookPage, image: Image.Image | None) -> str:
    name = f"page-{page.number}"
    caption = f'<p dir="auto" class="words">{escape(page.caption)}</p>' if page.caption else ""
    balloon = ""
    if image is not None:
        picture = f'<img alt="{escape(page.alt)}" src="{_data_url(image)}" decoding="async">'
        if book.design.balloons and caption and fits_balloon(page.caption):
            left, top, width, _ = balloon_place(image, page.caption, _width)
            place = f"left:{left:.1%};top:{top:.1%};width:{width:.1%};font-size:calc(100cqw / {PANEL_EM})"
            balloon, caption = f'<div class="balloon" style="{place}">{caption}</div>', ""
    else:
        picture = f'<p class="blank" lang="en">{BLANK}</p>'
    return f"""<article class="leaf page" id="{name}" aria-label="Page {page.number} of {len(book.pages)}">
<div class="picture">{picture}{balloon}</div>
<div class="text">{caption}</div>
<a class="folio" href="#{name}" aria-label="Page {page.number}">{page.number}</a>
</article>
"""


def _colophon(book: Book) -> str:
    author = [f"Story and pictures: {book.author}."] if book.author else []
    lines = "\n".join(f'<p dir="auto">{escape(line)}</p>' for line in [*author, *book.colophon, book.license])
    return f"""<footer class="leaf colophon" lang="en">
<p class="end">{book.ending}</p>
{lines}
</footer>
"""


def _width(text: str) -> float:
    """About the width of a text in em, in whatever font the reader has."""
    return sum(1.0 if unicodedata.east_asian_width(char) in "WF" else 0.58 for char in text)


def _data_url(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png_of(image)).decode()
