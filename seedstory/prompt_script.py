"""Prompts with characters in brackets, as StoryDiffusion's users write them: `[Mia] finds a key # Look, a key!`.

A cast has a line for each character, `[Mia] a fox in a red coat`, and a script a line for each page:

- `[Mia]` stands for her description; several characters may be in a line.
- What comes after the last `#` is the page's caption; without it, the line itself is.
- `[NC]` says that no character is on the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from seedstory.errors import RequestError
from seedstory.settings import MAX_PAGES, check_text

NOBODY = "NC"
_NAME = re.compile(r"\[([^\[\]\n]{1,80})\]")


@dataclass(frozen=True)
class PagePrompt:
    """What an illustrator reads for a page.

    Attributes:
        prompt: What the image shows, descriptions of characters put in.
        caption: What readers read.
        characters: Who is on the page, in the order of the line; nobody with `[NC]`.
    """

    prompt: str
    caption: str
    characters: tuple[str, ...] = ()


def read_characters(text: str) -> dict[str, str]:
    """Characters and their descriptions, from lines such as `[Mia] a fox in a red coat`.

    Raises:
        RequestError: A line names nobody, or somebody whom an earlier line has named, or says nothing of the character.
    """
    cast: dict[str, str] = {}
    for number, line in _lines(text):
        found = _NAME.match(line)
        if found is None:
            raise RequestError(f"line {number} of the cast names nobody: begin it with [Name]")
        name, description = found[1].strip(), line[found.end() :].rsplit("#", 1)[0].strip()
        if name == NOBODY or not name:
            raise RequestError(f"line {number} of the cast: [{found[1]}] cannot be a character's name")
        if name in cast:
            raise RequestError(f"line {number} of the cast: [{name}] has a description already")
        if not description:
            raise RequestError(f"line {number} of the cast: say what [{name}] looks like")
        cast[name] = check_text(description, f"the description of {name}")
    if not cast:
        raise RequestError("the cast is empty: write a line [Name] description for each character")
    return cast


def read_prompts(text: str, cast: Mapping[str, str]) -> list[PagePrompt]:
    """The pages of a script, a line each.

    Args:
        text: The script.
        cast: Characters and their descriptions.

    Raises:
        RequestError: A line names somebody who is not in the cast, or says nothing; or there are no lines or too many.
    """
    pages: list[PagePrompt] = []
    for number, line in _lines(text):
        prompt, mark, caption = line.rpartition("#")
        prompt, caption = (prompt, caption) if mark else (line, _NAME.sub(r"\1", line.replace(f"[{NOBODY}]", "")))
        names = [name.strip() for name in _NAME.findall(prompt)]
        for name in names:
            if name not in cast and name != NOBODY:
                known = ", ".join(f"[{one}]" for one in cast)
                raise RequestError(
                    f"line {number} of the script: the cast has no [{name}], only {known}, and [{NOBODY}]"
                )
        shown = _NAME.sub(lambda found: cast.get(found[1].strip(), "") + " ", prompt)
        shown, caption = (re.sub(r"\s+([,.!?;:])", r"\1", " ".join(part.split())) for part in (shown, caption))
        if not shown:
            raise RequestError(f"line {number} of the script says nothing of what the page shows")
        characters = () if NOBODY in names else tuple(dict.fromkeys(names))
        check_text(caption or shown, f"page {len(pages) + 1} of the script")
        pages.append(PagePrompt(check_text(shown, f"the prompt of page {len(pages) + 1}"), caption, characters))
    if not 1 <= len(pages) <= MAX_PAGES:
        raise RequestError(f"a script has 1 to {MAX_PAGES:,} lines, a page each, not {len(pages):,}")
    return pages


def _lines(text: str) -> list[tuple[int, str]]:
    """Lines that say something, with their numbers from 1."""
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
