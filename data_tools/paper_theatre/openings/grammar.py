"""The words of open beginnings, as the YAML files of this folder give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from data_tools.paper_theatre.language import CUES, PLACE_CUES, TIME_CUES
from data_tools.paper_theatre.names import PRONOUNS
from data_tools.paper_theatre.openings.inflect import inflect
from data_tools.paper_theatre.plots.plot import Fault
from data_tools.paper_theatre.world import HATS, OUTFITS, PLACES, PROPS, SPECIES, TIMES

SHIPPED = Path(__file__).resolve().parent
# Figures whose species depends on the pronoun.
PEOPLE = {
    "child": {"he": "boy", "she": "girl"},
    "person": {"he": "boy", "she": "girl"},
    "elder": {"he": "grandfather", "she": "grandmother"},
}
DEFAULT_PLACE = "meadow"
COUNTS = {"one": 1, "two": 2, "three": 3}
FACTS = ("wishes", "states", "events")
FACT_WORDS = range(2, 10)
SLOT = re.compile(r"\{([a-z]+)([123]?)(\.past)?\}")
_OF_ONE = frozenset("name a the kind he him his wish state event fact wear".split())
_OF_ALL = frozenset("names kinds they them their wish state event fact goal home at time".split())
_PAIR = re.compile(r"(.+) and (his|her) (.+)")
# What a kind may say of itself, and what it may be.
_CHOICES = {"pronoun": ("he", "she"), "outfit": OUTFITS, "hat": HATS[1:], "home": PLACES}


@dataclass(frozen=True)
class Kind:
    """A being, a job or a role in a family, in the user's word.

    Attributes:
        name: The word.
        figures: Species of the theatre, or keys of `PEOPLE`, the nearest first.
        plural: The word for several.
        pronoun: "he" or "she" where it is always that.
        outfit: What it wears where that is known.
        hat: The same for the hat.
        home: Where it is where no words say so.
    """

    name: str
    figures: tuple[str, ...]
    plural: str
    pronoun: str = ""
    outfit: str = ""
    hat: str = ""
    home: str = DEFAULT_PLACE


@dataclass(frozen=True)
class Grammar:
    """All words that the beginnings of a split are made of.

    Attributes:
        kinds: The kinds by name.
        pairs: Two kinds that belong together, with "his" or "her" between them.
        frames: Frames by number of heroes.
        homes: Place of the theatre for each phrase of a place to live.
        spots: The same for places where one only is.
        times: Time of day for each phrase of time.
        facts: Verb phrases in the plain form, by kind of fact (`FACTS`).
        adjectives: What any kind can be.
        verbs: Past forms of irregular verbs.
        contradictions: Kinds of which no fact with that word is said.
    """

    kinds: Mapping[str, Kind]
    pairs: tuple[tuple[str, str, str], ...]
    frames: Mapping[int, tuple[str, ...]]
    homes: Mapping[str, str]
    spots: Mapping[str, str]
    times: Mapping[str, str]
    facts: Mapping[str, tuple[str, ...]]
    adjectives: tuple[str, ...]
    verbs: Mapping[str, str]
    contradictions: Mapping[str, tuple[str, ...]]


@cache
def load_grammar(held_out: bool, folder: Path = SHIPPED) -> Grammar:
    """The words of the training beginnings, or the held-out ones.

    Raises:
        ValueError: A file has a fault; the message is the first.
    """
    grammars, faults = read_grammars(folder)
    if faults:
        raise ValueError(str(faults[0]))
    return grammars[held_out]


def read_grammars(folder: Path = SHIPPED) -> tuple[tuple[Grammar, ...], list[Fault]]:
    """The training words and the held-out ones, and all that is wrong with the files.

    Returns:
        Both grammars, or none where there is a fault, and the faults.
    """
    form = _Form(folder)
    kinds, places, facts, frames = (form.read(f"{name}.yaml") for name in ("kinds", "places", "facts", "frames"))
    if form.faults:
        return (), form.faults
    try:
        grammars = tuple(form.grammar(kinds, places, facts, frames, held_out) for held_out in (False, True))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        form.fault("kinds.yaml", "", f"the form of the files is not that of the shipped ones: {error!r:.80}")
        return (), form.faults
    form.apart(*grammars)
    return (() if form.faults else grammars), form.faults


class _Form:
    """Reads the files, and collects the faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[Fault] = []

    def fault(self, file: str, place: str, message: str) -> None:
        self.faults.append(Fault(str(self.folder / file), place, message))

    def read(self, file: str) -> dict[str, Any]:
        try:
            data = yaml.safe_load((self.folder / file).read_text("utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.fault(file, "", f"it cannot be read: {error}")
            return {}
        if not isinstance(data, dict) or "held_out" not in data:
            self.fault(file, "", "it is no mapping with the key held_out")
            return {}
        return data

    def grammar(
        self, kinds: dict[str, Any], places: dict[str, Any], facts: dict[str, Any], frames: dict[str, Any], held: bool
    ) -> Grammar:
        of_split = {
            name: data["held_out"] if held else data
            for name, data in (("places", places), ("facts", facts), ("frames", frames))
        }
        own = kinds["held_out" if held else "kinds"]
        found = {name: self._kind(name, data, kinds["plurals"]) for name, data in own.items()}
        grammar = Grammar(
            kinds=found,
            pairs=tuple(self._pair(pair, found) for pair in kinds["held_out_pairs" if held else "pairs"]),
            frames={count: tuple(of_split["frames"][name]) for name, count in COUNTS.items()},
            homes=of_split["places"]["homes"],
            spots=of_split["places"]["spots"],
            times=places["times"],
            facts={name: tuple(of_split["facts"][name]) for name in FACTS},
            adjectives=tuple(kinds["adjectives"]),
            verbs=facts["verbs"],
            contradictions={word: tuple(names) for word, names in facts["contradictions"].items()},
        )
        self._check(grammar)
        return grammar

    def apart(self, train: Grammar, held_out: Grammar) -> None:
        """Nothing held out may be among the training words."""
        for file, key in (("kinds.yaml", "kinds"), ("places.yaml", "homes"), ("places.yaml", "spots")):
            for both in sorted(set(getattr(train, key)) & set(getattr(held_out, key))):
                self.fault(file, f"held_out, {both}", f"it is among the {key} of training, too: take one out")
        for file, key in (("facts.yaml", "facts"), ("frames.yaml", "frames")):
            ours, others = (
                {text for texts in getattr(grammar, key).values() for text in texts} for grammar in (train, held_out)
            )
            for both in sorted(ours & others):
                self.fault(file, f"held_out, {both!r}", f"it is among the {key} of training, too: take one out")

    def _kind(self, name: str, data: Any, plurals: Mapping[str, str]) -> Kind:
        said = {"figures": data} if isinstance(data, str) else dict(data)
        figures = tuple(str(said.pop("figures", "")).split())
        for figure in figures or ("",):
            if figure not in (*SPECIES, *PEOPLE):
                self.fault("kinds.yaml", name, f"{figure!r} is no figure: choose of {_list((*SPECIES, *PEOPLE))}")
        for key, value in said.items():
            if value not in _CHOICES.get(key, ()):
                known = _list(_CHOICES.get(key, ())) or f"no key {key!r}: the keys are figures, {_list(_CHOICES)}"
                self.fault("kinds.yaml", name, f"{key} {value!r}: choose one of {known}")
        for word in re.findall(r"[A-Za-z]+(?:-[a-z]+)*", name):
            if word in (*CUES, *PLACE_CUES, *TIME_CUES, *PROPS, *PRONOUNS):
                self.fault("kinds.yaml", name, f"{word!r} would show in later pictures: say it otherwise")
        return Kind(name, figures, plurals.get(name, f"{name}s"), **{key: str(value) for key, value in said.items()})

    def _pair(self, pair: str, kinds: Mapping[str, Kind]) -> tuple[str, str, str]:
        found = _PAIR.fullmatch(pair)
        if not found or not {found[1], found[3]} <= kinds.keys():
            self.fault("kinds.yaml", f"pairs, {pair}", "write two kinds of the same list with 'and his' or 'and her'")
            return ("", "his", "")
        for name, pronoun in ((found[1], found[2]), (found[3], "her" if found[2] == "his" else "his")):
            if kinds[name].pronoun not in ("", {"his": "he", "her": "she"}[pronoun]):
                always = f"{name} is always a {kinds[name].pronoun}"
                self.fault("kinds.yaml", f"pairs, {pair}", f"{always}: write the other of his and her")
        return (found[1], found[2], found[3])

    def _check(self, grammar: Grammar) -> None:
        for phrase, place in (*grammar.homes.items(), *grammar.spots.items()):
            if place not in PLACES:
                self.fault("places.yaml", phrase, f"{place!r} is no place: choose one of {_list(PLACES)}")
        for phrase, time in grammar.times.items():
            if time not in TIMES:
                self.fault("places.yaml", phrase, f"{time!r} is no time: choose one of {_list(TIMES)}")
        for kind, texts in grammar.facts.items():
            for text in texts:
                if len(text.split()) not in FACT_WORDS:
                    self.fault("facts.yaml", f"{kind}, {text!r}", f"write {FACT_WORDS[0]} to {FACT_WORDS[-1]} words")
                inflect(text, "past", grammar.verbs)
        for count, frames in grammar.frames.items():
            for frame in frames:
                self._frame(count, frame)

    def _frame(self, count: int, frame: str) -> None:
        place = f"frame {frame!r}"
        if re.search(r"[{}]", SLOT.sub("", frame)):
            self.fault("frames.yaml", place, "a brace is not that of a slot such as {name} or {fact2.past}")
        named = set()
        for slot, digit, past in SLOT.findall(frame):
            known = _OF_ONE if digit or count == 1 else frozenset[str]()
            if slot not in (known if digit else known | _OF_ALL) or int(digit or 1) > count:
                self.fault("frames.yaml", place, f"{{{slot}{digit}}} is no slot of a frame for {count}")
            if past and slot not in ("wish", "state", "event", "fact"):
                self.fault("frames.yaml", place, f"{{{slot}{digit}.past}}: only facts have a past")
            if slot in ("name", "names", "a", "kinds"):
                named |= set(range(1, count + 1)) if slot in ("names", "kinds") else {int(digit or 1)}
        if len(named) < count:
            self.fault("frames.yaml", place, f"it does not bring on all of its {count} heroes")
        kinds = {(slot, digit) for slot, digit, _ in SLOT.findall(frame) if slot in ("kind", "kinds", "a", "the")}
        if kinds and ("kinds", "") not in kinds and len({digit for _, digit in kinds}) < count:
            self.fault("frames.yaml", place, "it says what some of its heroes are, and not of the others")


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)
