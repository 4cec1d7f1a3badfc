"""Facts of a page: the author's short notes, such as where it is and who is there.

They are for people: programs show them, and alternative texts of images say who and where. The model does not read
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seedstory.errors import RequestError
from seedstory.story_state import check_line

MAX_FACTS = 12
MAX_FACT_NAME = 24  # characters
MAX_FACT = 200  # characters of what a fact says
# Facts that alternative texts say, and with which word.
_SAID = {"who": "Who", "place": "Where", "time": "When"}


def check_facts(facts: Any) -> dict[str, str]:
    """Facts as they are stored: names in small letters, one clean line each.

    Raises:
        RequestError: A name or a text is empty, too long or not text, a name comes twice, or there are too many.
    """
    checked = _lines(facts)
    for name, text in checked.items():
        if not text:
            raise RequestError(f"the fact {name} says nothing: leave it out")
    return _bounded(checked)


def change_facts(facts: Mapping[str, str], changes: Any) -> dict[str, str]:
    """Facts with some of them set, and without those of which a change says nothing.

    Raises:
        RequestError: As `check_facts`.
    """
    return _bounded({name: text for name, text in (dict(facts) | _lines(changes)).items() if text})


def parse_fact(text: str) -> tuple[str, str]:
    """Name and text from "NAME=TEXT"; an empty text is for taking the fact away.

    Raises:
        RequestError: It has no equals sign.
    """
    name, equals, said = text.partition("=")
    if not equals:
        raise RequestError(f"{text!r:.60} is no fact: write NAME=TEXT, such as place='the meadow'")
    return name.strip(), said.strip()


def describe_facts(facts: Mapping[str, str]) -> str:
    """What facts say of an image: "Who: Mia, Tom. Where: the meadow. When: evening."."""
    said = [f"{word}: {facts[name].rstrip(' .')}." for name, word in _SAID.items() if name in facts]
    return " ".join(said)


def _lines(facts: Any) -> dict[str, str]:
    if not isinstance(facts, Mapping):
        raise RequestError("facts are {name: text, ...}, such as {'place': 'the meadow'}")
    lines: dict[str, str] = {}
    for name, text in facts.items():
        clean = check_line(name, "the name of a fact", MAX_FACT_NAME).lower()
        if not clean or any(sign in clean for sign in ":="):
            raise RequestError(f"{name!r:.40} cannot name a fact: write a word such as place, time or who")
        if clean in lines:
            raise RequestError(f"the fact {clean} is given twice")
        lines[clean] = check_line(text, f"the fact {clean}", MAX_FACT)
    return lines


def _bounded(facts: dict[str, str]) -> dict[str, str]:
    if len(facts) > MAX_FACTS:
        raise RequestError(f"a page has {len(facts)} facts: at most {MAX_FACTS}")
    return facts
