"""How large words can be in a box of a fixed layout, by the widths of their characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_SPARE = 1.06  # kerning, ligatures and the reader's own fonts may be a little wider
_EAST_ASIAN = "\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_EAST_ASIAN}]|[^\s{_EAST_ASIAN}]+")


def wrap(text: str, width: float, width_of: Callable[[str], float]) -> list[str]:
    """The lines of a text in a box of a width in em; words that are wider break anywhere."""
    lines, line, used = [], "", 0.0
    for token, space in _tokens(text):
        gap = width_of(" ") if space and line else 0.0
        size = width_of(token) * _SPARE
        if line and used + gap + size > width:
            lines.append(line)
            line, used, gap, space = "", 0.0, 0.0, False
        if size > width:
            for char in token:
                step = width_of(char) * _SPARE
                if line and used + step > width:
                    lines.append(line)
                    line, used = "", 0.0
                line, used = line + char, used + step
            continue
        line, used = line + (" " if space and line else "") + token, used + gap + size
    return [*lines, line] if line else lines


def fit(
    text: str, width: float, height: float, sizes: tuple[int, ...], width_of: Callable[[str], float], leading: float
) -> tuple[int, list[str]]:
    """The largest size at which a text fits into a box, and the text in as many parts as it needs at that size.

    Args:
        text: The words.
        width: Of the box in pixels.
        height: Of the box in pixels.
        sizes: Font sizes in pixels, largest first. At the last one, a longer text is parted.
        width_of: The width of a text in em.
        leading: Height of a line in em.
    """
    for size in sizes:
        lines = wrap(text, width / size, width_of)
        if len(lines) * leading * size <= height:
            return size, [text]
    per_part = max(1, int(height / (leading * sizes[-1])))
    return sizes[-1], [_joined(lines[start : start + per_part]) for start in range(0, len(lines), per_part)]


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Words, or single signs of scripts without spaces, and whether a space stands before each."""
    end = 0
    for match in _TOKEN.finditer(text):
        yield match[0], match.start() > end
        end = match.end()


def _joined(lines: list[str]) -> str:
    return " ".join(lines)
