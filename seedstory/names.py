"""Names in a text, as far as capitals tell them."""

import re

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
