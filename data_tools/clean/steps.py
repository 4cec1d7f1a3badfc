"""The three passes over a data set: look at every story, decide over all of them, write what is kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from data_tools.clean.decide import Plan, decide
from data_tools.clean.rules import Inspection, PageInspection, Rules, inspect
from data_tools.clean.spool import Spool, to_line
from data_tools.drops import Drop, Tally
from data_tools.engine import Engine, run
from data_tools.folder import encode, image_path, locate, map_masks, only_pages, read_file, read_stories, story_files
from seedstory.image import STORED, load_image, read_image_header
from seedstory.io import remove_leftovers, write_atomic
from seedstory.storystream import StoryRecord, write_jsonl

NAME = "clean.json"
_WORK = ".clean"
_ENCODE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"quality": 95, "method": 4},
}


@dataclass(frozen=True)
class CleaningReport:
    """What came of a run, as it stands in `clean.json`.

    Attributes:
        rules: The rules it went by.
        before: Stories and pages of each split of the source, as far as they could be read.
        after: Stories and pages of each split now.
        groups: How many groups of related stories there are; an unrelated story is a group of one.
        largest_group: Stories in the largest group.
        moved: Stories that were moved to the split of their group; 0 where all splits were assigned anew.
        cropped: Pages that lost their bars.
        drops: How often each reason for a drop was given in this run.
    """

    rules: dict[str, Any]
    before: dict[str, dict[str, int]]
    after: dict[str, dict[str, int]]
    groups: int
    largest_group: int
    moved: int
    cropped: int
    drops: dict[str, int]


@dataclass(frozen=True)
class InspectedStory:
    """A story on its way through a pass."""

    id: str
    split: str
    record: StoryRecord
    inspections: tuple[PageInspection, ...] = ()


def clean(
    folder: Path, out: Path, rules: Rules, *, engine: Engine = "inline", workers: int | None = None
) -> tuple[CleaningReport, Tally]:
    """Writes the clean part of a data set folder as another one.

    Args:
        folder: The data set folder.
        out: The new folder; or one where the same run was killed, or is to be done again.
        rules: What stays.
        engine: See `data_tools.engine`.
        workers: See `data_tools.engine`.

    Returns:
        Figures, and what was dropped in this run. `out` gets `clean.json`, and `drops.jsonl` with what was dropped here
        and in the steps before.

    Raises:
        ValueError: There is no data set in `folder`, or `out` holds something else.
    """
    files = story_files(folder)
    key = _key(files, rules)
    _open_folder(folder, out, key)
    tally = Tally()
    before = {file.stem: Counter(stories=0, pages=0) for file in files}
    spool = Spool(out / _WORK / "stories.jsonl")
    stories = _stories(files, tally, before)
    deque(islice(stories, spool.lines), maxlen=0)  # looked at by an earlier run
    spool.extend(run(partial(_inspect, folder, rules), stories, engine=engine, workers=workers, label="look"))
    for _, found in spool:
        tally.add(found.drops)
    plan = decide(spool, rules)
    tally.add(plan.drops)

    after, cropped = {}, 0
    for split in rules.splits or before:
        count = after[split] = {"stories": 0, "pages": 0}

        def records(split: str = split, count: dict[str, int] = count) -> Iterator[StoryRecord]:
            nonlocal cropped
            total = sum(bool(pages) and name == split for pages, name in zip(plan.pages, plan.splits))
            jobs, step = _staying(spool, plan, split), partial(_store, folder, out)
            for record, crops, drops in run(step, jobs, engine=engine, workers=workers, label=split, total=total):
                tally.add(drops)
                cropped += crops
                count["stories"] += 1
                count["pages"] += len(record)
                yield record

        write_jsonl(out / f"{split}.jsonl", records())

    cleaned = CleaningReport(
        rules=asdict(rules),
        before={split: dict(count) for split, count in before.items()},
        after=after,
        groups=len(plan.groups),
        largest_group=max(map(len, plan.groups), default=0),
        moved=plan.moved,
        cropped=cropped,
        drops=tally.counts(),
    )
    (Tally.read(folder) + tally).write(out)
    text = json.dumps({"key": key} | asdict(cleaned), ensure_ascii=False, indent=1)
    write_atomic(out / NAME, f"{text}\n".encode(), durable=False, make_folder=True)
    shutil.rmtree(out / _WORK)
    return cleaned, tally


def _key(files: list[Path], rules: Rules) -> str:
    """A hash of the rules and of the story files."""
    digest = hashlib.sha256(json.dumps(asdict(rules)).encode())
    for file in files:
        with open(file, "rb") as opened:
            digest.update(f"\n{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()


def _open_folder(folder: Path, out: Path, key: str) -> None:
    """Makes the folder and notes in it what is cleaned, and by which rules."""
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out} is the data set itself, which is never changed in place: choose another folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder: choose another one")
    notes = [path for path in (out / NAME, out / _WORK / "key.json") if path.is_file()]
    if any(json.loads(note.read_bytes()).get("key") != key for note in notes):
        raise ValueError(f"{out} was cleaned from other stories or by other rules: choose another folder or delete it")
    if not notes and out.is_dir() and any(path.name != _WORK for path in out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another folder")
    (out / _WORK).mkdir(parents=True, exist_ok=True)
    for folder in [out, *(path for path in out.rglob("*") if path.is_dir())]:
        remove_leftovers(folder)
    write_atomic(out / _WORK / "key.json", json.dumps({"key": key}).encode(), durable=False, make_folder=True)


def _stories(files: list[Path], tally: Tally, before: dict[str, Counter[str]]) -> Iterator[InspectedStory]:
    """Every story that can be read, each id once."""
    seen: dict[str, str] = {}
    for file in files:
        for line, record in read_stories(file, tally):
            before[file.stem].update(stories=1, pages=len(record))
            if record.id in seen:
                tally.add(Drop(record.id, None, "same-id", f"{line.where} has the id of {seen[record.id]}"))
                continue
            seen[record.id] = line.where
            yield InspectedStory(record.id, file.stem, record)


def _inspect(folder: Path, rules: Rules, story: InspectedStory) -> bytes:
    return to_line(story.split, inspect(story.record, folder, rules))


def _staying(spool: Spool, plan: Plan, split: str) -> Iterator[InspectedStory]:
    """The stories of a split with the pages that stay."""
    for (_, found), pages, name in zip(spool, plan.pages, plan.splits, strict=True):
        if pages and name == split:
            assert isinstance(found, Inspection) and found.record is not None
            inspections = tuple(found.inspections[page] for page in pages)
            yield InspectedStory(found.record.id, split, only_pages(found.record, pages), inspections)


def _store(folder: Path, out: Path, story: InspectedStory) -> tuple[StoryRecord, int, list[Drop]]:
    """Writes the pictures and masks of a story; returns its record, the number of crops, and masks that were lost."""
    images = [
        _store_image(folder, out, path, inspection) for path, inspection in zip(story.record.images, story.inspections)
    ]
    record = replace(story.record, images=images)
    lost = {}
    for page, path in record.masks():
        try:
            source = locate(folder, path)
            read_image_header(source, path, ["PNG"])
            write_atomic(out / image_path(path), source.read_bytes(), durable=False, make_folder=True)
        except ValueError as error:
            lost[path] = Drop(record.id, page, "unreadable-mask", str(error))
    if lost:
        record = map_masks(record, lambda path: None if path in lost else path)
    return record, sum(inspection.crop is not None for inspection in story.inspections), list(lost.values())


def _store_image(folder: Path, out: Path, path: str, inspection: PageInspection) -> str:
    """Copies a picture, or what is left of it within its bars; returns its path."""
    data = read_file(folder, path)
    kind, _ = read_image_header(data, path)
    if inspection.crop or kind not in STORED:
        image = load_image(data, path)
        if kind not in STORED:
            kind, path = "PNG", f"{path}.png"
        data = encode(image.crop(inspection.crop) if inspection.crop else image, kind, **_ENCODE[kind])
    write_atomic(out / image_path(path), data, durable=False, make_folder=True)
    return path
