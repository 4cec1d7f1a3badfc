"""What a plot is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from math import prod


@dataclass(frozen=True)
class Beat:
    """One page: parts that follow each other, each with alternatives in the slot language of `script`.

    Attributes:
        parts: The parts.
        optional: Whether a story of 8 to 12 pages may leave it out.
        core: Whether a story of 4 to 6 pages has it, too.
        plan: What happens on the page, in a few words with names and values only; empty where the plot has no plan.
    """

    parts: tuple[tuple[str, ...], ...]
    optional: bool = False
    core: bool = False
    plan: str = ""

    @property
    def phrasings(self) -> int:
        """How many different texts the alternatives give, without counting `[synonyms]` and slots."""
        return prod(len(part) for part in self.parts)


@dataclass(frozen=True)
class Plot:
    """A story line, as one YAML file says it (docs/plots.md).

    Attributes:
        name: Short name.
        titles: Titles, in the slot language (names and values only).
        cast: One letter per character.
        beats: The pages in order.
        values: Words that stay the same in one story; each name in capitals, with its choices.
        held_out: Whether no training story may use it.
        number: Place among the plots of its folder; those without one come last, by file name.
    """

    name: str
    titles: tuple[str, ...]
    cast: str
    beats: tuple[Beat, ...]
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    held_out: bool = False
    number: int | None = None


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a plot.

    Attributes:
        file: The plot's file, as it was given.
        place: Where in it, such as "beat 3, part 2, phrasing 1"; empty where the file itself is meant.
        message: What is wrong, and what to do.
    """

    file: str
    place: str
    message: str

    def __str__(self) -> str:
        said = ": ".join(part for part in (self.file, self.place, self.message) if part)
        return " ".join(said.split("\n"))


def opening(time: str, place: str) -> tuple[str, ...]:
    """Ways to bring on character a at a time (a key of `TIMES_SAID`) and a place: the first part of a first page."""
    when, where = f"{{t:{time}}}", f"{{at:{place}}}"
    return (
        f"{when} {where}, {{a.there}}.",
        f"{{a.is}}. {when} {{a.he}} was {where}.",
        f"once upon a time {{a.there}}. {when} {{a.he}} was {where}.",
        f"this is the story of {{a.new}}. {when} {{a.he}} was {where}.",
        f"let me tell you about {{a.new}}. {when} {{a.he}} was {where}.",
        f"do you know {{a.new}}? {when} {{a.he}} was {where}.",
    )


def after_opening(beat: Beat) -> Beat:
    """The first beat of a plot as the second page of a story whose first page, an open beginning, has the heroes."""
    parts = []
    for part in beat.parts:
        found = re.match(r"\{t:(\w+)\} \{at:(\w+)\}, ", part[0])
        parts.append(_bridge(*found.groups()) if found and part == opening(*found.groups()) else part)
    return replace(beat, parts=tuple(parts))


def _bridge(time: str, place: str) -> tuple[str, ...]:
    """Ways to lead character a from an open beginning to where the plot begins."""
    when, where = f"{{t:{time}}}", f"{{at:{place}}}"
    return (
        f"{when} {{a.new}} was {where}.",
        f"{when} {{a.new}} came {{to:{place}}}.",
        f"{when} {where}, {{a.there}}.",
        f"soon after, {when}, {{a.new}} came {{to:{place}}}.",
        f"so it happened that {when} {{a.new}} was {where}.",
        f"this is how it went on: {when} {{a.new}} was {where}.",
        f"and then, {when}, {{a.new}} came {{to:{place}}}.",
        f"now listen to what {{a.new}} did next. {when} {{a.he}} was {where}.",
        f"the story of {{a.new}} begins {where}, {when}.",
        f"{{a.is}}. {when} {{a.he}} was {where}.",
    )
