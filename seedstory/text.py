"""Text as it is kept: on one line, with all that can be seen and all that shapes it, and nothing that hides.

Scripts and emoji need some characters that cannot be seen themselves: joiners (Persian, Hindi, families of emoji), tags
(flags of regions) and selectors of variants. Controls, overrides of direction and other invisible ones go, since they
can make a text look like another one.
"""

from __future__ import annotations

import re
import unicodedata

_JOINERS = "\u200c\u200d"
_SEEN_THOUGH_FORMAT = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{1,8}\U000e007f")
_EMOJI = re.compile("[\U0001f000-\U0001faff]")  # newer ones are unassigned to an older Python


def plain_text(text: str) -> str:
    """Text in NFC with single spaces, without controls and without what is invisible and shapes nothing.

    A soft hyphen leaves no gap, a control or a line's end leaves a space.
    """
    text = unicodedata.normalize("NFC", text)
    flags = {place for found in _FLAG.finditer(text) for place in range(*found.span())}
    kept = []
    for place, char in enumerate(text):
        if char.isprintable() or place in flags or _SEEN_THOUGH_FORMAT.match(char) or _EMOJI.match(char):
            kept.append(char)
        elif char in _JOINERS:
            kept.append(char if _joins(text, place) else "")
        elif char.isspace() or unicodedata.category(char) == "Cc":
            kept.append(" ")
    return " ".join("".join(kept).split())


def _joins(text: str, place: int) -> bool:
    """Whether a joiner stands between two characters that it can join: letters, marks or symbols."""
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    return len(around) == 2 and all(unicodedata.category(char)[0] in "LMS" or _EMOJI.match(char) for char in around)
