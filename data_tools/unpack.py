"""Unpacks shards into a data set folder, the inverse of `data_tools.pack`: `python -m data_tools.unpack --help`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from data_tools.command import Out, application, command
from data_tools.drops import Drop, Tally
from data_tools.folder import image_path
from seedstory.shards import Index, ShardReader
from seedstory.storystream import StoryRecord, write_jsonl

Files = list[tuple[str, bytes]]  # (path in the record, content)


def unpack(shards: Path, out: Path) -> Tally:
    """Writes the stories of a shard folder as NAME.jsonl and pictures; the folder appears whole or not at all.

    Args:
        shards: What `data_tools.pack` wrote, of either layout.
        out: The data set folder; must not be there yet.

    Returns:
        What was left out: stories whose paths would lead out of the folder, or hold another story's picture.

    Raises:
        ValueError: `shards` is no shard folder or was changed since it was packed, or `out` is there.
    """
    index = Index.read(shards)
    if out.exists():
        raise ValueError(f"{out} is there already: choose another folder, or delete it")
    for fault in filter(None, (shard.fault(shards) for shard in index.shards)):
        raise ValueError(f"{fault}; copy it or pack the data set again")
    part = out.with_name(f".{out.name}.part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    read = {"webdataset": _read_tar, "parquet": _read_parquet}[index.layout]
    tally = Tally()
    for split in dict.fromkeys(shard.split for shard in index.shards):
        write_jsonl(part / f"{split}.jsonl", _written(read(shards, index, split), part, tally))
    tally.write(part)
    os.rename(part, out)
    return tally


def _written(stories: Iterator[tuple[StoryRecord, Files]], out: Path, tally: Tally) -> Iterator[StoryRecord]:
    for record, files in stories:
        try:
            for path, content in files:
                _write(out / image_path(path), content)
            yield record
        except (OSError, ValueError) as error:
            tally.add(Drop(record.id, None, "unsafe-path", str(error)))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "xb") as file:
            file.write(content)
    except FileExistsError:
        if path.read_bytes() != content:
            raise ValueError(f"another story has another picture of the name {path.name}") from None


def _read_tar(folder: Path, index: Index, split: str) -> Iterator[tuple[StoryRecord, Files]]:
    for story in ShardReader(folder, split):
        yield story.record, [*zip(story.record.images, story.images, strict=True), *story.masks.items()]


def _read_parquet(folder: Path, index: Index, split: str) -> Iterator[tuple[StoryRecord, Files]]:
    from data_tools.parquet import from_row, read_rows

    for shard in index.shards:
        if shard.split == split:
            for row in read_rows(folder / shard.name):
                yield from_row(row), [(file["path"], file["bytes"]) for file in (*row["images"], *row["masks"])]


@command
def main(
    *,
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="Folder that data_tools.pack wrote.")],
    out: Out,
) -> None:
    """Unpack shards into a data set folder: NAME.jsonl and pictures.

    Example: python -m data_tools.unpack data/books-shards --out data/books
    """
    unpack(shards, out).show()


if __name__ == "__main__":
    application(main)()
