"""The words of a story, with the story state where it is known, and true plots and beats where a data set has them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from seedstory.io import read_json
from seedstory.layout import chapters
from seedstory.salience import find_names
from seedstory.story_record import cast_and_plan, check_record
from seedstory.storystream import StoryRecord

Label = tuple[str, int]  # a plot, and the number of a beat in it, from 0
EVENING: Label = ("", -1)  # the last page of a chapter that has a page more than its plot, of no plot in particular
_ONE_PLOT = 12  # pages; stories of the theatre have no more in one plot, and only longer ones have chapters
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


@dataclass(frozen=True)
class StoryText:
    """The words of a story.

    Attributes:
        captions: The texts of its pages.
        lengths: Pages of each chapter that it has, or would have if it were finished.
        cast: Name and look of the characters, if they are known.
        plan: What should happen on each page; empty lines, or none at all, where that is not known.
        labels: The true plot and beat of each page; empty if they are not known.
    """

    captions: tuple[str, ...]
    lengths: tuple[int, ...]
    cast: dict[str, str] = field(default_factory=dict)
    plan: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First page of each chapter, and the page after its last; a story that is not finished reaches into one."""
        ends = list(accumulate(self.lengths))
        return [
            (end - length, end)
            for end, length in zip(ends, self.lengths, strict=True)
            if end - length < len(self.captions)
        ]

    @property
    def line_of_page(self) -> list[str]:
        """The line of the plan of each page; empty where there is none."""
        return [*self.plan, *[""] * len(self.captions)][: len(self.captions)]

    @property
    def cast_words(self) -> frozenset[str]:
        """The words of the names in the cast."""
        return frozenset(word for name in self.cast for word in words_of(name))

    @property
    def capital_inside(self) -> frozenset[str]:
        """Words of the captions that are capital inside a sentence."""
        return frozenset(word for caption in self.captions for name in find_names(caption) for word in words_of(name))


def words_of(text: str) -> list[str]:
    """The words of a text, as they are written; "Mia's" counts as "Mia"."""
    return [word.removesuffix("'s") for word in _WORD.findall(text.replace("’", "'"))]


def text_from_record(record: StoryRecord) -> StoryText:
    """A story of a data set.

    Raises:
        ValueError: What it says of plots, beats, cast or plan does not belong to its pages.
    """
    extra, count = record.extra, len(record)
    lengths = extra.get("chapters", [count])
    plots = extra.get("plots", [extra["plot"]] if "plot" in extra else [])
    labels: tuple[Label, ...] = ()
    try:
        if plots and extra.get("beats"):
            plot_of_page = [plot for plot, length in zip(plots, lengths, strict=True) for _ in range(length)]
            pairs = zip(plot_of_page, extra["beats"], strict=True)
            labels = tuple(EVENING if beat < 0 else (str(plot), int(beat)) for plot, beat in pairs)
        cast = {str(name): str(line) for name, line in dict(extra.get("cast", {})).items()}
        plan = tuple(map(str, extra.get("plan", ())))
    except (TypeError, ValueError):
        raise ValueError(f"story {record.id}: plots, beats, chapters, cast or plan are not well formed") from None
    if sum(lengths) != count or (labels and len(labels) != count) or (plan and len(plan) != count):
        raise ValueError(f"story {record.id} has {count} pages, but its beats, chapters or plan are of another number")
    return StoryText(tuple(record.captions), tuple(lengths), cast, plan, labels)


def text_from_folder(folder: Path, pages: int | None = None) -> StoryText:
    """A story folder; cast and plan are those of the story states that its pages hold, if they do.

    Args:
        folder: The folder.
        pages: At most so many pages; None for all.

    Raises:
        ValueError: The story is damaged.
    """
    file = folder / "story.json"
    try:
        record = check_record(read_json(file))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    captions = tuple(entry.caption for entry in record["entries"][:pages])
    cast, lines = cast_and_plan(record["entries"])
    plan = [""] * len(captions)
    for number, line in lines:
        if number <= len(plan):
            plan[number - 1] = line
    asked = record["settings"].pages
    lengths = (asked,) if asked <= _ONE_PLOT else tuple(chapters(asked))
    return StoryText(captions, lengths, cast, tuple(plan) if any(plan) else ())


def has_plots(record: StoryRecord) -> bool:
    """Whether a record says of which plot and beat its pages are."""
    extra: dict[str, Any] = record.extra
    return bool(extra.get("beats")) and ("plot" in extra or "plots" in extra)
