"""Measures the data tools: pages per second and core, and gigabytes per second of shard reading.

All files are in the page cache and every system runs in one process, so what is measured is code, not a disk. Systems
take turns, after a round that does not count; a figure is the median of the rounds, with the least and the greatest.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # "per core" means one

import json
import platform
import shutil
import statistics
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from data_tools.clean.rules import Rules
from data_tools.clean.steps import clean
from data_tools.command import JsonFile, application, command
from data_tools.engine import cores, run
from data_tools.folder import story_files
from data_tools.pack import pack
from seedstory.image import load_image
from seedstory.shards import ShardReader, StorySampler
from seedstory.storystream import StoryRecord, read_jsonl, write_jsonl

_SIZE = (512, 384)  # px of a page that is made up
_PAGES = 10  # of a story that is made up


@dataclass(frozen=True)
class System:
    """Something to measure: the group it is compared in, how much data it handles, and the function to time."""

    group: str
    name: str
    unit: str
    amount: float
    action: Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """The result of a measurement, as an amount per second."""

    group: str
    name: str
    unit: str
    median: float
    least: float
    greatest: float


def make_data(folder: Path, stories: int) -> Path:
    """Writes a data set of smooth noise: half JPEG, a quarter WebP, a quarter PNG."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    records = []
    for number in range(stories):
        images = [f"images/{number}-{page}.{('jpeg', 'webp', 'jpeg', 'png')[page % 4]}" for page in range(_PAGES)]
        for path in images:
            coarse = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8))
            coarse.resize(_SIZE, Image.Resampling.BICUBIC).save(folder / path, quality=90)
        captions = [f"On page {page} the wind came down from the hills." for page in range(_PAGES)]
        records.append(StoryRecord(id=f"s{number}", images=images, captions=captions, orders=list(range(_PAGES))))
    write_jsonl(folder / "train.jsonl", records)
    return folder


def step_systems(data: Path, scratch: Path) -> list[System]:
    """The steps between a data set folder and its shards."""
    records = [record for file in story_files(data) for record in read_jsonl(file)]
    pages, workers = sum(map(len, records)), cores()
    step = partial(decode, data)
    actions = {
        "decode": lambda: _exhaust(run(step, records)),
        f"decode, {workers} processes": lambda: _exhaust(run(step, records, engine="processes", workers=workers)),
        "clean (decodes)": lambda: _fresh(scratch, lambda out: clean(data, out, Rules())),
        "pack, webdataset": lambda: _fresh(scratch, partial(pack, data)),
        "pack, parquet": lambda: _fresh(scratch, partial(pack, data, layout="parquet")),
        "clean and pack": lambda: _fresh(scratch, partial(_clean_and_pack, data)),
    }
    return [System("steps", name, "pages/s", pages, action) for name, action in actions.items()]


def _clean_and_pack(data: Path, out: Path) -> None:
    clean(data, out / "clean", Rules())
    pack(out / "clean", out / "shards")


def decode(folder: Path, record: StoryRecord) -> int:
    """Decodes the pages of a story; returns how many there are."""
    return len([load_image(folder / path) for path in record.images])


def read_systems(shards: Path) -> list[System]:
    """Readers of the same tar shards. All give the bytes of every member; ours also parses and checks the record."""
    import webdataset  # loads torch, which worker processes do not need

    reader = ShardReader(shards)
    names = [str(shards / shard.name) for shard in reader.shards]
    actions = {
        "plain read (no members)": lambda: [Path(name).read_bytes() and None for name in names],
        "tarfile": lambda: _exhaust(member for name in names for member in _tar_members(name)),
        "webdataset": lambda: _exhaust(webdataset.WebDataset(names, shardshuffle=False, empty_check=False)),
        "ShardReader, in order": lambda: _exhaust(reader),
        "ShardReader, shuffled": lambda: _exhaust(reader[n] for n in StorySampler(len(reader)).permutation(0)),
    }
    size = sum(shard.bytes for shard in reader.shards) / 1e9
    return [System("reading", name, "GB/s", size, action) for name, action in actions.items()]


def measure(systems: list[System], rounds: int) -> list[Figure]:
    """Runs the systems in turns."""
    seconds: list[list[float]] = [[] for _ in systems]
    for turn in range(rounds + 1):
        for system, taken in zip(systems, seconds, strict=True):
            begin = time.perf_counter()
            system.action()
            if turn:
                taken.append(time.perf_counter() - begin)
    return [
        Figure(one.group, one.name, one.unit, *(one.amount / s for s in (statistics.median(t), max(t), min(t))))
        for one, t in zip(systems, seconds, strict=True)
    ]


def _exhaust(items: Iterable[object]) -> None:
    deque(items, maxlen=0)


def _fresh(folder: Path, action: Callable[[Path], object]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    action(folder)


def _tar_members(name: str) -> Iterable[bytes]:
    with tarfile.open(name, "r:") as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            yield content.read()


@command
def main(
    *,
    data: Annotated[Path | None, typer.Option(help="A data set folder; one is made up if not given.")] = None,
    stories: Annotated[int, typer.Option(min=1, help="Size of the data set that is made up, in stories.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="A small data set and 2 rounds: does it run?")] = False,
    json_file: JsonFile = None,
) -> None:
    """Measure decoding, cleaning, packing and shard reading on this machine.

    Example: python -m data_tools.benchmark --data data/books --json bench.json
    """
    if quick:
        stories, rounds = min(stories, 6), 2
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        source = data or make_data(scratch / "data", stories)
        index, drops = pack(source, scratch / "shards")
        if not index.shards:
            reasons = ", ".join(f"{count} {reason}" for reason, count in drops.counts().items()) or "it has none"
            raise ValueError(f"no story of {source} can be packed ({reasons}); python -m data_tools.check says more")
        figures = measure([*step_systems(source, scratch / "out"), *read_systems(scratch / "shards")], rounds)
    reading = {figure.name: figure.median for figure in figures if figure.group == "reading"}
    table = Table("", "median", "least", "greatest", "", "of webdataset", box=None)
    for one in figures:
        share = f"{one.median / reading['webdataset']:.2f} x" if one.group == "reading" else ""
        table.add_row(one.name, *(f"{value:.4g}" for value in (one.median, one.least, one.greatest)), one.unit, share)
    console = Console()
    pages = sum(shard.pages for shard in index.shards)
    kind = f"{pages} pages, {sum(shard.bytes for shard in index.shards) / 1e6:.0f} MB, {rounds} rounds"
    console.print(kind, markup=False)
    console.print(table)
    if json_file:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        text = {"data": kind, "machine": machine, "figures": [asdict(one) for one in figures]}
        json_file.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    application(main)()
