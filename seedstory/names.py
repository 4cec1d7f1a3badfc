"""Names in a text, as far as capitals tell them."""

import re

_INSIDE_A_SENTENCE = re.compile(r"(?<=[\w,;] )[^\W\d_]\w+")


def names_in(text: str) -> frozenset[str]:
    """Words that are capital inside a sentence, such as names; a text without small letters is a name of its own.

    At a sentence's start every word is capital, so a name is only found where it stands elsewhere. In German all
    nouns are found, and in a script without capitals each text is: what asks for names then asks for more of them.

    Examples:
        >>> sorted(names_in("Who was there? It was Georg, and behind him Mia's dog."))
        ['Georg', 'Mia']
    """
    if text and not any(letter.islower() for letter in text):
        return frozenset({text})
    return frozenset(word for word in _INSIDE_A_SENTENCE.findall(text) if word[0].isupper())
