"""The data set folder: one or more `NAME.jsonl` of stories, with their images; broken lines are read too.

`seedstory.storystream.read_jsonl` stops at the first broken line; a tool that mends a data set skips it.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from data_tools.drops import NAME, Drop, Tally
from seedstory.image import MAX_BYTES
from seedstory.io import inside, open_regular, read_regular
from seedstory.storystream import StoryRecord

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MAX_LINE = 64 * 2**20  # bytes


@dataclass(frozen=True)
class Line:
    """A line of a story file: its record, or what is wrong with it."""

    file: Path
    number: int
    record: StoryRecord | None
    fault: str = ""

    @property
    def where(self) -> str:
        return f"{self.file.name}, line {self.number}"

    @property
    def drop(self) -> Drop:
        """The drop of a line without a record."""
        return Drop(self.where, None, "broken-line", self.fault)


def story_files(folder: Path) -> list[Path]:
    """The story files of a data set folder, in the order of their names.

    Raises:
        ValueError: There is no such folder, or no story file in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give the folder that holds train.jsonl or another NAME.jsonl")
    files = sorted(path for path in folder.glob("*.jsonl") if not path.is_dir() and path.name != NAME)
    if not files:
        raise ValueError(f"{folder} holds no NAME.jsonl: a data set has one JSON object per story in such a file")
    return files


def read_lines(path: Path) -> Iterator[Line]:
    """Reads every line of a story file, the broken ones too; blank lines are skipped."""
    with open_regular(path) as file:
        number = 0
        while raw := file.readline(MAX_LINE + 1):
            number += 1
            if len(raw) > MAX_LINE:
                yield Line(path, number, None, f"longer than {MAX_LINE // 2**20} MiB")
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(MAX_LINE)
                continue
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw.strip():
                try:
                    yield Line(path, number, StoryRecord.from_json(raw))
                except ValueError as error:
                    yield Line(path, number, None, str(error))


def read_stories(path: Path, broken: Tally) -> Iterator[tuple[Line, StoryRecord]]:
    """The lines of a story file that hold a story, each with its record; the others are added to `broken`."""
    for line in read_lines(path):
        if line.record is None:
            broken.add(line.drop)
        else:
            yield line, line.record


def image_path(path: str) -> PurePosixPath:
    """An image path of a record, if it stays inside its data set folder.

    Raises:
        ValueError: It is absolute, climbs out with "..", or does not end like a picture.
    """
    pure = PurePosixPath(path)
    try:
        inside(Path(), str(pure) if path else "")
        outside = ":" in pure.parts[0]  # a drive or an address
    except ValueError:
        outside = True
    if outside:
        hint = r" (`python -m data_tools.importers storystream` reads paths with \)" if "\\" in path else ""
        raise ValueError(
            f"{path!r} does not stay inside the data set folder: use a relative path like images/1.png{hint}"
        )
    if pure.suffix.lower() not in IMAGES:
        raise ValueError(f"{path!r} does not end like a picture: {' '.join(IMAGES)}")
    return pure


def locate(folder: Path, path: str) -> Path:
    """The file that a path of a record names; never a file outside the folder, not even through a link.

    Raises:
        ValueError: As `image_path`, or a link leads out.
    """
    try:
        found = (folder / image_path(path)).resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path!r} cannot be found: {error}") from None
    if not found.is_relative_to(folder.resolve()):
        raise ValueError(f"{path!r} leads out of the data set folder through a link")
    return found


def read_file(folder: Path, path: str) -> bytes:
    """The bytes of a picture or mask that a record names: a plain file of bounded size within the folder.

    Raises:
        ValueError: As `locate`; or there is no such file, or it is something else or too large.
    """
    return read_regular(locate(folder, path), limit=MAX_BYTES, what=path)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of an image in a file format of Pillow, with the options of its `save`."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def map_masks(record: StoryRecord, new_path: Callable[[str], str | None]) -> StoryRecord:
    """A record whose masks have other paths; a mask whose new path is None is left out.

    A mask that keeps its path keeps its place among the keys of its page; any other goes last.
    """

    def mapped(holder: dict[str, Any]) -> dict[str, Any]:
        new = dict(holder)
        path = new_path(holder["mask"]) if "mask" in holder else None
        if path != new.get("mask"):
            del new["mask"]
            new |= {"mask": path} if path else {}
        if "characters" in new:
            new["characters"] = [mapped(character) for character in new["characters"]]
        return new

    if record.pages is None:
        return record
    return replace(record, pages=[page and mapped(page) for page in record.pages])


def only_pages(record: StoryRecord, pages: Iterable[int]) -> StoryRecord:
    """A record with some of its pages; `orders` keep their places in the story."""
    pages = list(pages)
    lists = {key: getattr(record, key) for key in ("images", "captions", "orders", "alts", "pages")}
    kept: dict[str, Any] = {key: [value[n] for n in pages] for key, value in lists.items() if value is not None}
    return replace(record, **kept)
