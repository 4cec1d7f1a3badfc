"""Writes a plot's stories on trial: every phrasing, every choice of every value, read back as the contract wants it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from data_tools.paper_theatre.casting import cast
from data_tools.paper_theatre.plots.plot import Beat, Plot
from data_tools.paper_theatre.reader import Reader
from data_tools.paper_theatre.script import Member, Script, ScriptedPage, choose
from data_tools.paper_theatre.stories import FEW_WORDS, PAGES, WORDS
from data_tools.paper_theatre.world import Scene

# A story draws wordings of a beat until one has the right length: at least this share of them must.
_SHARE = 0.1
# How many wordings of a beat are tried at least, while none has the right length.
_TRIES = 24
_MORE = (
    (
        "not introduced yet",
        "bring it on first with {a.is}, {a.there} or {a.new}, on a beat that is not optional (for a core beat: core)",
    ),
    ("introduced twice", "name it with {a} where it is known already"),
    ("actors, not 0", "name a character"),
    ("actors, not", "name fewer characters, or leave the view out"),
    ("props, not", "name fewer props"),
    ("means nobody", "write pronouns as {a.he}, {a.him} and {a.his}"),
)


def trial_faults(plot: Plot, seeds: int = 8) -> list[tuple[str, str]]:
    """Writes a plot with several seeds, and reads it back.

    Args:
        plot: A plot without faults in its form.
        seeds: How many stories to write; more where a value has more choices.

    Returns:
        What is wrong, as (place, message): one fault for each place, the first that was found.
    """
    needed = sum(not beat.optional for beat in plot.beats)
    found: dict[str, str] = {}
    if len(plot.beats) < PAGES[0]:
        found["beats"] = f"there are {len(plot.beats)}, and a story has {PAGES[0]} pages or more: add some"
    if needed > PAGES[-1]:
        found["beats"] = f"{needed} are on every page, and a story has at most {PAGES[-1]}: make some optional"
    if found:
        return list(found.items())
    lengths = _Lengths(plot)
    for seed in range(max(seeds, *map(len, plot.values.values()), 2)):
        _Trial(plot, seed, found, lengths).write()
    for place, message in lengths.faults():
        found.setdefault(place, message)
    return sorted(found.items(), key=lambda one: [int(word) for word in one[0].replace(",", "").split()[1::2]])


@dataclass
class _Lengths:
    """How many words the pages have that were written on trial, by phrasing and by beat."""

    plot: Plot
    beats: dict[tuple[int, range], list[int]] = field(default_factory=lambda: defaultdict(list))
    phrasings: dict[tuple[int, int, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    fit: set[tuple[int, int, int]] = field(default_factory=set)

    def add(self, number: int, picks: Sequence[int], bounds: range, words: int) -> None:
        self.beats[number, bounds].append(words)
        phrasings = [(number, part, pick) for part, pick in enumerate(picks)]
        self.fit.update(phrasings if words in bounds else ())
        for phrasing in phrasings if bounds == WORDS else ():
            self.phrasings[phrasing].append(words)

    def faults(self) -> list[tuple[str, str]]:
        found = {}
        for (number, bounds), lengths in self.beats.items():
            fitting = sum(words in bounds for words in lengths) / len(lengths)
            if fitting < _SHARE:
                found[_place(number)] = f"{fitting:.0%} of its wordings fit: {_advice(lengths, bounds)}"
        for phrasing, lengths in self.phrasings.items():
            if _place(phrasing[0]) not in found and phrasing not in self.fit:
                found[_place(*phrasing)] = f"no page with it fits: {_advice(lengths, WORDS)}"
        return list(found.items())


def _advice(lengths: Sequence[int], bounds: range) -> str:
    do = "shorten" if max(lengths) > bounds[-1] else "lengthen"
    return (
        f"a page has {bounds[0]} to {bounds[-1]} words, and it gives {min(lengths)} to {max(lengths)}: {do} it, "
        "or what stands beside it"
    )


def _place(number: int, part: int | None = None, pick: int | None = None) -> str:
    names = (("beat", number), ("part", part), ("phrasing", pick))
    return ", ".join(f"{name} {at + 1}" for name, at in names if at is not None)


class _Trial:
    """One story; the same plot as its next chapter, where the characters are known already; and a short story."""

    def __init__(self, plot: Plot, seed: int, found: dict[str, str], lengths: _Lengths) -> None:
        self.plot, self.seed, self.found, self.lengths = plot, seed, found, lengths
        self.rng = random.Random(f"trial-{seed}")
        self.values = {name: choices[seed % len(choices)] for name, choices in plot.values.items()}

    def write(self) -> None:
        members = cast(self.plot.cast, ("train", "heldout")[self.seed % 2], self.rng)
        self.script, self.reader = Script(members, self.values, self.rng), Reader()
        if not self._chapter(WORDS):
            return
        for letter in self.plot.cast:
            if letter not in self.script.order:
                do = f"bring it on with {{{letter}.new}} on a beat that is not optional, or take the letter out"
                self.found.setdefault("cast", f"{letter} does not come on in every story: {do}")
                return
        self.script = self.script.next_chapter(self._roles(members), self.values)
        self._chapter(FEW_WORDS)
        self.script, self.reader = Script(members, self.values, self.rng), Reader()
        all(self._beat(number, beat, WORDS) for number, beat in enumerate(self.plot.beats) if beat.core)

    def _roles(self, members: dict[str, Member]) -> dict[str, Member]:
        """The heroes in other roles where that can be: the first two differ in pronoun."""
        turned = dict(zip(members, [*list(members.values())[1::-1], *list(members.values())[2:]], strict=True))
        return turned if self.seed % 2 else members

    def _chapter(self, bounds: range) -> bool:
        """Writes the beats one after the other; whether all could be written."""
        spare = [at for at, beat in enumerate(self.plot.beats) if beat.optional]
        needed = len(self.plot.beats) - len(spare)
        pages = PAGES[0] if self.seed % 2 else PAGES[-1]
        kept = self.rng.sample(spare, min(max(pages - needed, 0), len(spare)))
        return all(
            self._beat(number, beat, bounds)
            for number, beat in enumerate(self.plot.beats)
            if not beat.optional or number in kept
        )

    def _beat(self, number: int, beat: Beat, bounds: range) -> bool:
        """Writes a beat with each of its phrasings; the story goes on from one that fits."""
        orders = [self.rng.sample(range(len(part)), len(part)) for part in beat.parts]
        sound: list[tuple[Script, Reader]] = []
        fitting: list[tuple[Script, Reader]] = []
        most = max(map(len, orders))
        for turn in range(max(most, _TRIES)):
            if turn >= most and (fitting or not sound):
                break
            picks = [order[turn % len(order)] if turn < most else self.rng.choice(order) for order in orders]
            texts = [choose(part[pick], self.rng) for part, pick in zip(beat.parts, picks, strict=True)]
            state = self.rng.getstate()
            script, reader, page, message = self._try(texts)
            if message or page is None:
                part = self._blame(texts, state, message)
                place = _place(number) if part is None else _place(number, part, picks[part])
                self.found.setdefault(place, f"{message} ({page.caption})" if page else message)
                continue
            words = len(page.caption.split())
            self.lengths.add(number, picks, bounds, words)
            sound.append((script, reader))
            if words in bounds:
                fitting.append((script, reader))
        if sound:
            self.script, self.reader = self.rng.choice(fitting or sound)
        return bool(sound)

    def _try(self, texts: Sequence[str]) -> tuple[Script, Reader, ScriptedPage | None, str]:
        """Writes a page and reads it back: where script and reader stand then, the page, and what is wrong with it."""
        script, reader = self.script.snapshot(), deepcopy(self.reader)
        try:
            page = script.page(" ".join(texts))
        except ValueError as error:
            return script, reader, None, f"it cannot be written: {_more(str(error))}"
        try:
            scene = reader.read(page.caption)
        except ValueError as error:
            return script, reader, page, f"it cannot be read back: {_more(str(error.__cause__))}"
        return script, reader, page, _difference(page.scene, scene)

    def _blame(self, texts: Sequence[str], state: tuple[Any, ...], message: str) -> int | None:
        """The part that brings the fault: the page has it from there on."""
        for part in range(len(texts)):
            self.rng.setstate(state)
            if self._try(texts[: part + 1])[3] == message:
                return part
        return None


def _more(message: str) -> str:
    return next((f"{message}: {advice}" for said, advice in _MORE if said in message), message)


def _difference(meant: Scene, read: Scene) -> str:
    """Where what was read differs from what was meant, with what to do; empty where it does not."""
    if meant == read:
        return ""
    for one, other in zip(meant.halves, read.halves, strict=False):
        for what, do in (
            ("place", "name places with {at:...}, {to:...} or {the:...} only, or inside quotes"),
            ("time", "name times of day with {t:...} only, or inside quotes"),
            ("view", "write words of a view as {near:...} or {wide:...}"),
            ("props", "write props as {kite}, or inside quotes"),
        ):
            if getattr(one, what) != getattr(other, what):
                return _said(what, getattr(one, what), getattr(other, what), do)
        names = [[actor.name for actor in scene.actors] for scene in (one, other)]
        if names[0] != names[1]:
            return _said("characters", names[0], names[1], "write characters as {a} and their pronouns as {a.he}")
        for actor, seen in zip(one.actors, other.actors, strict=True):
            for what in ("pose", "expression", "appearance"):
                if getattr(actor, what) != getattr(seen, what):
                    do = "write what {a} does as {a~sat down} or {a:sitting}, right after its subject"
                    return _said(f"{what} of {actor.name}", getattr(actor, what), getattr(seen, what), do)
    return _said("number of places", len(meant.halves), len(read.halves), "write {meanwhile:pond}")


def _said(what: str, meant: object, read: object, do: str) -> str:
    return f"the {what} would be read as {_plain(read)}, not {_plain(meant)}: {do}"


def _plain(what: object) -> str:
    if isinstance(what, (tuple, list)):
        return ", ".join(map(str, what)) or "none"
    return str(what)
