"""Forms of verb phrases: "want to learn" is "wants to learn", "wanted to learn"."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Forms of the first words that follow no rule: one, several, and both in the past.
_IRREGULAR = {
    "be": ("is", "are", "was", "were"),
    "have": ("has", "have", "had", "had"),
    "do": ("does", "do", "did", "did"),
    "would": ("would",) * 4,
    "cannot": ("cannot", "cannot", "could not", "could not"),
}
_FORMS = ("one", "several", "past", "past several")


def inflect(phrase: str, form: str, verbs: Mapping[str, str]) -> str:
    """A verb phrase in a form.

    Args:
        phrase: The plain form, such as "find an egg".
        form: "one" (she finds), "several" (they find), "past" or "past several".
        verbs: Past forms of irregular verbs.
    """
    verb, space, rest = phrase.partition(" ")
    if verb in _IRREGULAR:
        verb = _IRREGULAR[verb][_FORMS.index(form)]
    elif form == "one":
        verb = _third(verb)
    elif form != "several":
        verb = verbs.get(verb) or _past(verb)
    return verb + space + rest


def _third(verb: str) -> str:
    if re.search(r"(s|x|z|ch|sh|o)$", verb):
        return f"{verb}es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", verb) + "s"


def _past(verb: str) -> str:
    return re.sub(r"(?<=[^aeiou])y$", "i", verb.removesuffix("e")) + "ed"
