"""What every format of the book shows: its texts made safe, its front and back matter, its colors and layout.

All text of a story is a model's or a user's words. It is cleaned here, once: no controls (XML cannot hold some), no
overrides of direction, one line. Each format then escapes it, or hands it on as data.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import unicodedata
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from seedstory.errors import RequestError, StoryFolderError
from seedstory.settings import check_language
from seedstory.story import UNTITLED, Page, Story, StoryFolder
from seedstory.text import clean_text

LAYOUTS = ("picture-book", "comic")
BLANK = "This picture is not drawn yet."
NO_LICENSE = "No license is stated: ask the author before you copy or change it."
FIXED_DATE = "2000-01-01T00:00:00Z"  # for formats that must have a date: a story has none
MAX_FIELD = 500  # characters of an author's name or a license

# ink on paper; `soft` is for small print, `tint` for the page under a picture, `accent` for ornaments.
STYLES = {
    "paper": {"paper": "#fffdf6", "tint": "#f4ead8", "ink": "#2d241c", "soft": "#5c4c3c", "accent": "#a6502c"},
    "plain": {"paper": "#ffffff", "tint": "#ffffff", "ink": "#000000", "soft": "#444444", "accent": "#444444"},
    "night": {"paper": "#201a13", "tint": "#17130f", "ink": "#f3e9d8", "soft": "#bcab93", "accent": "#eda077"},
}


@dataclass(frozen=True, kw_only=True)
class BookDesign:
    """How a book is laid out, and what its title page says.

    Args:
        layout: "picture-book" (a page or a spread for each page of the story) or "comic" (a grid of panels).
        style: Colors: "paper" (warm), "plain" (black on white) or "night".
        balloons: Comic: captions in balloons where the image has little to see, instead of under the panels.
        author: Who is named on the title page; empty: nobody.
        license: Under which license the book is; empty: none is stated.
    """

    layout: str = "picture-book"
    style: str = "paper"
    balloons: bool = False
    author: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        for name, value, known in (("layout", self.layout, LAYOUTS), ("style", self.style, tuple(STYLES))):
            if value not in known:
                raise RequestError(f"unknown {name} {value!r:.40}: choose one of {', '.join(known)}")
        if self.balloons and self.layout != "comic":
            raise RequestError("balloons belong to a comic: choose the layout comic, too")
        for name, text in (("author", self.author), ("license", self.license)):
            if len(text) > MAX_FIELD:
                raise RequestError(f"{name} is too long: at most {MAX_FIELD} characters")

    @property
    def colors(self) -> dict[str, str]:
        return STYLES[self.style]


@dataclass(frozen=True)
class BookPage:
    """The words of one page; its image is read when it is needed."""

    index: int
    caption: str
    alt: str
    has_image: bool

    @property
    def number(self) -> int:
        return self.index + 1

    @property
    def direction(self) -> str:
        return direction_of(self.caption)


@dataclass(eq=False)
class Book:
    """A story as every format shows it. Use `Book.of`."""

    source: Story | StoryFolder
    design: BookDesign
    title: str
    language: str
    pages: list[BookPage]
    author: str
    license: str
    maker: str
    seed: int
    ended: bool

    @classmethod
    def of(cls, story: Story | StoryFolder, design: BookDesign | None = None) -> Book:
        """Reads the words of a story.

        Raises:
            StoryFolderError: The story has no page.
        """
        design = design or BookDesign()
        if isinstance(story, Story):
            pages = [_page(page, page.image is not None) for page in story.pages]
        else:
            drawn = [entry.image_file is not None for entry in story.entries]
            words = (story.page(index, image=False, features=False) for index in range(len(story)))
            pages = [_page(page, has_image) for page, has_image in zip(words, drawn, strict=True)]
        if not pages:
            raise StoryFolderError("the story has no page yet: nothing to show")
        version = story.versions.get("seedstory", "")
        model = Path(story.model.name).name
        return cls(
            source=story,
            design=design,
            title=clean_text(story.title) or UNTITLED,
            language=safe_language(story.language),
            pages=pages,
            author=clean_text(design.author),
            license=clean_text(design.license) or NO_LICENSE,
            maker=clean_text(" ".join(part for part in ("seedstory", version, f"({model})" if model else "") if part)),
            seed=story.settings.seed,
            ended=len(pages) >= story.settings.pages,
        )

    def image(self, index: int) -> Image.Image | None:
        """The image of a page in RGB, in its own pixels."""
        if isinstance(self.source, Story):
            image = self.source.pages[index].image
        else:
            image = self.source.page(index, features=False).image if self.pages[index].has_image else None
        return image.convert("RGB") if image is not None else None

    def images(self) -> Iterator[tuple[BookPage, Image.Image | None]]:
        """The pages with their images, one at a time."""
        return ((page, self.image(page.index)) for page in self.pages)

    @property
    def byline(self) -> str:
        count = "one page" if len(self.pages) == 1 else f"{len(self.pages)} pages"
        return f"A picture story in {count}"

    @property
    def ending(self) -> str:
        return "The End" if self.ended else "To be continued"

    @property
    def credits(self) -> list[str]:
        """Title page, the other side: who made it, and under which license it is."""
        lines = [f"Story and pictures: {self.author}, with the machine {self.maker}."] if self.author else []
        return [*lines, *([] if lines else [f"Written and drawn by the machine {self.maker}."]), self.license]

    @cached_property
    def colophon(self) -> list[str]:
        """How the book was made: model, weights, seed and the pixels of its pictures."""
        lines = [f"Written and drawn by the machine {self.maker}, seed {self.seed}."]
        fingerprint = self.source.model.fingerprint
        if fingerprint:
            lines.append(f"Fingerprint of its weights: {fingerprint[:16]}.")
        sizes = sorted({image.size for _, image in self.images() if image is not None})
        if sizes:
            shown = ", ".join(f"{width} × {height}" for width, height in sizes[:3]) + (" ..." if sizes[3:] else "")
            lines.append(f"The pictures were drawn with {shown} pixels.")
        return lines

    @cached_property
    def identifier(self) -> str:
        """A UUID of what the book says, the same for the same story."""
        digest = hashlib.sha256()
        for text in (self.title, self.language, self.maker, str(self.seed), *(page.caption for page in self.pages)):
            digest.update(text.encode("utf-8") + b"\0")
        return str(uuid.UUID(bytes=digest.digest()[:16], version=5))

    def texts(self) -> str:
        """Every character that a reader may see, for the choice of fonts."""
        fixed = "Page not drawn yet. This picture is 0123456789 ,.:;–—-×…()[]?!'\"“”‘’\N{REPLACEMENT CHARACTER}"
        parts = [self.title, self.author, self.byline, self.ending, "To be continued", *self.credits, *self.colophon]
        return " ".join([fixed, *parts, *(page.caption for page in self.pages)])


def _page(page: Page, has_image: bool) -> BookPage:
    return BookPage(page.index, clean_text(page.caption), clean_text(page.describe()), has_image)


def safe_language(tag: str) -> str:
    """A BCP 47 tag, or nothing where it is not one."""
    with contextlib.suppress(ValueError):
        check_language(tag)
        return tag
    return ""


def direction_of(text: str) -> str:
    """Where a text runs, by its first letter that has a direction: "rtl" or "ltr"."""
    for char in text:
        kind = unicodedata.bidirectional(char)
        if kind in ("R", "AL"):
            return "rtl"
        if kind == "L":
            return "ltr"
    return "ltr"


def png_of(image: Image.Image) -> bytes:
    """An image as PNG: its own pixels, and nothing else that it carried."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", image.size, image.convert("RGB").tobytes()).save(buffer, "PNG")
    return buffer.getvalue()


def require(module: str, what: str) -> Any:
    """Imports a library of the extra `book`.

    Raises:
        RequestError: It is not installed; one line that says what to install.
    """
    try:
        return import_module(module)
    except ImportError:
        raise RequestError(f"{what} needs {module.split('.')[0]}: pip install 'seedstory[book]'") from None
