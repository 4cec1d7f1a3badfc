"""Which pages' words are worth keeping when a long story leaves the cache: those that introduce somebody.

A *salience* is a function from a caption to its `Mentions`. `CachePolicy` says how many such pages stay, the salience
says which ones they are. `by_capitals` is the default; `by_cast` knows the names; `no_salience` keeps the first page
alone; any other function will do.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mentions:
    """Names on a page.

    Attributes:
        names: Words that are names for certain: where one first occurs, its page introduces it.
        candidates: Words that may be names, those in `names` among them: where one of them turns out to be a name on a
            later page, an earlier page that is still held counts as its introduction.
    """

    names: frozenset[str] = frozenset()
    candidates: frozenset[str] = frozenset()


Salience = Callable[[str], Mentions]
NOBODY = Mentions()


def by_capitals(caption: str) -> Mentions:
    """Names as far as capital letters show them, see `find_names`."""
    return Mentions(find_names(caption), find_capitals(caption))


def by_cast(names: Iterable[str]) -> Salience:
    """The names of a known cast, wherever they stand as whole words.

    Args:
        names: The characters' names.
    """
    cast = frozenset(names)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in sorted(cast, key=len, reverse=True)))

    def mentions(caption: str) -> Mentions:
        found = frozenset(pattern.findall(caption)) if cast else frozenset()
        return Mentions(found, found)

    return mentions


def no_salience(caption: str) -> Mentions:
    """No page but the first is worth more than another one."""
    return NOBODY


_WORD = re.compile(r"[^\W\d_]\w+")
_INSIDE_A_SENTENCE = re.compile(r"(?<=[\w,;] )[^\W\d_]\w+")


def find_names(text: str) -> frozenset[str]:
    """Words that are capital inside a sentence, such as names.

    At a sentence's start every word is capital, so a name is found where it stands elsewhere. In German all nouns are
    found. Where a script has no capitals, or they are not used, the whole text stands for a name of its own.

    Examples:
        >>> sorted(find_names("Who was there? It was Georg, and behind him Mia's dog."))
        ['Georg', 'Mia']
    """
    if not _has_case(text):
        return frozenset({text} if text else ())
    return frozenset(word for word in _INSIDE_A_SENTENCE.findall(text) if word[0].isupper())


def find_capitals(text: str) -> frozenset[str]:
    """All capital words: names wherever they stand, and words at a sentence's start that may be names."""
    return find_names(text) | {word for word in _WORD.findall(text) if word[0].isupper()}


def _has_case(text: str) -> bool:
    """Whether large and small letters are both there, and most letters are either."""
    letters = [letter for letter in text if letter.isalpha()]
    cased = sum(letter.lower() != letter.upper() for letter in letters)
    return any(map(str.islower, letters)) and any(map(str.isupper, letters)) and 2 * cased > len(letters)
