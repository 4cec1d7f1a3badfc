"""Text as it is kept: on one line, with all that can be seen and all that shapes it, and nothing that hides.

Scripts and emoji need some characters that cannot be seen themselves: joiners (Persian, Hindi, families of emoji), tags
(flags of regions) and selectors of variants. Controls, overrides of direction and other invisible ones go, since they
can make a text look like another one.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

_JOINERS = "\u200c\u200d"
_SEEN_THOUGH_FORMAT = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{1,8}\U000e007f")
_EMOJI = re.compile("[\U0001f000-\U0001faff]")  # newer ones are unassigned to an older Python


def clean_text(text: str) -> str:
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


_SIGN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # Chinese and Japanese
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")  # Thai, Lao, Burmese, Khmer


def count_words(text: str) -> int:
    """Words of a text: what spaces part.

    Where none do, words are estimated: a sign of Chinese or Japanese counts as one, and so do five letters of Thai,
    Lao, Burmese or Khmer.
    """
    return sum(_estimated(word) if _SIGN.search(word) or _UNSPACED.search(word) else 1 for word in text.split())


def _estimated(run: str) -> int:
    """Words of a run without spaces, of which some sign needs none."""
    rest = _UNSPACED.sub(" ", _SIGN.sub(" ", run)).split()
    letters = sum(-(-len(part) // 5) for part in _UNSPACED.findall(run))
    return len(_SIGN.findall(run)) + letters + sum(any(char.isalnum() for char in part) for part in rest)


def _joins(text: str, place: int) -> bool:
    """Whether a joiner stands between two characters that it can join: letters, marks or symbols."""
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    return len(around) == 2 and all(unicodedata.category(char)[0] in "LMS" or _EMOJI.match(char) for char in around)


def detect_language(text: str) -> tuple[str, float]:
    """The language of a text as an ISO 639-1 code, and how probable that is."""
    return _identifier().classify(text)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
