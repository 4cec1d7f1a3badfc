"""Packs a data set folder into shards: `python -m data_tools.pack --help`.

The same data set gives the same bytes, on every run and engine. A killed run resumes
after the last finished shard, if its images are still the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from data_tools.command import Data, Out, Running, application, command
from data_tools.drops import Drop, Tally
from data_tools.engine import Engine, run
from data_tools.folder import image_path, locate, read_lines, story_files
from seedstory.image import MAX_BYTES, STORED, read_image_header
from seedstory.io import open_regular, read_regular, write_atomic
from seedstory.shards import (
    BLOCK,
    INDEX,
    Index,
    Shard,
    image_member,
    mask_member,
    padded,
    story_key,
    tar_header,
)
from seedstory.storystream import StoryRecord

Layout = Literal["webdataset", "parquet"]
SUFFIX = {"webdataset": "tar", "parquet": "parquet"}
WORK = ".pack"  # folder of an unfinished run
_RECORD = 10_240  # bytes; a tar file is padded to these


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to write one shard; `stories` come with their numbers in the file."""

    folder: Path
    out: Path
    layout: Layout
    split: str
    number: int
    stories: tuple[tuple[int, StoryRecord], ...]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:06d}.{SUFFIX[self.layout]}"


@dataclass(frozen=True)
class LoadedStory:
    """A story with its files in memory: (suffix, bytes) of each picture, and the bytes of each mask."""

    key: str
    record: StoryRecord
    images: list[tuple[str, bytes]]
    masks: list[bytes]


def pack(
    folder: Path,
    out: Path,
    *,
    layout: Layout = "webdataset",
    shard_size: int = 256_000_000,
    engine: Engine = "inline",
    workers: int | None = None,
) -> tuple[Index, Tally]:
    """Packs every NAME.jsonl of a data set folder as a split of that name.

    A story with a picture that is missing or not to be read is left out as a whole, and counted. Pictures are judged by
    their headers and kept as they are; `data_tools.clean` decodes them.

    Args:
        folder: The data set folder.
        out: Folder of the shards: a new one, an empty one, or one with an earlier run of the same pack.
        layout: "webdataset" (tar; `seedstory.shards` and webdataset read it) or "parquet" (`datasets` reads it).
        shard_size: Bytes that a shard should not exceed; one story alone may.
        engine: See `data_tools.engine`.
        workers: See `data_tools.engine`.

    Returns:
        The index, as it stands in `out`, and what was left out.

    Raises:
        ValueError: There is no data set in `folder`, or `out` holds something else.
    """
    files = story_files(folder)
    source = {"shard_size": shard_size, "files": {file.name: _sha256(file) for file in files}}
    _open_folder(out, Index(layout, source, []))
    drops, results = Tally(), Tally()
    shards = []
    jobs = _plan(folder, out, files, layout, shard_size, drops)
    for shard, dropped in run(_write, jobs, engine=engine, workers=workers, label="pack"):
        results.add(dropped)
        if shard.stories:
            shards.append(shard)
    kept = {shard.name for shard in shards}
    for split in {file.stem for file in files}:  # of an earlier run, when the data set had larger pictures
        for path in out.glob(f"{split}-[0-9][0-9][0-9][0-9][0-9][0-9].{SUFFIX[layout]}"):
            if path.name not in kept:
                path.unlink()
    index, tally = Index(layout, source, shards), drops + results
    tally.write(out)
    index.write(out)
    shutil.rmtree(out / WORK)
    return index, tally


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_folder(out: Path, plan: Index) -> None:
    """Makes the folder and notes in it what is packed."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder: choose another one for the shards")
    earlier = [where for where in (out, out / WORK) if (where / INDEX).is_file()]
    there = Index.read(earlier[0]) if earlier else None
    if there and (there.layout, there.source) != (plan.layout, plan.source):
        raise ValueError(
            f"{out} holds shards of another data set or other settings: choose another folder or delete it"
        )
    if not there and out.is_dir() and any(path.name != WORK for path in out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no shards: choose another folder")
    (out / WORK).mkdir(parents=True, exist_ok=True)
    plan.write(out / WORK)


def _plan(folder: Path, out: Path, files: list[Path], layout: Layout, size: int, drops: Tally) -> Iterator[ShardJob]:
    """Cuts the stories into shards by the sizes of their files, one shard in memory at a time."""
    for file in files:
        if not re.fullmatch(r"[0-9A-Za-z_]+([.-][0-9A-Za-z_]+)*", file.stem):
            raise ValueError(f"{file} names a split {file.stem!r}: use letters, digits, '_', '-' and '.' only")
        number, total = 0, 2 * BLOCK
        stories: list[tuple[int, StoryRecord]] = []
        for count, line in enumerate(read_lines(file)):
            if line.record is None:
                drops.add(line.drop)
                continue
            try:
                weight = _weight(folder, line.record)
            except _Unfit as unfit:
                drops.add(unfit.drop(line.record))
                continue
            if stories and total + weight > size:
                yield ShardJob(folder, out, layout, file.stem, number, tuple(stories))
                number, total, stories = number + 1, 2 * BLOCK, []
            stories.append((count, line.record))
            total += weight
        if stories:
            yield ShardJob(folder, out, layout, file.stem, number, tuple(stories))


class _Unfit(Exception):
    """A story cannot be packed, because of a page."""

    def __init__(self, page: int, reason: str, detail: str) -> None:
        self.page, self.reason, self.detail = page, reason, detail

    def drop(self, record: StoryRecord) -> Drop:
        return Drop(record.id, self.page, self.reason, f"{self.detail}; so the story was left out")


def _files(record: StoryRecord) -> list[tuple[int, str]]:
    """The files of a story, (page, path): its pictures, then its masks."""
    return [*enumerate(record.images), *record.masks()]


def _weight(folder: Path, record: StoryRecord) -> int:
    """Bytes of a story in a tar shard."""
    sizes = [len(record.to_json().encode())]
    for page, path in _files(record):
        try:
            status = _status(folder, path)
        except ValueError as error:
            raise _Unfit(page, "unsafe-path", str(error)) from None
        except OSError as error:
            raise _Unfit(page, "missing-picture", f"{path}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise _Unfit(page, "unreadable-picture", f"{path} is not a plain file")
        if status.st_size > MAX_BYTES:
            raise _Unfit(page, "unreadable-picture", f"{path} is larger than {MAX_BYTES // 2**20} MB")
        sizes.append(status.st_size)
    return sum(BLOCK + padded(size) for size in sizes)


def _status(folder: Path, path: str) -> os.stat_result:
    """As `os.stat` of what `locate` finds; much faster for a plain file in a folder that was seen before."""
    status = os.lstat(folder / image_path(path))
    if stat.S_ISLNK(status.st_mode) or not _is_within(folder, os.path.dirname(path)):
        return os.stat(locate(folder, path))
    return status


@lru_cache(maxsize=100_000)
def _is_within(folder: Path, part: str) -> bool:
    return (folder / part).resolve().is_relative_to(folder.resolve())


def _load(folder: Path, number: int, record: StoryRecord) -> LoadedStory:
    contents = []
    for place, (page, path) in enumerate(_files(record)):
        try:
            data = read_regular(folder / path, limit=MAX_BYTES, what=path)
            kind, _ = read_image_header(data, path, STORED if place < len(record) else ["PNG"])
        except (OSError, ValueError) as error:
            raise _Unfit(page, "unreadable-picture", str(error)) from None
        contents.append((STORED[kind], data))
    images, masks = contents[: len(record)], contents[len(record) :]
    return LoadedStory(story_key(number, record.id), record, images, [data for _, data in masks])


def _write(job: ShardJob) -> tuple[Shard, list[Drop]]:
    """Writes a shard, unless an earlier run wrote it from the same files."""
    target, note = job.out / job.name, job.out / WORK / f"{job.name}.json"
    fingerprint = _fingerprint(job)
    try:
        done = json.loads(note.read_bytes())
        if done["fingerprint"] == fingerprint and target.stat().st_size == done["shard"]["bytes"]:
            return Shard(**done["shard"]), [Drop(**drop) for drop in done["drops"]]
    except (OSError, ValueError):
        pass
    drops: list[Drop] = []
    part = job.out / WORK / job.name
    shard = _WRITERS[job.layout](job, part, _loaded(job, drops))
    if shard.stories:
        os.replace(part, target)
    else:
        part.unlink()
    done = {"fingerprint": fingerprint, "shard": vars(shard), "drops": [vars(drop) for drop in drops]}
    write_atomic(note, json.dumps(done))
    return shard, drops


def _loaded(job: ShardJob, drops: list[Drop]) -> Iterator[LoadedStory]:
    for number, record in job.stories:
        try:
            yield _load(job.folder, number, record)
        except _Unfit as unfit:
            drops.append(unfit.drop(record))


def _fingerprint(job: ShardJob) -> str:
    """A hash of the records and of the sizes and times of their files."""
    digest = hashlib.sha256(job.layout.encode())
    for number, record in job.stories:
        digest.update(f"\n{number} {record.to_json()}".encode())
        for _, path in _files(record):
            status = os.stat(job.folder / path)
            digest.update(f" {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _write_tar(job: ShardJob, path: Path, stories: Iterator[LoadedStory]) -> Shard:
    digest, entries, at = hashlib.sha256(), [], 0
    with open(path, "wb") as file:
        for story in stories:
            block = b"".join(_tar_story(story))
            file.write(block)
            digest.update(block)
            entries.append((story.record.id, at, len(block), len(story.record)))
            at += len(block)
        end = bytes(-(-(at + 2 * BLOCK) // _RECORD) * _RECORD - at)
        file.write(end)
        digest.update(end)
        file.flush()
        os.fsync(file.fileno())
    return Shard(job.name, job.split, at + len(end), digest.hexdigest(), entries)


def _tar_story(story: LoadedStory) -> Iterator[bytes]:
    """The story as tar members; `seedstory.shards.read_sample` is its inverse."""
    members = [(f"{story.key}.json", story.record.to_json().encode())]
    members += [(image_member(story.key, n, suffix), data) for n, (suffix, data) in enumerate(story.images)]
    masks = enumerate(zip(story.record.masks(), story.masks, strict=True))
    members += [(mask_member(story.key, page, n), data) for n, ((page, _), data) in masks]
    for name, data in members:
        yield tar_header(name, len(data))
        yield data
        yield bytes(padded(len(data)) - len(data))


def _write_parquet(job: ShardJob, path: Path, stories: Iterator[LoadedStory]) -> Shard:
    from data_tools.parquet import write_rows  # loads pyarrow

    entries = [(id, row, 0, pages) for row, (id, pages) in enumerate(write_rows(path, stories))]
    return Shard(job.name, job.split, path.stat().st_size, _sha256(path), entries)


_WRITERS = {"webdataset": _write_tar, "parquet": _write_parquet}


def byte_size(text: str) -> int:
    """A number of bytes such as "256MB" or "1.5 GiB".

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kMGT])(i?))?B?", text.strip(), re.IGNORECASE)
    unit = (1024 if match[3] else 1000) ** " kmgt".index((match[2] or " ").lower()) if match else 0
    size = float(match[1]) * unit if match else 0
    if size < 1:
        raise ValueError(f"{text!r} is no size: write it like 256MB or 1GiB")
    return int(size)


@command
def main(
    *,
    folder: Data,
    out: Out,
    format: Annotated[Layout, typer.Option(help="Tar files for webdataset, or Parquet.")] = "webdataset",
    shard_size: Annotated[str, typer.Option(help="Size that a shard should not exceed.")] = "256MB",
    running: Running,
) -> None:
    """Pack a data set folder into shards with an index.

    Example: python -m data_tools.pack data/books --out data/books-shards --shard-size 256MB --engine processes

    A killed run resumes after the last finished shard. The same data set gives the same bytes.
    """
    index, tally = pack(folder, out, layout=format, shard_size=byte_size(shard_size), **vars(running))
    stories, pages = sum(len(shard.stories) for shard in index.shards), sum(shard.pages for shard in index.shards)
    total = sum(shard.bytes for shard in index.shards) / 1e6
    console = Console()
    console.print(f"{out}: {stories} stories, {pages} pages, {len(index.shards)} shards, {total:.1f} MB", markup=False)
    tally.show(console)


if __name__ == "__main__":
    application(main)()
