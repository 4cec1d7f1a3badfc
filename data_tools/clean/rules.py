"""The rules of a clean data set, and what they keep of a story, page by page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_tools.clean.duplicates import distances
from data_tools.clean.images import BITS, Box, fingerprint, inner_box, is_blank, is_text_card
from data_tools.drops import Drop
from data_tools.folder import locate, only_pages
from seedstory.image import load_image
from seedstory.storystream import StoryRecord
from seedstory.text import count_words, detect_language

_SURE = 0.8  # probability from which a language is believed
_ENOUGH = 40  # letters that it takes to detect a language


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What stays in a data set.

    Attributes:
        licenses: Allowed licenses, such as "CC-BY" (any version) or "CC-BY-4.0" (this one); empty allows all, and
            stories without a license too.
        languages: Allowed languages of the text, such as "en"; empty allows all.
        min_pages: A shorter story is dropped.
        min_words: A page with fewer words is dropped.
        max_words: A page with more words is dropped.
        min_side: Least width and height of a picture in px.
        max_aspect: The longer side of a picture, as a multiple of the shorter one, at most.
        letterbox: What to do with bars around a picture; pages whose boxes or masks are known are not cropped.
        text_cards: What to do with pictures that show nothing but text.
        distance: Pictures whose fingerprints differ in at most so many of 256 bits count as one; -1 looks for none.
        max_stories: A picture that more stories share is no page of theirs (a publisher's card) and is dropped.
        max_overlap: A story is dropped that shares more than this part of its pictures with one before it.
        group_by: Stories with the same value of one of these keys go to the same split, such as parts of one film.
        splits: Which part of the pages each split should have; empty keeps the splits of the source.
        seed: Another seed deals the stories out in another way.
    """

    licenses: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    min_pages: int = 1
    min_words: int = 0
    max_words: int = 1000
    min_side: int = 64
    max_aspect: float = 4.0
    letterbox: Literal["crop", "drop", "keep"] = "crop"
    text_cards: Literal["drop", "keep"] = "drop"
    distance: int = 24
    max_stories: int = 20
    max_overlap: float = 0.8
    group_by: tuple[str, ...] = ("film",)
    splits: dict[str, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("licenses", "languages", "group_by"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(entry, str) and entry for entry in value):
                raise ValueError(f"{name} must be a list of words, not {value!r}")
            object.__setattr__(self, name, tuple(value))
        for name in ("min_pages", "max_words", "min_side", "max_stories"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.min_words <= self.max_words:
            raise ValueError(f"min_words must be from 0 to max_words ({self.max_words}), not {self.min_words}")
        if not self.max_aspect >= 1:
            raise ValueError(f"max_aspect must be at least 1, not {self.max_aspect}")
        if self.letterbox not in ("crop", "drop", "keep"):
            raise ValueError(f"letterbox must be crop, drop or keep, not {self.letterbox!r}")
        if self.text_cards not in ("drop", "keep"):
            raise ValueError(f"text_cards must be drop or keep, not {self.text_cards!r}")
        if not -1 <= self.distance <= BITS // 4:
            raise ValueError(f"distance must be from -1 to {BITS // 4}, not {self.distance}")
        if not 0 < self.max_overlap <= 1:
            raise ValueError(f"max_overlap must be above 0 and at most 1, not {self.max_overlap}")
        for name, share in self.splits.items():
            if not re.fullmatch(r"[0-9A-Za-z_]+([.-][0-9A-Za-z_]+)*", name) or not 0 < share <= 1:
                raise ValueError(f"a split is a name and its share of the pages, as in train=0.9, not {name}={share}")
        if self.splits and abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"the shares of the splits must add up to 1, not {sum(self.splits.values()):g}")

    def allows_license(self, license: str | None) -> bool:
        """Whether stories of this license stay; a family without a version allows all its versions."""
        if not self.licenses:
            return True
        name = _normalized_license(license or "")
        family = re.sub(r"-\d+(\.\d+)*$", "", name)
        return any(_normalized_license(allowed) in (name, family) for allowed in self.licenses)


@dataclass(frozen=True)
class PageInspection:
    """What was seen of a page that stays: its fingerprint, and the box to cut out of it or None."""

    fingerprint: bytes
    crop: Box | None


@dataclass(frozen=True)
class Inspection:
    """A story after its first pass; the record is None where nothing of it stays."""

    record: StoryRecord | None
    inspections: list[PageInspection]
    drops: list[Drop]


def inspect(record: StoryRecord, folder: Path, rules: Rules) -> Inspection:
    """Judges a story by itself: license, language, then its pages one by one.

    A page whose picture is that of an earlier page is dropped. Where that is the page just before, it takes over the
    text, so that nothing of the story is lost.

    Args:
        record: The story.
        folder: Its data set folder.
        rules: The rules.

    Returns:
        The record with the pages that stay, a look at each of them, and what was dropped.
    """
    fault = _fault_of_story(record, rules)
    if fault:
        return Inspection(None, [], [Drop(record.id, None, *fault)])
    if record.language is None and (language := confident_language(record.captions)):
        record = replace(record, language=language)
    captions = list(record.captions)
    drops: list[Drop] = []
    kept: list[int] = []
    inspections: list[PageInspection] = []
    for page in range(len(record)):
        seen = _inspect_page(record, page, folder, rules)
        if isinstance(seen, PageInspection):
            duplicate = _duplicate_of(seen, inspections, rules.distance)
            if duplicate is None:
                kept.append(page)
                inspections.append(seen)
                continue
            drops.append(Drop(record.id, page, "near-duplicate", f"its picture is that of page {kept[duplicate]}"))
            joined = f"{captions[kept[duplicate]]} {captions[page]}".strip()
            if duplicate == len(inspections) - 1 and count_words(joined) <= rules.max_words:
                captions[kept[duplicate]] = joined
        else:
            drops.append(Drop(record.id, page, *seen))
    if len(kept) < rules.min_pages:
        return Inspection(None, [], [*drops, too_short(record.id, len(kept), rules)])
    return Inspection(only_pages(replace(record, captions=captions), kept), inspections, drops)


def too_short(story: str, pages: int, rules: Rules) -> Drop:
    """The drop of a story with too few pages."""
    return Drop(story, None, "too-few-pages", f"{pages} of at least {rules.min_pages} stay")


def confident_language(captions: list[str]) -> str | None:
    """The language of a text as an ISO 639-1 code; None where there is too little text to be sure."""
    text = " ".join(captions)[:4000]
    if sum(c.isalpha() for c in text) < _ENOUGH:
        return None
    language, probability = detect_language(text)
    return language if probability >= _SURE else None


def _fault_of_story(record: StoryRecord, rules: Rules) -> tuple[str, str] | None:
    if not rules.allows_license(record.license):
        return "license", f"{record.license or 'none'} is not among {', '.join(rules.licenses)}"
    if rules.languages:
        language = record.language or confident_language(record.captions)
        if language and re.split(r"[-_]", language)[0].lower() not in rules.languages:
            return "language", f"{language} is not among {', '.join(rules.languages)}"
    return None


def _inspect_page(record: StoryRecord, page: int, folder: Path, rules: Rules) -> PageInspection | tuple[str, str]:
    """Inspects a page: its findings, or the reason and detail of its drop."""
    words = count_words(record.captions[page])
    if words < rules.min_words:
        return "too-few-words", f"{words} of at least {rules.min_words}"
    if words > rules.max_words:
        return "too-many-words", f"{words} of at most {rules.max_words}"
    path = record.images[page]
    try:
        source = locate(folder, path)
    except ValueError as error:
        return "unsafe-path", str(error)
    try:
        image = load_image(source, path)
    except ValueError as error:
        return ("unreadable-picture" if source.exists() else "missing-picture"), str(error)
    # What is known in pixels of a page would no longer fit it.
    fixed = rules.letterbox == "crop" and _holds_places((record.pages or {page: None})[page])
    box = inner_box(image) if rules.letterbox != "keep" and not fixed else None
    if box and rules.letterbox == "drop":
        return "letterbox", f"{path} has bars around {box}"
    image = image.crop(box) if box else image
    width, height = image.size
    if min(image.size) < rules.min_side:
        return "too-small", f"{path} has {width} x {height} px{' within its bars' if box else ''}"
    if max(image.size) > rules.max_aspect * min(image.size):
        return "odd-shape", f"{path} has {width} x {height} px{' within its bars' if box else ''}"
    if is_blank(image):
        return "blank-picture", f"{path} is all of one color"
    if rules.text_cards == "drop" and is_text_card(image):
        return "text-card", f"{path} shows nothing but text"
    return PageInspection(fingerprint(image), box)


def _duplicate_of(inspection: PageInspection, inspections: list[PageInspection], distance: int) -> int | None:
    """The last of the pages before whose picture is the same."""
    if not inspections or distance < 0:
        return None
    before = np.frombuffer(b"".join(one.fingerprint for one in inspections), np.uint8).reshape(len(inspections), -1)
    same = np.flatnonzero(distances(before, np.frombuffer(inspection.fingerprint, np.uint8)) <= distance)
    return int(same[-1]) if len(same) else None


def _holds_places(truth: Any) -> bool:
    """Whether boxes or masks of what a page shows are known."""
    if isinstance(truth, dict):
        return "box" in truth or "mask" in truth or any(map(_holds_places, truth.values()))
    return isinstance(truth, list) and any(map(_holds_places, truth))


def _normalized_license(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", name.strip().casefold()).removesuffix("-international").removesuffix("-unported")
