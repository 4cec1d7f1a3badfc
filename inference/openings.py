"""Openings as users write them, in a JSON Lines file of `id`, `text` and `heroes`, and a page that shows their stories.

`tests/data/openings.jsonl` has ten that are outside the plots of the paper theatre.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from inference.story_text import words_of
from seedstory.errors import DataError
from seedstory.io import parse_json, read_regular, write_atomic
from seedstory.settings import StorySettings
from seedstory.story import UNTITLED, Page, StoryFolder
from seedstory.storystream import StoryRecord

MAX_BYTES = 2**20  # of a file of openings
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_KEYS = {"id", "text", "heroes"}
_SIDE = 192  # px of a picture on the page
_STYLE = """
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1.1rem/1.5 Georgia, serif; }
section { margin-bottom: 4rem; }
figure { display: flex; gap: 1rem; align-items: center; margin: 0 0 1rem; }
img { flex: none; }
details { font-size: 0.9rem; color: #555; }
"""


@dataclass(frozen=True)
class Opening:
    """A first page in a user's words.

    Attributes:
        id: Its name, which a folder can have.
        text: The words.
        heroes: The names in it.
    """

    id: str
    text: str
    heroes: tuple[str, ...]

    def as_record(self) -> StoryRecord:
        """The opening as a story of one page without a picture."""
        return StoryRecord(id=self.id, images=[""], captions=[self.text], orders=[0])


def read_openings(path: Path) -> list[Opening]:
    """The openings of a JSON Lines file.

    Raises:
        DataError: It cannot be read, or a line is no opening.
    """
    openings: list[Opening] = []
    for number, line in enumerate(read_regular(path, limit=MAX_BYTES).splitlines(), 1):
        if line.strip():
            where = f"{path}, line {number}"
            openings.append(_opening(parse_json(line, where), where))
            if openings[-1].id in {opening.id for opening in openings[:-1]}:
                raise DataError(f"{where}: the id {openings[-1].id!r} comes twice: give each opening its own")
    if not openings:
        raise DataError(f'{path} holds no opening: write lines such as {{"id": "1", "text": "...", "heroes": ["Mia"]}}')
    return openings


def _opening(value: Any, where: str) -> Opening:
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise DataError(f"{where}: an opening is an object with {', '.join(sorted(_KEYS))}, and nothing else")
    name, text, heroes = value["id"], value["text"], value["heroes"]
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise DataError(f"{where}: the id names a folder: give at most 64 letters, digits and hyphens")
    if not isinstance(text, str) or not isinstance(heroes, list):
        raise DataError(f"{where}: text must be text, and heroes a list of names")
    try:
        StorySettings(text=text)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    for hero in heroes:
        if not isinstance(hero, str) or not words_of(hero) or hero not in text:
            raise DataError(f"{where}: {hero!r:.60} is no name in the text: give the heroes as it names them")
    return Opening(name, text, tuple(heroes))


def write_contact_page(folders: Sequence[Path], path: Path) -> None:
    """Writes one HTML page with the words and pictures of several stories, in order to read them aloud.

    Args:
        folders: Story folders, beside or below the page.
        path: The file.
    """
    sections = [_section(folder, path.parent) for folder in folders]
    head = f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{len(folders)} stories</title>\n'
    write_atomic(path, f"{head}<style>{_STYLE}</style>\n{''.join(sections)}</html>\n")


def _section(folder: Path, beside: Path) -> str:
    story = StoryFolder.open(folder)
    pages = list(story.pages)
    states = [line for page in pages for line in _state_lines(page)]
    state = f"<details><summary>cast and plan</summary>{'<br>'.join(states)}</details>\n" if states else ""
    place = quote(folder.relative_to(beside).as_posix())
    title = f'<h2><a href="{place}/index.html">{escape(folder.name)}</a>: {escape(story.title or UNTITLED)}</h2>\n'
    figures = [f"<figure>{_image(page)}<figcaption>{escape(page.caption)}</figcaption></figure>\n" for page in pages]
    return f"<section>\n{title}{''.join(figures)}{state}</section>\n"


def _image(page: Page) -> str:
    if page.image is None:
        return ""
    buffer = io.BytesIO()
    page.image.convert("RGB").resize((_SIDE, _SIDE)).save(buffer, "WEBP", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/webp;base64,{data}" alt="page {page.number}">'


def _state_lines(page: Page) -> list[str]:
    if page.next_state is None:
        return []
    return [escape(line) for line in page.next_state.lines(len(page.next_state.plan))]
