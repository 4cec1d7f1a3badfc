"""What a training sample shows of a story's state: its cast and plan, before which page, and what of it is learned.

A record says both in its keys `cast` ({name: look}) and `plan` (a line for each page); `unsaid` lists the names whose
look the words themselves do not say in full. Of records without them, samples show no state.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seedstory.errors import DataError, RequestError
from seedstory.layout import countdown
from seedstory.story_state import StoryState
from seedstory.storystream import StoryRecord

# What a user's own plan may leave out: where something happens.
_WHERE = re.compile(r" (?:at|by|from|in|into|near|on|to|under|up) (?:the |an? )?[\w']+$")


@dataclass(kw_only=True)
class StateSettings:
    """How samples show states.

    Attributes:
        state_share: share of samples with a state.
        state_in_opening: share of these whose state stands in the first page, so that its image shows the cast, too.
        later_state: share of these whose state is written anew before a later page, as after an edit.
        cast_only: share of these without a plan.
        plan_only: share of these without a cast.
        short_plan: share of these whose plan is shortened as a user's own might be; it is then read and not learned.
        drop_newcomers: where no cast is shown: share of the pages on which somebody comes in whose words are dropped,
            so that their image alone says who it is.
    """

    state_share: float = 0.7
    state_in_opening: float = 0.6
    later_state: float = 0.1
    cast_only: float = 0.1
    plan_only: float = 0.1
    short_plan: float = 0.15
    drop_newcomers: float = 0.15

    def __post_init__(self) -> None:
        for name in StateSettings.__dataclass_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share: from 0 to 1, not {getattr(self, name)}")


@dataclass
class SampleStates:
    """States of one sample.

    Attributes:
        states: state and label, by the place of the page before which it stands, from 1.
        learned: places of states whose words are learned; the others are read alone.
        in_opening: whether the state of place 1 stands in the first page, before its image.
    """

    states: dict[int, tuple[StoryState, int]] = field(default_factory=dict)
    learned: set[int] = field(default_factory=set)
    in_opening: bool = False

    @property
    def cast_shown_from(self) -> int | None:
        """Place of the first page whose image follows a cast; None if none does."""
        places = [place for place, (state, _) in self.states.items() if state.cast]
        if not places:
            return None
        return 0 if self.in_opening and min(places) == 1 else min(places)


def draw_states(
    record: StoryRecord, pages: Sequence[int], first_caption: bool, settings: StateSettings, choice: random.Random
) -> SampleStates:
    """Choose the states of a sample.

    Args:
        record: the story.
        pages: numbers of the pages that the sample shows, in order.
        first_caption: whether the first page's caption is shown.
        settings: shares.
        choice: random numbers.
    """
    cast, plan = story_parts(record)
    if not (cast or plan) or len(pages) < 2 or choice.random() >= settings.state_share:
        return SampleStates()
    kind = choice.random()
    if kind < settings.cast_only and cast:
        plan = ()
    elif kind < settings.cast_only + settings.plan_only and plan:
        cast = ()
    short = bool(plan) and choice.random() < settings.short_plan
    early = first_caption and pages[:2] == [0, 1] and choice.random() < settings.state_in_opening
    later = not early and choice.random() < settings.later_state
    found = SampleStates(in_opening=early)
    for place, start in _places(record, pages, later, choice):
        label = countdown(len(record.captions))[start]
        lines = plan[start : start + label]
        if short:
            lines = tuple(shortened(line) for line in lines)
        found.states[place] = (StoryState(cast, lines), label)
        due = pages[place] == start and pages[place - 1] == start - 1
        if due and not short:
            found.learned.add(place)
    return found


def story_parts(record: StoryRecord) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Cast and plan of a record, empty where it has none.

    Raises:
        DataError: one of them is of another form.
    """
    cast, plan = record.extra.get("cast") or {}, record.extra.get("plan") or []
    try:
        if not isinstance(cast, Mapping) or not isinstance(plan, Sequence) or isinstance(plan, str):
            raise RequestError("`cast` is {name: look}, `plan` a list of lines")
        state = StoryState(tuple(cast.items()), tuple(plan))
    except RequestError as error:
        raise DataError(f"story {record.id}: {error}") from None
    if plan and len(plan) != len(record):
        raise DataError(
            f"story {record.id} has {len(record)} pages, and a plan of {len(plan)} lines: one for each page"
        )
    return state.cast, state.plan


def _places(record: StoryRecord, pages: Sequence[int], later: bool, choice: random.Random) -> list[tuple[int, int]]:
    """Places of states, and the number of the page with which the plan of each begins.

    The pages in a row at a sample's end are those that generation would still hold whole. Of each of their chapters the
    state stands before the first of them: where the chapter begins, or, if that has gone, where the cache moves it. The
    plan of the first chapter begins with its second page.
    """
    row = len(pages) - 1
    while row > 0 and pages[row - 1] == pages[row] - 1:
        row -= 1
    labels = countdown(len(record.captions))
    found: list[tuple[int, int]] = []
    for place in range(max(row, 1), len(pages)):
        begin = pages[place]
        while begin > 1 and labels[begin - 1] == labels[begin] + 1:
            begin -= 1
        if not found or found[-1][1] != begin:
            found.append((place, begin))
    if later and found[0][1] == 1 and len(pages) - found[0][0] > 4:
        place = found[0][0] + choice.randint(1, 3)
        if labels[pages[place]] < labels[1]:
            found[0] = place, pages[place]
    return found


def shortened(line: str) -> str:
    """A line of a plan without the words at its end that say where; as it is if little would be left."""
    short = _WHERE.sub("", line)
    return short if len(short.split()) >= 3 else line


def unsaid_newcomers(record: StoryRecord, names: Sequence[set[str]]) -> dict[int, set[str]]:
    """Who comes in on which page with a look that the words do not say in full, by the page's number.

    Args:
        record: the story; its key `unsaid` lists them.
        names: who is on each page.
    """
    unsaid: Any = record.extra.get("unsaid") or ()
    if not isinstance(unsaid, Sequence) or isinstance(unsaid, str):
        raise DataError(f"story {record.id}: `unsaid` is a list of names")
    found: dict[int, set[str]] = {}
    waiting = set(unsaid)
    for number, some in enumerate(names):
        if new := some & waiting:
            found[number] = new
            waiting -= new
    return found
