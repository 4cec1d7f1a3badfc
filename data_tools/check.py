"""Checks a data set folder or a folder of shards: `python -m data_tools.check --help`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from data_tools import drops
from data_tools.command import Running, application, command
from data_tools.engine import Engine, run
from data_tools.folder import Line, image_path, read_file, read_lines, story_files
from seedstory.image import STORED, load_image, read_image_header
from seedstory.io import open_regular
from seedstory.shards import INDEX, Index, Shard, locate_sample
from seedstory.storystream import StoryRecord

_SHOWN = 50  # faults that are printed; --json has them all


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        file: Name of the story file or shard.
        line: Line of a story file, or number of the story in a shard, from 1; None where the file itself is meant.
        field: Field of the record, such as `images[3]`; empty where the record itself is meant.
        story: Id of the story, as far as it is known.
        message: What is wrong.
    """

    file: str
    line: int | None
    field: str
    story: str
    message: str

    def __str__(self) -> str:
        place = self.line and f"{'line' if self.file.endswith('.jsonl') else 'number'} {self.line}"
        parts = [self.file, place, self.story and f"story {self.story}", self.field]
        return f"{', '.join(str(part) for part in parts if part)}: {self.message}"


@dataclass
class Verdict:
    """What came of a check: what was read, and its faults."""

    kind: str
    stories: int = 0
    pages: int = 0
    faults: list[Fault] = field(default_factory=list)


def check(path: Path, *, decode: bool = True, engine: Engine = "inline", workers: int | None = None) -> Verdict:
    """Checks a data set folder (records, pictures, masks, boxes) or a folder of shards (index, hashes, and the same).

    Args:
        path: The folder.
        decode: Decode every picture; False judges them by their headers, which is faster and misses damage.
        engine: See `data_tools.engine`.
        workers: See `data_tools.engine`.

    Raises:
        ValueError: The folder is neither.
    """
    if (path / INDEX).is_file():
        return _check_shards(path, decode, engine, workers)
    return _check_folder(path, decode, engine, workers)


def _check_folder(folder: Path, decode: bool, engine: Engine, workers: int | None) -> Verdict:
    verdict = Verdict("data set folder")
    files = story_files(folder)
    ids: dict[str, str] = {}

    def lines() -> Iterator[Line]:
        for file in files:
            for line in read_lines(file):
                if line.record is None:
                    fault = Fault(file.name, line.number, _field_in(line.fault), "", line.fault)
                    verdict.faults.append(fault)
                    continue
                verdict.stories += 1
                verdict.pages += len(line.record)
                if (there := ids.setdefault(line.record.id, line.where)) != line.where:
                    message = f"the id stands in {there} already"
                    verdict.faults.append(Fault(file.name, line.number, "id", line.record.id, message))
                yield line

    found = run(partial(_check_line, folder, decode), lines(), engine=engine, workers=workers, label="check")
    later = [fault for faults in found for fault in faults]
    places = {file.name: place for place, file in enumerate(files)}
    verdict.faults = sorted([*verdict.faults, *later], key=lambda fault: (places[fault.file], fault.line or 0))
    try:
        drops.Tally.read(folder)
    except ValueError as error:
        verdict.faults.append(Fault(drops.NAME, None, "", "", str(error)))
    return verdict


def _check_line(folder: Path, decode: bool, line: Line) -> list[Fault]:
    assert line.record is not None

    record, read = line.record, partial(read_file, folder)
    found = _story_faults(record, lambda page: read(record.images[page]), read, decode)
    return [Fault(line.file.name, line.number, where, line.record.id, message) for where, message in found]


def _check_shards(folder: Path, decode: bool, engine: Engine, workers: int | None) -> Verdict:
    index = Index.read(folder)
    verdict = Verdict(f"{index.layout} shards")
    step = partial(_check_shard, folder, index.layout, decode)
    for faults in run(step, index.shards, engine=engine, workers=workers, label="check"):
        verdict.faults += faults
    ids: dict[str, str] = {}
    for shard in index.shards:
        verdict.stories += len(shard.stories)
        verdict.pages += shard.pages
        for number, (id, *_) in enumerate(shard.stories, start=1):
            if (there := ids.setdefault(id, f"{shard.name}, story {number}")) != f"{shard.name}, story {number}":
                verdict.faults.append(Fault(shard.name, number, "id", id, f"the id stands in {there} already"))
    return verdict


def _check_shard(folder: Path, layout: str, decode: bool, shard: Shard) -> list[Fault]:
    faults = []
    if message := shard.fault(folder):  # it may still be read story by story
        faults.append(Fault(shard.name, None, "", "", message))
    read = {"webdataset": _tar_stories, "parquet": _parquet_stories}.get(layout)
    if read is None:
        return [Fault(INDEX, None, "layout", "", f"there is no layout {layout!r}")]
    try:
        for number, (id, pages, story) in enumerate(read(folder, shard), start=1):
            if isinstance(story, str):
                faults.append(Fault(shard.name, number, _field_in(story), id, story))
                continue
            record, image, mask = story
            found = _story_faults(record, image, mask, decode)
            if record.id != id:
                found.insert(0, ("id", f"it is {record.id!r:.80}, not as the index has it"))
            if len(record) != pages:
                found.insert(0, ("images", f"there are {len(record)} pages, but {pages} in the index"))
            faults += [Fault(shard.name, number, where, id, message) for where, message in found]
    except (OSError, ValueError) as error:
        if str(error) != message:
            faults.append(Fault(shard.name, None, "", "", f"it cannot be read: {error}"))
    return faults


_Story = tuple[StoryRecord, Callable[[int], bytes], Callable[[str], bytes]]  # and what reads its pictures and masks


def _tar_stories(folder: Path, shard: Shard) -> Iterator[tuple[str, int, _Story | str]]:
    """Each story of a shard as (id, pages, story), or with what is wrong with it in place of the story."""
    with open_regular(folder / shard.name, what=f"shard {shard.name}") as file:
        for id, offset, size, pages in shard.stories:

            def read(at: int, length: int, offset: int = offset) -> bytes:
                return os.pread(file.fileno(), length, offset + at)

            try:
                places = locate_sample(read, size)
            except ValueError as error:
                yield id, pages, str(error)
                continue
            image = partial(_at, read, places.images)
            yield id, pages, (places.record, image, partial(_at, read, places.masks))


def _at(read: Callable[[int, int], bytes], places: Any, key: Any) -> bytes:
    return read(*places[key])


def _parquet_stories(folder: Path, shard: Shard) -> Iterator[tuple[str, int, _Story | str]]:
    from data_tools.parquet import from_row, read_rows

    rows = read_rows(folder / shard.name)
    for (id, _, _, pages), row in zip(shard.stories, rows, strict=True):
        try:
            images, masks = row["images"], {mask["path"]: mask["bytes"] for mask in row["masks"]}
            record = from_row(row)
        except (ValueError, KeyError, TypeError) as error:
            yield id, pages, f"the row is no story ({error})"
            continue
        yield id, pages, (record, partial(_bytes_of, images), masks.__getitem__)


def _bytes_of(images: list[dict[str, bytes]], page: int) -> bytes:
    return images[page]["bytes"]


def _story_faults(
    record: StoryRecord, image: Callable[[int], bytes], mask: Callable[[str], bytes], decode: bool
) -> list[tuple[str, str]]:
    """What is wrong with a story beyond its line, as (field, message)."""
    found = [] if record.images else [("images", "the story has no pages")]
    if any(one >= other for one, other in zip(record.orders, record.orders[1:])):
        found.append(("orders", "they do not ascend"))
    sizes: list[tuple[int, int] | None] = []
    for page, path in enumerate(record.images):
        sizes.append(None)
        try:
            image_path(path)
            data = image(page)
            kind, sizes[page] = read_image_header(data, path)
            if decode:
                sizes[page] = load_image(data, path).size
            if kind not in STORED:
                found.append((f"images[{page}]", f"{path} is {kind}: packing takes {', '.join(STORED)}"))
        except (OSError, ValueError, LookupError) as error:
            found.append((f"images[{page}]", _said(error)))
    for page, path in record.masks():
        try:
            image_path(path)
            read_image_header(mask(path), path, ["PNG"])
        except (OSError, ValueError, LookupError) as error:
            found.append((f"pages[{page}].mask", _said(error)))
    for page, truth in enumerate(record.pages or ()):
        found += _box_faults(truth, sizes[page], f"pages[{page}]")
        start, end = truth["time"] if truth and isinstance(truth.get("time"), list) else (0, 0)
        if start > end:
            found.append((f"pages[{page}].time", f"it ends at {end} s, before it starts at {start} s"))
    return found


def _box_faults(truth: dict[str, Any] | None, size: tuple[int, int] | None, where: str) -> list[tuple[str, str]]:
    """Boxes that are empty or lie outside their picture."""
    found = []
    for number, character in enumerate((truth or {}).get("characters", ())):
        if "box" in character and size:
            x0, y0, x1, y1 = character["box"]
            if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
                message = f"{character['box']} is no box [x0, y0, x1, y1] within {size[0]} x {size[1]} px"
                found.append((f"{where}.characters[{number}].box", message))
    return found


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the file'}: {error.strerror or error}"
    return str(error) if isinstance(error, ValueError) else f"there is no {error}"


def _field_in(message: str) -> str:
    """The field that a message of `StoryRecord` names."""
    named = re.search(r"field '([^']+)'", message)
    return named[1] if named else ""


@command
def main(
    *,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A data set folder, or a folder of shards.")],
    json_: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    headers: Annotated[bool, typer.Option("--headers", help="Judge pictures by their headers; faster.")] = False,
    running: Running,
) -> None:
    """Check a data set: every record, picture, mask and box, and of shards the index and every byte.

    Example: python -m data_tools.check data/books

    Each fault is named with its file, line and field. The exit code is 1 where there is any.
    """
    verdict = check(path, decode=not headers, **vars(running))
    if json_:
        typer.echo(json.dumps({"path": str(path)} | asdict(verdict), ensure_ascii=False, indent=1))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for fault in verdict.faults[:_SHOWN]:
            console.print(escape(str(fault)))
        if len(verdict.faults) > _SHOWN:
            console.print(f"... and {len(verdict.faults) - _SHOWN} more: --json lists them all")
        count = f"{verdict.stories} stories, {verdict.pages} pages"
        console.print(escape(f"{path}: {verdict.kind}, {count}, {len(verdict.faults) or 'no'} faults"))
    raise typer.Exit(1 if verdict.faults else 0)


if __name__ == "__main__":
    application(main)()
