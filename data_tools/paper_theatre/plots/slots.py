"""What can be said of a phrasing without writing it: whether its brackets, braces, quotes and slots are right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from data_tools.paper_theatre.language import CUES, FORMS, FORMS_OF, TIMES_SAID, VIEW, VIEW_CUES
from data_tools.paper_theatre.world import PLACES, PROPS

Values = Mapping[str, tuple[str, ...]]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([^{}]*)\}")
_WHO = re.compile(r"([abc]{1,3})(?:([.:~])(.+))?", re.DOTALL)
_PRONOUNS = (*FORMS_OF["she"], "they", "them", "their")
_QUOTED = "what is said inside quotes shows nothing: take it out of the quotes, or write the words plainly"


def phrasing_faults(text: str, cast: str, values: Values) -> list[str]:
    """What is wrong with a phrasing, a message for each fault, with what to do."""
    return list(dict.fromkeys(message for one in variants(text) for message in _faults(one, cast, values)))


def title_faults(title: str, cast: str, values: Values, what: str = "a title") -> list[str]:
    """What is wrong with a title (or a line of a plan), which holds names and values only."""
    faults = [f"take the square brackets out: {what} has no choices"] if re.search(r"[\[\]|]", title) else []
    for slot in _SLOT.findall(title):
        if slot not in [*cast, *values]:
            faults.append(f"{{{slot}}} is no name and no value: {what} takes {_list([*cast, *values])}")
    if re.search(r"[{}]", _SLOT.sub("", title)):
        faults.append("a brace is not closed")
    return faults


def place_fault(place: str, values: Values) -> str:
    """What is wrong with a place of a slot: the place itself, or a value all of whose choices are places."""
    wrong = [one for one in values.get(place, (place,)) if one not in PLACES]
    if not wrong:
        return ""
    of_value = f" of {place}" if place in values else ""
    unknown = ", and no value" if place not in values else ""
    return f"{wrong[0]!r}{of_value} is no place{unknown}: choose one of {_list(PLACES)}"


def values_in(text: str) -> set[str]:
    """The values that a phrasing or a title uses: every word in capitals inside its braces."""
    return {word for slot in _SLOT.findall(text) for word in re.findall(r"\b[A-Z][A-Z0-9_]*\b", slot)}


def names_place(text: str) -> bool:
    """Whether the narration of a phrasing names a place, whatever is chosen."""
    return all(re.search(r"\{([Aa]t|[Tt]o|the):", re.sub(r'"[^"]*"', "", one)) for one in variants(text))


def names_time(text: str) -> bool:
    """Whether the narration of a phrasing names a time of day, whatever is chosen."""
    return all(re.search(r"\{[Tt]:", re.sub(r'"[^"]*"', "", one)) for one in variants(text))


def variants(text: str) -> set[str]:
    """The phrasing with its choices made, so often that every option of every `[one|other]` is in one of them."""
    most = max((found.count("|") + 1 for found in _CHOICE.findall(text)), default=1)
    return {_chosen(text, turn) for turn in range(most)}


def _chosen(text: str, turn: int) -> str:
    while (chosen := _CHOICE.sub(lambda found: _option(found[1], turn), text)) != text:
        text = chosen
    return text


def _option(choice: str, turn: int) -> str:
    options = choice.split("|")
    return options[turn % len(options)]


def _faults(text: str, cast: str, values: Values) -> Iterator[str]:
    if re.search(r"[\[\]|]", text):
        yield "a square bracket is not closed, or a | stands outside: write choices as [one|other]"
    if re.search(r"[{}]", _SLOT.sub("", text)):
        yield "a brace is not closed: write slots as {a}"
    if text.count('"') % 2:
        yield "a quotation is not closed: add the other double quote"
    for found in _SLOT.finditer(text):
        quoted = text[: found.start()].count('"') % 2 == 1
        if message := _slot_fault(found[1], quoted, cast, values):
            yield f"{{{found[1]}}}: {message}"


def _slot_fault(slot: str, quoted: bool, cast: str, values: Values) -> str:
    kind, colon, value = slot.partition(":")
    if colon and kind in ("at", "At", "to", "To", "the"):
        return place_fault(value, values)
    if colon and kind == "meanwhile":
        return "take it out of the quotes" if quoted else place_fault(value, values)
    if colon and kind in ("t", "T"):
        return "" if value in TIMES_SAID else f"{value!r} is no time: choose one of {_list(TIMES_SAID)}"
    if colon and kind in ("near", "wide"):
        return _view_fault(kind, value, quoted)
    if who := _WHO.fullmatch(slot):
        if not set(who[1]) <= set(cast):
            return f"the cast {cast!r} has no {who[1]!r}"
        return _FAULTS[who[2] or ""](who[1], who[3] or "", quoted)
    return "" if slot in values or slot in PROPS else _unknown(values)


def _unknown(values: Values) -> str:
    return f"it is no slot: name a value ({_list(values) or 'there are none'}) or a prop ({_list(PROPS)})"


def _view_fault(view: str, words: str, quoted: bool) -> str:
    cue = VIEW.search(words)
    if not cue or VIEW_CUES[cue[0].lower()] != view:
        return f"it has no words of a {view} view: use one of {_list(c for c, v in VIEW_CUES.items() if v == view)}"
    return "words inside quotes show nothing: take it out of the quotes" if quoted else ""


def _name_fault(letters: str, what: str, quoted: bool) -> str:
    return ""


def _form_fault(letters: str, what: str, quoted: bool) -> str:
    """Of `{a.new}`, `{ab.friends}` and `{a.he}`."""
    if what in ("is", "there", "new"):
        if len(letters) > 1:
            return "it brings on one character at a time"
        return "nobody is brought on inside quotes: take it out of the quotes" if quoted else ""
    if what == "friends":
        return "friends are two or three letters" if len(letters) == 1 else ""
    known = what[:1].lower() + what[1:] in _PRONOUNS
    return "" if known else f"there is no form {what!r}: choose one of is, there, new, friends, {_list(_PRONOUNS)}"


def _show_fault(letters: str, what: str, quoted: bool) -> str:
    """Of `{a:sad}` and `{a:sitting,waving.ing}`."""
    options, _, form = what.partition(".")
    if form not in FORMS:
        return f"there is no form {form!r}: choose one of {_list(filter(None, FORMS))}, or none"
    for option in options.split(","):
        if option not in FORMS[form]:
            return f"{option!r} is no pose or mood of that form: choose of {_list(FORMS[form])}"
    return _QUOTED if quoted else ""


def _words_fault(letters: str, what: str, quoted: bool) -> str:
    """Of `{a~ran home}`."""
    words = re.findall(r"[a-z]+", what.lower())
    if CUES.keys().isdisjoint(words) and not re.search(r"\bset (off|out)\b|threw up", what):
        return "it has no word that shows a pose or a mood, such as sat, ran, smiled or sighed: write the words plainly"
    return _QUOTED if quoted else ""


_FAULTS = {"": _name_fault, ".": _form_fault, ":": _show_fault, "~": _words_fault}


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)
