"""Exporters: a story becomes a book, in one design and many formats.

`EXPORTS` names them; each writer is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from seedstory.errors import RequestError

if TYPE_CHECKING:
    from seedstory.export.book import BookDesign
    from seedstory.story import Story, StoryFolder

    Writer = Callable[..., Path]


@dataclass(frozen=True)
class Export:
    """A format: what it is called on disk, and who writes it.

    Args:
        module: The module under `seedstory.export`, with a function `write_FORMAT`.
        file_name: The name in a story folder.
        is_folder: Whether it is a folder of files.
    """

    module: str
    file_name: str
    is_folder: bool = False


EXPORTS: Mapping[str, Export] = {
    "html": Export("html", "index.html"),
    "pdf": Export("pdf", "book.pdf"),
    "epub": Export("epub", "book.epub"),
    "cbz": Export("cbz", "book.cbz"),
    "mp4": Export("mp4", "book.mp4"),
    "vistorybench": Export("vistorybench", "vistorybench", is_folder=True),
}


def get_writer(name: str) -> Writer:
    """The function that writes a format.

    Raises:
        RequestError: There is no such format.
    """
    if name not in EXPORTS:
        raise RequestError(f"unknown format {name!r}: choose one of {', '.join(EXPORTS)}")
    return getattr(import_module(f"seedstory.export.{EXPORTS[name].module}"), f"write_{name}")


def write_book(
    story: Story | StoryFolder, path: str | Path, name: str = "html", *, design: BookDesign | None = None
) -> Path:
    """Writes a story in one of the formats of `EXPORTS`.

    Args:
        story: A story in memory, or a story folder.
        path: The file to write; a folder for "vistorybench".
        name: The format.
        design: How the book is laid out; None for the default.

    Raises:
        RequestError: There is no such format, or its libraries are not installed.
        StoryFolderError: The story has no page, or the file cannot be written.
    """
    return get_writer(name)(story, path, **({} if design is None else {"design": design}))
