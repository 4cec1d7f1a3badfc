"""The story state: who is in a story and what they look like, and what shall happen on which page.

It stands in the language model's context, before the page with which it begins, and every cache policy keeps it:

    cast
    Mia: fox, red coat, straw hat
    Tom: frog, green vest
    plan
    3. Mia and Tom look for the key
    2. Tom finds it in the pond
    1. Mia and Tom open the gate

A line of the plan has the number of its page's label, which counts down the pages that are left in the chapter. The
model writes the state after the opening and anew for each chapter; any part of it can be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedstory.errors import RequestError
from seedstory.text import clean_text

MAX_CAST = 12
MAX_NAME = 40  # characters
MAX_LINE = 200  # characters of a look or of a line of the plan
CAST, PLAN = "cast", "plan"


@dataclass(frozen=True)
class StoryState:
    """Cast and plan of a story, or of one of its chapters.

    Attributes:
        cast: Name and look of each character, in order.
        plan: What happens on each page from the one on with which the state begins; an empty line says nothing of its
            page. No lines at all: there is no plan.

    Raises:
        RequestError: A part is empty, too long or not text, or a name comes twice.
    """

    cast: tuple[tuple[str, str], ...] = ()
    plan: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        cast = tuple(
            (check_line(name, "a name", MAX_NAME), check_line(look, "a look", MAX_LINE)) for name, look in self.cast
        )
        for name, look in cast:
            if not name or not look or ":" in name or name.lower() in (CAST, PLAN):
                raise RequestError(f"{name!r} with the look {look!r} is no character: write NAME: LOOK")
        names = [name for name, _ in cast]
        if len(set(names)) < len(names):
            raise RequestError(f"the cast {', '.join(names)} has a name twice: give each character one line")
        if len(cast) > MAX_CAST:
            raise RequestError(f"the cast has {len(cast)} characters: at most {MAX_CAST}")
        object.__setattr__(self, "cast", cast)
        object.__setattr__(self, "plan", tuple(check_line(line, "a line of the plan", MAX_LINE) for line in self.plan))

    def __bool__(self) -> bool:
        return bool(self.cast or self.plan)

    @property
    def names(self) -> tuple[str, ...]:
        """The characters' names, in order."""
        return tuple(name for name, _ in self.cast)

    def lines(self, label: int) -> list[str]:
        """The state as it stands in the context, line by line.

        Args:
            label: Number in the label of the page with which it begins.
        """
        lines = [CAST, *(f"{name}: {look}" for name, look in self.cast)] if self.cast else []
        if self.plan:
            lines += [PLAN, *(f"{label - at}. {line}".rstrip() for at, line in enumerate(self.plan))]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """As `story.json` holds it."""
        return {"cast": dict(self.cast), "plan": list(self.plan)}

    @classmethod
    def from_dict(cls, value: Any) -> StoryState:
        """From what `to_dict` gave.

        Raises:
            RequestError: It is something else.
        """
        if not isinstance(value, Mapping) or not isinstance(value.get("cast"), Mapping):
            raise RequestError("a story state must have a cast and a plan")
        plan = value.get("plan")
        if not isinstance(plan, Sequence) or isinstance(plan, str):
            raise RequestError("the plan of a story state must be a list of lines")
        return cls(tuple(value["cast"].items()), tuple(plan))


def parse_character(text: str) -> tuple[str, str]:
    """Name and look from "NAME: LOOK".

    Raises:
        RequestError: It has no colon, or nothing on one of its sides.
    """
    name, colon, look = text.partition(":")
    if not colon or not name.strip() or not look.strip():
        raise RequestError(f"{text!r:.60} is no character: write NAME: LOOK, such as 'Mia: fox, red coat'")
    return name.strip(), look.strip()


def check_line(text: Any, what: str, longest: int) -> str:
    """A text in one clean line, which may be empty.

    Raises:
        RequestError: It is not text, or too long.
    """
    if not isinstance(text, str):
        raise RequestError(f"{what} must be text, not {type(text).__name__}")
    line = " ".join(clean_text(text).split())
    if len(line) > longest:
        raise RequestError(f"{what} has {len(line)} characters: at most {longest} ({line[:40]}...)")
    return line
