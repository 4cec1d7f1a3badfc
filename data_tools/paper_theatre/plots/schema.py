"""Reads a plot from its YAML file and names what is wrong with it, place by place."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any

import yaml

from data_tools.paper_theatre.language import TIMES_SAID
from data_tools.paper_theatre.plots.plot import Beat, Fault, Plot, opening
from data_tools.paper_theatre.plots.slots import (
    names_place,
    names_time,
    phrasing_faults,
    place_fault,
    title_faults,
    values_in,
)

CASTS = ("a", "ab", "abc")
_REQUIRED = ("name", "titles", "cast", "beats")
_KEYS = ("number", *_REQUIRED, "values", "held_out")
_BEAT_KEYS = ("plan", "parts", "optional", "core")
_VALUE = re.compile(r"[A-Z][A-Z0-9_]*")
# How many beats make a short story, and how many words a line of the plan has.
CORE = range(4, 7)
PLAN_WORDS = range(3, 13)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """`yaml.safe_load`'s loader, which would keep the last of two equal keys; this one refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_plot(path: Path) -> tuple[Plot | None, list[Fault]]:
    """Reads one file.

    Returns:
        The plot, or None where there is a fault, and the faults.
    """
    try:
        data = yaml.load(path.read_text("utf-8"), _Loader)
    except UnicodeDecodeError:
        return None, [Fault(str(path), "", "it is no UTF-8 text: save it as UTF-8")]
    except OSError as error:
        return None, [Fault(str(path), "", f"it cannot be read: {error.strerror}")]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, [_no_yaml(path, error)]
    form = _Form(str(path))
    plot = form.plot(data)
    return (None if form.faults else plot), form.faults


def _no_yaml(path: Path, error: Exception) -> Fault:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
    line = f"line {mark.line + 1}" if mark else ""
    twice = isinstance(error, yaml.constructor.ConstructorError)
    do = "take one out" if twice else "put every phrasing in single quotes"
    return Fault(str(path), line, f"YAML cannot read it ({problem}): {do}")


class _Form:
    """Turns what YAML gives into a plot, and collects the faults."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.cast = ""
        self.values: dict[str, tuple[str, ...]] = {}
        self.used: set[str] = set()

    def fault(self, place: str, message: str) -> None:
        self.faults.append(Fault(self.file, place, message))

    def plot(self, data: Any) -> Plot | None:
        if not self._keys("", data, _KEYS, _REQUIRED):
            return None
        name = data.get("name", "?")
        if not isinstance(name, str) or not name.strip():
            self.fault("name", f"{name!r} is no text: write a short name")
        held_out, number = data.get("held_out", False), data.get("number")
        if not isinstance(held_out, bool):
            self.fault("held_out", f"{held_out!r} is neither true nor false")
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            self.fault("number", f"{number!r} is no whole number: leave it out, or count from 1")
        self.cast = data.get("cast", CASTS[-1])
        if self.cast not in CASTS:
            self.fault("cast", f"{self.cast!r} is no cast: write one letter per character, {', '.join(CASTS)}")
            self.cast = CASTS[-1]
        self._read_values(data.get("values", {}))
        titles = self._texts("titles", "title", data.get("titles", ["?"]))
        for at, title in enumerate(titles, start=1):
            self._slots(f"titles, title {at}", title, title_faults(title, self.cast, self.values))
        beats = self._beats(data.get("beats"))
        self._plan(beats)
        for value in [value for value in self.values if beats and value not in self.used]:
            self.fault(f"values, {value}", f"nothing uses it: write {{{value}}} or {{at:{value}}}, or take it out")
        return Plot(name, titles, self.cast, beats, self.values, held_out, number)

    def _keys(self, place: str, data: Any, known: Collection[str], required: Collection[str]) -> bool:
        """Whether it is a mapping; its keys are checked."""
        if not isinstance(data, dict):
            self.fault(place, f"{_short(data)} is no mapping: write the keys {', '.join(known)}")
            return False
        for key in data:
            if key not in known:
                self.fault(place, f"there is no key {key!r}: the keys are {', '.join(known)}")
        for key in required:
            if key not in data:
                self.fault(place, f"there is no {key}: add it")
        return True

    def _texts(self, place: str, kind: str, data: Any) -> tuple[str, ...]:
        """A list of texts; what is no text stands as an empty one."""
        if not isinstance(data, list) or not data:
            self.fault(place, f"{_short(data)} is no list of {kind}s: write one or more, a line each, after '- '")
            return ()
        for at, text in enumerate(data, start=1):
            if not isinstance(text, str) or not text.strip():
                self.fault(f"{place}, {kind} {at}", f"{_short(text)} is no text: put it in single quotes")
            elif "\n" in text:
                self.fault(f"{place}, {kind} {at}", "it has a line break: write it on one line")
        return tuple(text if isinstance(text, str) else "" for text in data)

    def _read_values(self, data: Any) -> None:
        if not isinstance(data, dict):
            self.fault("values", f"{_short(data)} is no mapping: write NAME: [one choice, another]")
            return
        for name, choices in data.items():
            place = f"values, {name}"
            if not isinstance(name, str) or not _VALUE.fullmatch(name) or name == "HIS":
                self.fault(place, "a value's name is a word in capitals, such as HOME, and not HIS")
            texts = self._texts(place, "choice", choices)
            for at, text in enumerate(texts, start=1):
                if re.search(r'[{}\[\]|"]', text):
                    self.fault(f"{place}, choice {at}", "a choice is plain words: take slots, brackets and quotes out")
            self.values[str(name)] = texts

    def _beats(self, data: Any) -> tuple[Beat, ...]:
        if not isinstance(data, list) or not data:
            self.fault("beats", f"{_short(data)} is no list of beats: write one for each page")
            return ()
        beats = tuple(self._beat(f"beat {at}", beat) for at, beat in enumerate(data, start=1))
        first = beats[0]
        if first.optional:
            self.fault("beat 1", "the first beat cannot be optional: it brings on character a")
        for what, names in (("place", names_place), ("time", names_time)):
            if first.parts and not any(all(map(names, part)) for part in first.parts):
                how = "{at:HOME}" if what == "place" else "{t:oneday}"
                message = f"it must name a {what} however it is put: begin it with opening: [oneday, HOME], or"
                self.fault("beat 1", f"{message} write {how} in every phrasing of a part")
        return beats

    def _plan(self, beats: tuple[Beat, ...]) -> None:
        """Either every beat has a line of the plan, or none; either enough beats are core, or none."""
        without = [at for at, beat in enumerate(beats, start=1) if not beat.plan]
        if 0 < len(without) < len(beats):
            self.fault(f"beat {without[0]}, plan", "there is none, and other beats have one: say what happens here")
        core = sum(beat.core for beat in beats)
        if core and (core not in CORE or not beats[0].core or not beats[-1].core):
            few = f"{CORE[0]} to {CORE[-1]} beats, the first and the last among them"
            self.fault("beats", f"{core} of them are core: a short story is made of {few}")

    def _beat(self, place: str, data: Any) -> Beat:
        if not self._keys(place, data, _BEAT_KEYS, ("parts",)):
            return Beat(())
        parts = data.get("parts", ["?"])
        optional, core = (self._flag(place, data, key) for key in ("optional", "core"))
        if optional and core:
            self.fault(place, "it is optional and core: a core beat is in every story")
        plan = data.get("plan", "")
        if not isinstance(plan, str):
            self.fault(f"{place}, plan", f"{_short(plan)} is no text: say what happens in a few words")
            plan = ""
        if plan:
            self._slots(f"{place}, plan", plan, title_faults(plan, self.cast, self.values, what="a plan"))
            if len(plan.split()) not in PLAN_WORDS:
                self.fault(f"{place}, plan", f"it has {len(plan.split())} words: {PLAN_WORDS[0]} to {PLAN_WORDS[-1]}")
        if not isinstance(parts, list) or not parts:
            self.fault(f"{place}, parts", f"{_short(parts)} is no list of parts: write '- - ' before each part")
            return Beat(())
        if parts == ["?"]:
            return Beat(())
        return Beat(
            tuple(self._part(f"{place}, part {at}", part) for at, part in enumerate(parts, 1)), optional, core, plan
        )

    def _flag(self, place: str, data: dict[Any, Any], key: str) -> bool:
        flag = data.get(key, False)
        if not isinstance(flag, bool):
            self.fault(f"{place}, {key}", f"{flag!r} is neither true nor false")
        return bool(flag)

    def _part(self, place: str, data: Any) -> tuple[str, ...]:
        if isinstance(data, dict):
            return self._opening(place, data)
        texts = self._texts(place, "phrasing", data)
        for at, text in enumerate(texts, start=1):
            self._slots(f"{place}, phrasing {at}", text, phrasing_faults(text, self.cast, self.values))
        return texts

    def _opening(self, place: str, data: dict[Any, Any]) -> tuple[str, ...]:
        self._keys(place, data, ("opening",), ("opening",))
        said = data.get("opening")
        if not isinstance(said, list) or len(said) != 2 or not all(isinstance(word, str) for word in said):
            self.fault(place, f"{_short(said)} is no opening: write opening: [oneday, HOME], a time and a place")
            return ()
        time, where = said
        if time not in TIMES_SAID:
            self.fault(place, f"{time!r} is no time: choose one of {', '.join(TIMES_SAID)}")
        if message := place_fault(where, self.values):
            self.fault(place, message)
        texts = opening(time, where)
        self.used.add(where)
        return texts

    def _slots(self, place: str, text: str, faults: list[str]) -> None:
        self.used |= values_in(text)
        for message in faults:
            self.fault(place, message)


def _short(data: Any) -> str:
    return "nothing" if data is None else f"{data!r:.40}"
