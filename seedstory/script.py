"""A user's own script: the words of each page, from plain text, Markdown or JSON lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from seedstory.errors import RequestError
from seedstory.io import parse_json, read_regular
from seedstory.page_facts import check_facts
from seedstory.settings import MAX_PAGES, MAX_TEXT, check_text

MAX_SCRIPT = 64 * 2**20  # bytes
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")
_RULE = re.compile(r" {0,3}(?:\* *\* *\*[* ]*|- *- *-[- ]*|_ *_ *_[_ ]*)")
# No part looks past the next mark of its kind: a line takes no longer for having many.
_EMPHASIS = re.compile(
    r"(?<!\\)(?:\*\*(?=\S)((?:[^*]|\*(?!\*))+?)(?<=[^\s\\])\*\*(?!\w)"
    r"|__(?=\S)((?:[^_]|_(?!_))+?)(?<=[^\s\\])__(?!\w)"
    r"|\*(?=\S)([^*]+?)(?<=[^\s\\])\*(?!\w)"
    r"|(?<!\w)_(?=\S)((?:[^_]|(?<=\w)_(?=\w))+?)(?<=[^\s\\])_(?!\w))"
)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^)\s\[]*(?:[ \t]{1,20}\"[^\"\[]*\")?\)")
_MAX_PARAGRAPH = 4 * MAX_TEXT  # characters with marks and addresses


@dataclass(frozen=True)
class Script:
    """The words of a story.

    Attributes:
        captions: Of each page.
        title: The first heading, or empty.
        facts: Notes of each page, empty ones too; none at all where no page has any.
    """

    captions: tuple[str, ...]
    title: str = ""
    facts: tuple[dict[str, str], ...] = ()


def read_text(path: Path) -> str:
    """A text file of a user.

    Raises:
        DataError: It cannot be read.
        RequestError: It is not UTF-8.
    """
    try:
        return read_regular(path, limit=MAX_SCRIPT).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not a UTF-8 text file: save it as plain text") from None


def read_script(path: str | Path) -> Script:
    """Reads a script file: `.jsonl` with an object a page (`caption` or `text`, and `facts`), `.md`, or plain text.

    A paragraph is a page. A text without empty lines between its lines has a page a line. In Markdown the first heading
    is the title, later ones and rules only part paragraphs; marks of emphasis and links go, their words stay.

    Raises:
        DataError: The file cannot be read.
        RequestError: It holds no words, or too many pages.
    """
    path = Path(path)
    ending, text = path.suffix.lower(), read_text(path)
    title = ""
    facts: list[dict[str, str]] = []
    if ending in (".jsonl", ".ndjson"):
        captions, facts = _from_json_lines(text, path)
    elif ending in (".md", ".markdown"):
        title, captions = _from_markdown(text, path)
    else:
        captions = _paragraphs(text.splitlines())
    if not captions:
        raise RequestError(f"{path} has no words: write a paragraph for each page")
    _check_count(captions, path)
    words = tuple(check_text(words, f"page {i} of {path}") for i, words in enumerate(captions, 1))
    return Script(words, title, tuple(facts) if any(facts) else ())


def _check_count(captions: list[str], path: Path) -> None:
    if len(captions) > MAX_PAGES:
        raise RequestError(f"{path} has more than {MAX_PAGES:,} pages: a story has at most {MAX_PAGES:,}")


def _from_json_lines(text: str, path: Path) -> tuple[list[str], list[dict[str, str]]]:
    captions, facts = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        page = parse_json(line, f"line {number} of {path}")
        words = page.get("caption", page.get("text")) if isinstance(page, dict) else page
        if not isinstance(words, str):
            raise RequestError(f'line {number} of {path} has no words: write {{"caption": "..."}}')
        captions.append(words)
        _check_count(captions, path)
        try:
            facts.append(check_facts(page.get("facts", {}) if isinstance(page, dict) else {}))
        except RequestError as error:
            raise RequestError(f"line {number} of {path}: {error}") from None
    return captions, facts


def _from_markdown(text: str, path: Path) -> tuple[str, list[str]]:
    title, lines = "", []
    for line in text.splitlines():
        is_mark = line.lstrip(" ")[:1] in ("#", "*", "-", "_")
        heading = _HEADING.fullmatch(line) if is_mark else None
        if heading or (is_mark and _RULE.fullmatch(line)):
            title = title or (heading[2].strip() if heading else "")
            lines.append("")
        else:
            lines.append(line)
    paragraphs = _paragraphs(lines, by_line=False)
    _check_count(paragraphs, path)
    for number, words in enumerate([title, *paragraphs]):
        if len(words) > _MAX_PARAGRAPH:
            what = f"page {number}" if number else "the title"
            raise RequestError(f"{what} of {path} has {len(words):,} characters: at most {MAX_TEXT:,} fit")
    plain = [_plain(paragraph) for paragraph in paragraphs]
    return _plain(title), [words for words in plain if words]


def _plain(text: str) -> str:
    """Markdown's words without its marks."""
    text = re.sub(r"^(?: {0,3}>[ \t]?| {0,3}(?:[-*+]|\d{1,9}[.)])[ \t]+)", "", text)
    for _ in range(2):  # an image in a link, emphasis within emphasis
        text = _EMPHASIS.sub(lambda found: found[found.lastindex or 0], _LINK.sub(r"\1", text))
    return re.sub(r"\\([\\`*_{}\[\]()#+\-.!>~|])", r"\1", text).strip()


def _paragraphs(lines: list[str], *, by_line: bool = True) -> list[str]:
    """Paragraphs in one line each; with `by_line`, every line is one if no empty line parts two of them."""
    filled = [line.strip() for line in lines]
    first = next((i for i, line in enumerate(filled) if line), len(filled))
    while filled and not filled[-1]:
        filled.pop()
    filled = filled[first:]
    if by_line and "" not in filled:
        return filled
    groups: list[list[str]] = [[]]
    for line in filled:
        if line:
            groups[-1].append(line)
        elif groups[-1]:
            groups.append([])
    return [" ".join(group) for group in groups if group]
