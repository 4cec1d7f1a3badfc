"""Generates the stories that a checkpoint is scored on: captions given, or freely from the first page on.

A folder of generated stories holds `rollout.json`, which says what they were asked to be and what they took, so that a
stopped run resumes, and one that asks for something else is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from inference.workers import Workers
from seedstory.export.html import write_html
from seedstory.io import write_atomic
from seedstory.pipeline import StoryPipeline
from seedstory.rendering import render_pages
from seedstory.story import Page, StoryFolder
from seedstory.storystream import StoryRecord, read_jsonl

_BATCH = 8  # pictures drawn together


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """How stories are generated; together with the model, it decides every word and every image.

    Args:
        pages: Pages of each story.
        free: Generate from the first caption on, in so many pages. Otherwise all captions are given, and the labels of
            the pages count down to the end of the whole record, however few of its pages are generated.
        policy: Cache policy.
        seed: Of the first story; the next has the next number.
        steps: De-tokenizer steps; None: those of its scheduler.
        batch_size: Stories whose words are written together.
    """

    pages: int = 10
    free: bool = False
    policy: str = "mm_sink"
    seed: int = 0
    steps: int | None = None
    batch_size: int = 4


def choose_records(data: Path, split: str, stories: int, pages: int) -> tuple[str, list[StoryRecord]]:
    """The first stories of a split that are long enough; of `long-<split>` if the split holds none.

    Returns:
        The split that was taken, and its stories.

    Raises:
        ValueError: There is no such data set or split, or it holds too few stories of that length.
    """
    if not data.is_dir():
        raise ValueError(
            f"there is no data set {data}: write it with python -m data_tools.paper_theatre generate --out {data} "
            f"--split heldout --stories 60, or name another with --data"
        )
    longest, most = 0, 0
    names = [name for name in (split, f"long-{split}") if (data / f"{name}.jsonl").is_file()]
    for name in names:
        records = list(read_jsonl(data / f"{name}.jsonl"))
        longest = max([longest, *map(len, records)])
        records = [record for record in records if len(record) >= pages]
        if len(records) >= stories:
            return name, records[:stories]
        most = max(most, len(records))
    if split not in names:
        there = ", ".join(sorted(file.stem for file in data.glob("*.jsonl"))) or "no split at all"
        raise ValueError(f"{data} has no split {split!r}: it holds {there}")
    searched = " and ".join(f"{name}.jsonl" for name in names)
    if most:
        raise ValueError(f"{searched} in {data} hold {most} stories of {pages} or more pages, not {stories}")
    raise ValueError(
        f"{searched} in {data} hold no story of {pages} pages, the longest has {longest}; longer ones come from "
        f"python -m data_tools.paper_theatre generate --out {data} --split {split} --stories {stories} --pages 200"
    )


class RolloutFolder:
    """The folder of generated stories, with `rollout.json`: what was asked, and the seconds of each finished story.

    Args:
        folder: Where they are, or will be.
        rollout: How they are generated.
        fingerprint: Fingerprint of the model.

    Raises:
        ValueError: The folder holds stories of another run, or other files.
    """

    def __init__(self, folder: Path, rollout: RolloutOptions, fingerprint: str) -> None:
        self.folder, self.rollout = folder, rollout
        self._file, self._request = folder / "rollout.json", {"model": fingerprint} | asdict(rollout)
        self._seconds: dict[str, float] = {}
        if self._file.is_file():
            try:
                found = json.loads(self._file.read_text("utf-8"))
                asked, self._seconds = dict(found["request"]), dict(found["seconds"])
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{self._file} cannot be read: give another --out") from None
            other = [key for key, value in self._request.items() if asked.get(key) != value]
            if other:
                raise ValueError(
                    f"the stories in {folder} were generated with another {', '.join(other)}: give another --out"
                )
        elif folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder} holds other files: give a new or an empty folder as --out")

    def hold(self, records: Sequence[StoryRecord]) -> bool:
        """Whether all of these are generated."""
        return all(_key(record) in self._seconds for record in records)

    def seconds(self, records: Sequence[StoryRecord]) -> float:
        """The seconds that these stories took."""
        return sum(self._seconds[_key(record)] for record in records)

    def note(self, records: Sequence[StoryRecord], seconds: float) -> None:
        """Notes that these are generated, and how many seconds they took together."""
        self._seconds |= dict.fromkeys(map(_key, records), seconds / len(records))
        text = json.dumps({"request": self._request, "seconds": self._seconds}, indent=1)
        write_atomic(self._file, text.encode() + b"\n")


def _key(record: StoryRecord) -> str:
    """Name of a story and of its words, which another data set may have under the same name."""
    return f"{record.id} {hashlib.sha256(json.dumps(record.captions).encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class RolloutTask:
    """The generation of stories whose words are written together.

    Args:
        records: Give the captions, or the first one.
        out: Folder for the story folders.
        rollout: How they are generated.
        first: Number of the first one among all stories, which its seed follows.
    """

    records: tuple[StoryRecord, ...]
    out: Path
    rollout: RolloutOptions
    first: int

    @property
    def pages(self) -> int:
        return 2 * len(self.records) * self.rollout.pages

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(self.out / record.id for record in self.records)

    def split(self) -> list[RolloutTask]:
        numbered = enumerate(self.records, self.first)
        return [replace(self, records=(record,), first=number) for number, record in numbered]

    def make(self, pipeline: StoryPipeline) -> Iterator[Any]:
        """Words and features of all stories, always the same ones together, so that rounding is the same; then images.

        Yields:
            Once for each page that is written and for each one that is drawn.
        """
        asked = [
            {
                "text": record.captions[0],
                "captions": None if self.rollout.free else record.captions[1:],
                "pages": self.rollout.pages if self.rollout.free else len(record),
                "title": record.title or None,
                "seed": self.rollout.seed + number,
                "policy": self.rollout.policy,
                "num_inference_steps": self.rollout.steps,
                "out": self.out / record.id,
                "overwrite": True,
            }
            for number, record in enumerate(self.records, self.first)
        ]
        with closing(pipeline.write_batch(asked)) as written:
            yield from itertools.islice(written, len(self.records) * self.rollout.pages)
        for folder in self.folders:
            yield from _draw(pipeline, StoryFolder.open(folder))


def generate_stories(
    workers: Workers, records: Sequence[StoryRecord], generated: RolloutFolder, advance: Callable[[int], Any]
) -> float:
    """Generates a story for each record in a folder of its own, named by its id; finished ones stay.

    Args:
        workers: Make the stories.
        records: Give the captions, or the first one.
        generated: Where the stories go, and how they are generated.
        advance: Called with the number of pages that are written or drawn.

    Returns:
        Seconds of a worker a page, words and picture.

    Raises:
        ValueError: Stories could not be made; all others are there.
    """
    out, rollout = generated.folder.resolve(), generated.rollout
    out.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(records), rollout.batch_size)
    tasks = [RolloutTask(tuple(records[at : at + rollout.batch_size]), out, rollout, at) for at in starts]
    lacking = [task for task in tasks if not generated.hold(task.records)]
    advance(sum(task.pages for task in tasks) - sum(task.pages for task in lacking))
    faults = []
    for outcome in workers.run(lacking, advance):
        assert isinstance(outcome.task, RolloutTask)
        if outcome.fault:
            faults.append(outcome.line)
        else:
            for folder in outcome.task.folders:
                write_html(StoryFolder.open(folder), folder / "index.html")
            generated.note(outcome.task.records, outcome.seconds)
    if faults:
        raise ValueError(f"{len(faults)} of {len(records)} stories could not be made: {'; '.join(sorted(faults))}")
    return generated.seconds(records) / (len(records) * rollout.pages)


def _draw(pipeline: StoryPipeline, folder: StoryFolder) -> Iterator[Page]:
    for start in range(0, len(folder), _BATCH):
        pages = [folder.page(index) for index in range(start, min(start + _BATCH, len(folder)))]
        for page in render_pages(pipeline.detokenizer, folder.settings, pages):
            folder.add_page(page)
            yield page
