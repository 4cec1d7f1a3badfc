"""What a report says of a data set, counted story by story."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from data_tools.clean.steps import NAME as CLEANED
from data_tools.drops import Tally
from data_tools.engine import Engine, run
from data_tools.folder import encode, locate, read_file, read_lines, story_files
from seedstory.image import load_image, read_image_header
from seedstory.storystream import StoryRecord
from seedstory.text import count_words

THUMB = 128  # px, longer side
_SOURCES = 12  # sources that are listed by name


@dataclass(frozen=True)
class Sample:
    """A page on a contact sheet: its thumbnail as a data URL, and its source."""

    image: str
    caption: str
    story: str
    page: int
    title: str
    rights: str


@dataclass
class DatasetFacts:
    """All that a report says.

    Attributes:
        name: Name of the data set.
        splits: Stories, pages, words and bytes of pictures of each split.
        pages: Pages of each story.
        words: Words of each page.
        sizes: (width, height) of each picture that can be read.
        licenses: Stories of each license.
        languages: Stories of each language.
        sources: Stories and pages of each source, the largest first.
        sheets: Some pages of each source.
        known: On how many pages there is a description, an alternative text, characters, masks, a time.
        broken: Lines and pictures that cannot be read.
        drops: What was left out on the way.
        cleaning: What `clean.json` says, if there is one.
    """

    name: str
    splits: dict[str, Counter[str]] = field(default_factory=dict)
    pages: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    sheets: dict[str, list[Sample]] = field(default_factory=dict)
    known: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    drops: Tally = field(default_factory=Tally)
    cleaning: dict[str, Any] | None = None


@dataclass(frozen=True)
class _CountedStory:
    """What a report keeps of a story; no text, so that a data set of any size fits."""

    id: str
    split: str
    source: str
    pages: int


def gather(
    folder: Path, *, title: str = "", samples: int = 16, engine: Engine = "inline", workers: int | None = None
) -> DatasetFacts:
    """Counts a data set folder.

    Args:
        folder: The data set folder.
        title: What to call it; the name of the folder by default.
        samples: Pages on the contact sheet of each source.
        engine: See `data_tools.engine`.
        workers: See `data_tools.engine`.

    Raises:
        ValueError: There is no data set in the folder.
    """
    files = story_files(folder)
    facts = DatasetFacts(title or folder.resolve().name, drops=Tally.read(folder))
    facts.splits = {file.stem: Counter(stories=0, pages=0, words=0, bytes=0) for file in files}
    if (folder / CLEANED).is_file():
        facts.cleaning = json.loads((folder / CLEANED).read_bytes())
    stories: list[_CountedStory] = []
    measured = run(partial(_measure, folder), _records(files, facts), engine=engine, workers=workers, label="measure")
    for (split, record), (sizes, size) in zip(_records(files, DatasetFacts("")), measured):
        facts.sizes.update(sizes)
        facts.broken += len(record) - len(sizes)
        stories.append(_count(facts, split, record))
        facts.splits[split]["bytes"] += size
    names = _source_names(stories)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for story in stories:
        counts[names[story.source]].update(stories=1, pages=story.pages)
    facts.sources = dict(sorted(counts.items(), key=lambda item: (-item[1]["pages"], item[0])))
    chosen = _choose(stories, names, list(facts.sources)[:_SOURCES], samples)
    wanted = ((record, chosen[split, record.id]) for split, record in _records(files, DatasetFacts("")))
    jobs = [(record, pages) for record, pages in wanted if pages]
    sheets: dict[str, list[Sample]] = {name: [] for name in list(facts.sources)[:_SOURCES]}
    shots = run(partial(_sample, folder), jobs, engine=engine, workers=workers, label="contact sheets")
    for (record, _), found in zip(jobs, shots, strict=True):
        sheets[names[_source(record)]] += found
    facts.sheets = {name: sheet for name, sheet in sheets.items() if sheet}
    return facts


def _records(files: list[Path], facts: DatasetFacts) -> Iterator[tuple[str, StoryRecord]]:
    for file in files:
        for line in read_lines(file):
            if line.record is None:
                facts.broken += 1
            else:
                yield file.stem, line.record


def _measure(folder: Path, item: tuple[str, StoryRecord]) -> tuple[list[tuple[int, int]], int]:
    """The sizes of a story's pictures, as far as they can be read, and their bytes."""
    sizes, total = [], 0
    for path in item[1].images:
        try:
            data = read_file(folder, path)
            sizes.append(read_image_header(data, path)[1])
            total += len(data)
        except (OSError, ValueError):
            continue
    return sizes, total


def _count(facts: DatasetFacts, split: str, record: StoryRecord) -> _CountedStory:
    words = [count_words(caption) for caption in record.captions]
    facts.splits[split].update(stories=1, pages=len(record), words=sum(words))
    facts.pages.append(len(record))
    facts.words += words
    facts.licenses[record.license or "none given"] += 1
    facts.languages[record.language or "not known"] += 1
    facts.known["alternative text"] += sum(bool(alt) for alt in record.alts or ())
    for truth in record.pages or ():
        names = {"description": "description", "characters": "characters", "time": "time", "coreference": "coreference"}
        facts.known.update(said for key, said in names.items() if truth and truth.get(key))
    facts.known["mask"] += len(record.masks())
    return _CountedStory(record.id, split, _source(record), len(record))


def _source(record: StoryRecord) -> str:
    return record.source_repo or f"{record.id.partition('-')[0]} (no source given)"


def _source_names(stories: list[_CountedStory]) -> dict[str, str]:
    """What each source is called: where there are very many, by its host and owner only."""
    sources = {story.source for story in stories}
    if len(sources) <= _SOURCES:
        return {source: source for source in sources}
    return {source: "/".join(source.removeprefix("https://").split("/")[:2]) for source in sources}


def _choose(
    stories: list[_CountedStory], names: dict[str, str], shown: list[str], samples: int
) -> dict[tuple[str, str], list[int]]:
    """Which pages of which story (split, id) are shown: of each source a fixed draw, a page of every story first."""
    drawn: dict[str, list[tuple[int, bytes, tuple[str, str], int]]] = {name: [] for name in shown}
    for story in stories:
        if names[story.source] not in drawn or not story.pages:
            continue
        digest = hashlib.sha256(story.id.encode()).digest()
        first = digest[0] % story.pages
        turns = min(samples, story.pages)
        for turn in range(turns):
            page = (first + turn * story.pages // turns) % story.pages
            drawn[names[story.source]].append((turn, digest, (story.split, story.id), page))
    chosen: dict[tuple[str, str], list[int]] = defaultdict(list)
    for draw in drawn.values():
        for _, _, key, page in sorted(draw)[:samples]:
            if page not in chosen[key]:
                chosen[key].append(page)
    return chosen


def _sample(folder: Path, job: tuple[StoryRecord, list[int]]) -> list[Sample]:
    """Thumbnails of some pages of a story."""
    record, pages = job
    found = []
    for page in sorted(pages):
        try:
            image = load_image(locate(folder, record.images[page]), record.images[page])
        except ValueError:
            continue
        rights = f"{credit_line(record.credit)} {record.license or ''}".strip()
        caption = record.captions[page]
        found.append(Sample(_data_url(image), caption, record.id, page, record.title or record.id, rights))
    return found


def credit_line(credit: dict[str, str] | str | None) -> str:
    """Who made a story, in one line."""
    if isinstance(credit, dict):
        credit = ", ".join(f"{role}: {name}" for role, name in credit.items() if name)
    return f"{credit.rstrip('.')}." if credit else ""


def _data_url(image: Image.Image) -> str:
    image.thumbnail((THUMB * 2, THUMB * 2), Image.Resampling.LANCZOS, reducing_gap=3.0)
    data = encode(image, "WEBP", quality=70, method=4)
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
