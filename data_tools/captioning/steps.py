"""The two steps over one story: describe its pictures, narrate its pages.

A page without a usable answer is dropped, and the story goes on without it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from data_tools.captioning.answers import Answers, Usage
from data_tools.captioning.backend_settings import Backend
from data_tools.captioning.backends import load
from data_tools.captioning.chat import AnswerError, Describer, Narrator, PromptImage
from data_tools.captioning.describing import ChatDescriber, DescribingStyle, SourceDescriber
from data_tools.captioning.narration import ChatNarrator, NarrationStyle, PlainNarrator
from data_tools.drops import Drop
from data_tools.folder import image_path, locate, only_pages
from seedstory.io import atomic_path
from seedstory.storystream import StoryRecord

WordSource = Literal["description", "alt", "caption"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker needs besides the story.

    Attributes:
        data: Folder of the data set that is read.
        out: Folder of the data set that is written.
        answers: Folder of the answers on disk.
        backend: Who is asked; None is nobody.
        repairs: How often an unusable reply is sent back.
    """

    data: Path
    out: Path
    answers: Path
    backend: Backend | None = None
    repairs: int = 2

    def open(self) -> Answers | None:
        """The model behind its answers on disk; None where nobody is asked."""
        return Answers(load(self.backend, self.answers), self.answers, self.repairs) if self.backend else None


@dataclass(frozen=True)
class Done:
    """A story after its step; the record is None where no page is left."""

    record: StoryRecord | None
    drops: list[Drop] = field(default_factory=list)
    usage: Usage = Usage()


def describe_story(
    record: StoryRecord, job: Job, style: DescribingStyle, source: WordSource = "alt", again: bool = False
) -> Done:
    """Describes the pictures of a story.

    Args:
        record: The story.
        job: Folders and back end.
        style: How to describe.
        source: Without a back end: which words of the source become the description.
        again: Also describe pages that have a description.
    """
    answers = job.open()
    describer: Describer = ChatDescriber(answers, style) if answers else SourceDescriber()
    kept: dict[int, dict[str, Any]] = {}
    drops = []
    for page, path in enumerate(record.images):
        truth = _truth(record, page)
        try:
            if again or not _words(record, page, "description"):
                image = PromptImage.read(_locate(job.data, path))
                context = _context(record, page) if answers else _words(record, page, source)
                truth["description"] = describer.describe(image, context)
            _copy_files(job, path, truth)
        except AnswerError as fault:
            drops.append(Drop(record.id, page, fault.reason, str(fault)))
            continue
        kept[page] = truth
    return _done(record, _keep(record, kept), "description", answers, drops)


def narrate_story(record: StoryRecord, job: Job, style: NarrationStyle, source: WordSource = "description") -> Done:
    """Narrates a story anew over the descriptions of its pictures; its captions are replaced.

    Args:
        record: The story.
        job: Folders and back end.
        style: How to narrate.
        source: Which words of the record say what a picture shows; kept as the pages' description.
    """
    answers = job.open()
    narrator: Narrator = ChatNarrator(answers, style) if answers else PlainNarrator()
    shown = {page: words for page in range(len(record)) if (words := _words(record, page, source))}
    lacking = f"no {source} says what the picture shows"
    drops = [Drop(record.id, page, "no-description", lacking) for page in range(len(record)) if page not in shown]
    history: dict[int, str] = {}
    kept: dict[int, dict[str, Any]] = {}
    for page, words in list(shown.items()):
        # Words about the old caption say nothing of the new one.
        truth = {key: value for key, value in _truth(record, page).items() if key != "coreference"}
        truth["description"] = words
        try:
            text = narrator.narrate(record.title or "", list(history.values()), list(shown.values()))
            _copy_files(job, record.images[page], truth)
        except AnswerError as fault:
            drops.append(Drop(record.id, page, fault.reason, str(fault)))
            del shown[page]
            continue
        history[page], kept[page] = text, truth
    story = _keep(record, kept)
    if story is not None:
        language = style.language if answers else record.language if source == "caption" else None
        story = replace(story, captions=list(history.values()), language=language)
    return _done(record, story, "caption", answers, drops)


def _done(
    record: StoryRecord, story: StoryRecord | None, made: str, answers: Answers | None, drops: list[Drop]
) -> Done:
    if story is None:
        drops = [*drops, Drop(record.id, None, "no-pages", f"no page of it got a {made}")]
    if answers is None:
        return Done(story, drops)
    if story is not None:
        said = story.extra.get("models")
        models = (said if isinstance(said, dict) else {}) | {made: answers.model.name}
        story = replace(story, extra=story.extra | {"models": models})
    return Done(story, drops, answers.usage)


def _truth(record: StoryRecord, page: int) -> dict[str, Any]:
    return dict((record.pages[page] if record.pages else None) or {})


def _words(record: StoryRecord, page: int, source: WordSource) -> str:
    if source == "caption":
        return record.captions[page].strip()
    if source == "alt":
        return record.alts[page].strip() if record.alts else ""
    words = _truth(record, page).get("description")
    return words.strip() if isinstance(words, str) else ""


def _context(record: StoryRecord, page: int) -> str:
    """What a describer may know beside the picture."""
    parts = [
        f"The story is called “{record.title}”." if record.title else "",
        f"The page says: “{record.captions[page].strip()}”" if record.captions[page].strip() else "",
        f"A note on the picture: {_words(record, page, 'alt')}" if _words(record, page, "alt") else "",
    ]
    return "\n".join(part for part in parts if part)


def _keep(record: StoryRecord, kept: dict[int, dict[str, Any]]) -> StoryRecord | None:
    """The record with these pages only, and what is known of them now."""
    if not kept:
        return None
    pages = [truth or None for truth in kept.values()]
    return replace(only_pages(record, kept), pages=pages if any(pages) else None)


def _locate(folder: Path, path: str) -> Path:
    """A file of the data set folder; nothing outside it, through links neither."""
    try:
        found = locate(folder, path)
    except ValueError as error:
        raise AnswerError("unsafe-path", str(error)) from None
    if not found.is_file():
        raise AnswerError("missing-picture", f"there is no file {path!r}")
    return found


def _copy_files(job: Job, image: str, truth: dict[str, Any]) -> None:
    """Copies the picture of a page and its masks, unless a run before this one has done so."""
    characters = truth.get("characters")
    holders = [truth, *(characters if isinstance(characters, list) else [])]
    masks = [holder.get("mask") for holder in holders if isinstance(holder, dict)]
    for path in [image, *(mask for mask in masks if isinstance(mask, str))]:
        source, target = _locate(job.data, path), job.out / image_path(path)
        if target.is_file() and _stamp(target) == _stamp(source):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target, durable=False) as temporary:
            shutil.copyfile(source, temporary)
            os.utime(temporary, ns=(_stamp(source)[1],) * 2)


def _stamp(path: Path) -> tuple[int, int]:
    known = path.stat()
    return known.st_size, known.st_mtime_ns
