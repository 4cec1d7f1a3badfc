"""Turns page templates into captions, and keeps the ground truth of what they say.

A template is English with slots. Characters are the letters a, b and c:

    {a}  {ab}  {abc}        names: "Pip", "Pip and Lily", "Pip, Lily and Tom"
    {a.is} {a.there}        a clause that introduces a: "Pip was a small fox in ...", "there lived a small fox ..."
    {a.new}                 a noun phrase that introduces a: "a small fox named Pip in a red coat"
                            (where the script says less of a look, only the species or the name)
                            (all three only name a, if an earlier chapter or an open beginning introduced it)
    {a.he} {a.him} {a.his}  pronouns (a name wherever the pronoun would mean someone else); {a.He} is capital
    {ab.friends}            "the two friends" (or names)
    {a:sad} {a:sad.ing}     a phrase for a pose or an expression: "sighed", "weeping a little", {a:sad.ly} "sadly";
                            several after the colon are a choice: {a:sitting,waving}
    {a~ran home}            these very words, which must hold a cue; HIS is the character's possessive
    {at:pond} {to:pond} {the:pond}  a place: "by the pond", "down to the pond", "the pond"
    {near:so close that}    these very words, which must hold a cue of the view (`language.VIEW_CUES`); also {wide:...}
    {meanwhile:pond}        "Meanwhile, by the pond,": the rest of the page happens there (two places on one page)
    {t:night}               a time of day (`language.TIMES_SAID`); {At:pond}, {To:pond}, {T:night} begin with a capital
    {kite}                  a prop
    {WORD}                  a value of the plot, as in {at:HOME} or {PROP}

`[big|large]` is a choice, resolved before the slots. Inside double quotes names and props are only words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

from data_tools.paper_theatre.language import (
    AT,
    CUES,
    FORMS,
    FORMS_OF,
    FRIENDS,
    KNOWN,
    MEANWHILE,
    NAMED,
    NAMELESS,
    NEWCOMER_PATTERNS,
    SAID,
    TIMES_SAID,
    TO,
    VIEW,
    VIEW_CUES,
    Discourse,
    adjectives,
    fix_articles,
    is_expression,
    wear,
)
from data_tools.paper_theatre.world import PLACES, PROPS, Actor, Appearance, Scene

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([^{}]+)\}")
_WHO = re.compile(r"([abc]{1,3})(?:([.:~])(.+))?")
# What may follow a name so that a word may stand behind it: no other name joins it.
_ALONE = re.compile(r" (?!and |or )[a-z{]|[.!?]")
_KIND_AGAIN = 0.12  # share of names where it does


@dataclass(frozen=True)
class Member:
    """A character of a story.

    `kind` is the user's word for it in an open beginning, whatever species is drawn; else empty.
    """

    name: str
    pronoun: str
    appearance: Appearance
    kind: str = ""


@dataclass(frozen=True)
class ScriptedPage:
    """One page: text, picture, and who is meant where.

    Attributes:
        caption: The text.
        scene: What the picture shows.
        spans: `(start, end, cast index)` of every name and pronoun of the narration; one for each member of a "they".
    """

    caption: str
    scene: Scene
    spans: tuple[tuple[int, int, int], ...]


@dataclass
class Script:
    """Writes a story page after page, and remembers what must be remembered between pages.

    `order` holds the letters in order of first mention, `known` those that an earlier chapter introduced, `said` how
    much the introduction of each says of its look (a key of `language.SAID`; all of it where a letter is missing).
    `heroes` are those of an open beginning, `nameless` says how it called those that it did not name.
    """

    cast: dict[str, Member]
    values: dict[str, str]
    rng: random.Random
    order: list[str] = field(default_factory=list)
    place: str | None = None
    time: str | None = None
    discourse: Discourse = field(default_factory=Discourse)
    known: frozenset[str] = frozenset()
    said: Mapping[str, str] = field(default_factory=dict)
    heroes: frozenset[str] = frozenset()
    nameless: dict[str, str] = field(default_factory=dict)

    def begin(self, page: ScriptedPage, references: Mapping[str, str]) -> None:
        """Goes on after an open beginning.

        Args:
            page: The first page.
            references: Of each of its heroes how the page called it, such as "the old dragon", or "" if it named it.
        """
        self.order = list(references)
        self.known = self.heroes = frozenset(references)
        self.nameless = {letter: words for letter, words in references.items() if words}
        self.place, self.time = page.scene.place, page.scene.time
        self.discourse.pronouns = [self.cast[letter].pronoun for letter in self.order]
        self.discourse.follow(page.spans)

    def page(self, template: str) -> ScriptedPage:
        """Writes one page from a template.

        Args:
            template: Text with choices and slots.

        Returns:
            The page with its ground truth.

        Raises:
            ValueError: The template breaks the slot language.
        """
        self._text, self._quoted = "", False
        self._spans: list[tuple[int, int, int]] = []
        self._view = ""
        self._first: tuple[str, tuple[Actor, ...], tuple[str, ...]] | None = None
        self._begin()
        template = choose(template, self.rng)
        end = 0
        for slot in _SLOT.finditer(template):
            self._emit(template[end : slot.start()])
            self._after = template[slot.end() :]
            self._fill(slot[1])
            end = slot.end()
        self._emit(template[end:])
        if self.place is None or self.time is None:
            raise ValueError(f"the first page must name place and time: {template}")
        scene = Scene(self.place, self.time, self._actors(), tuple(self._props))
        if self._first:
            place, actors, props = self._first
            scene = Scene(place, self.time, actors, props, meanwhile=scene)
        if self._view:
            scene = replace(scene, view=self._view)
        return ScriptedPage(capitals(self._text), scene, tuple(self._spans))

    def _begin(self) -> None:
        """Begins a page, or its second half."""
        self._said: dict[int, dict[str, str]] = {}
        self._props: list[str] = []
        self.discourse.turn_page()

    def _actors(self) -> tuple[Actor, ...]:
        return tuple(
            Actor(member.appearance, said.get("pose", "standing"), said.get("mood", "happy"), member.name)
            for i, member in enumerate(self.cast[letter] for letter in self.order)
            if i in self.discourse.page
            for said in [self._said.get(i, {})]
        )

    def snapshot(self) -> Script:
        """A copy to go back to; the random numbers go on."""
        copy = Script(self.cast, self.values, self.rng, list(self.order), self.place, self.time)
        copy.discourse, copy.known, copy.said = deepcopy(self.discourse), self.known, self.said
        copy.heroes, copy.nameless = self.heroes, dict(self.nameless)
        return copy

    def next_chapter(self, cast: dict[str, Member], values: dict[str, str]) -> Script:
        """The script of the story's next chapter: the same characters, in other roles.

        Args:
            cast: The same members, whichever letter each has now.
            values: Values of the next plot.
        """
        letters = {member.name: letter for letter, member in cast.items()}
        order = [letters[self.cast[letter].name] for letter in self.order]
        said = {letters[self.cast[letter].name]: level for letter, level in self.said.items()}
        discourse = deepcopy(self.discourse)
        return Script(cast, values, self.rng, order, self.place, self.time, discourse, frozenset(order), said)

    def _emit(self, text: str) -> None:
        if text and re.search(r"\b[Aa] $", self._text):
            self._text = self._text[:-2] + fix_articles(self._text[-2:] + text)[: -len(text)]
        if text.count('"') % 2:
            self._quoted = not self._quoted
        if text[:1] in (*".,;:!?",) and self._text.endswith(","):
            self._text = self._text[:-1]
        self._text += text

    def _fill(self, slot: str) -> None:
        who = _WHO.fullmatch(slot)
        kind, _, value = slot.partition(":")
        self._capital = kind in ("At", "To", "T")
        kind = kind.lower() if self._capital else kind
        if who and set(who[1]) <= set(self.cast):
            self._person(who[1], who[2] or "", who[3] or "")
        elif kind in ("at", "to", "the"):
            self._go(kind, self.values.get(value, value))
        elif kind == "meanwhile":
            self._meanwhile(self.values.get(value, value))
        elif kind in ("near", "wide"):
            self._see(kind, value)
        elif kind == "t":
            time, phrases = TIMES_SAID[value]
            self._emit(self._cased(self.rng.choice(phrases)))
            if not self._quoted:
                self.time = time
        else:
            word = self.values.get(slot, slot)
            if slot not in self.values and slot not in PROPS:
                raise ValueError(f"unknown slot {{{slot}}}")
            self._emit(word)
            if word in PROPS and not self._quoted and word not in self._props:
                self._props.append(word)

    def _go(self, kind: str, place: str) -> None:
        if place not in PLACES:
            raise ValueError(f"{place!r} is no place")
        preposition = {"at": AT[place], "to": self.rng.choice(TO[place]), "the": ""}[kind]
        self._emit(self._cased(f"{preposition} the {place}".strip()))
        if not self._quoted:
            self.place = place

    def _meanwhile(self, place: str) -> None:
        if self._first or self._view or self._quoted or self.place is None:
            raise ValueError("a page has at most two places and no view then, and names its first place first")
        self._first = (self.place, self._actors(), tuple(self._props))
        self._begin()
        self._emit(f"{MEANWHILE}, ")
        self._go("at", place)
        self._emit(",")

    def _see(self, view: str, words: str) -> None:
        cue = VIEW.search(words)
        if not cue or VIEW_CUES[cue[0].lower()] != view or self._quoted or self._first:
            raise ValueError(f"no cue of a {view} view, inside quotes, or on a page of two places: {words!r}")
        self._view = view
        self._emit(words)

    def _cased(self, text: str) -> str:
        return text[0].upper() + text[1:] if self._capital else text

    def _person(self, letters: str, kind: str, what: str) -> None:
        if kind == ":":
            options, _, form = what.partition(".")
            cue = self.rng.choice(options.split(","))
            phrases = [p for p in FORMS[form][cue] if "HIS" not in p or self._clear(letters)]
            fresh = [p for p in phrases if not set(p.split()) & set(CUES) & set(re.findall(r"\w+", self._text))]
            phrase = self.rng.choice(fresh or phrases)
            self._verb(letters, re.sub("^was ", "were ", phrase) if len(letters) > 1 else phrase)
        elif kind == "~":
            self._verb(letters, what)
        elif what in ("is", "there", "new"):
            self._introduce(letters, what)
        elif what == "friends" and self._clear(letters):
            self._mention(letters, FRIENDS[len(letters)])
        elif what and what != "friends":
            self._pronoun(letters, what)
        else:
            again = self._again(letters)
            self._names(letters)
            self._emit(again)

    def _verb(self, letters: str, phrase: str) -> None:
        cues = [CUES[w] for w in re.findall(r"[a-z]+", phrase.lower()) if w in CUES]
        cues += ["walking"] * bool(re.search(r"\bset (off|out)\b", phrase)) + ["cheering"] * ("threw up" in phrase)
        if not cues or self._quoted:
            raise ValueError(f"no cue, or inside quotes: {phrase!r}")
        for cue in cues:
            for index in self._indices(letters):
                self._said.setdefault(index, {})["mood" if is_expression(cue) else "pose"] = cue
        parts = re.split(r"\bHIS\b", phrase)
        for number, part in enumerate(parts):
            if number:
                self._pronoun(letters, "his")
            self._emit(part)

    def _introduce(self, letter: str, what: str) -> None:
        if letter in self.known and not self._quoted:
            before, after = self._greeting(letter, what).split("NAME")
            self._emit(before)
            self._mention(letter, self.cast[letter].name)
            self._emit(after)
            return
        if letter in self.order or self._quoted:
            raise ValueError(f"{letter} is introduced twice, or inside quotes")
        member = self.cast[letter]
        level = self.said.get(letter, "look")
        pattern = self.rng.choice(NEWCOMER_PATTERNS[level][what])
        pattern = pattern.replace("SPECIES", member.appearance.species)
        pattern = pattern.replace("WEAR", wear(member.appearance, hat="hat" in SAID[level]))
        if "ADJ" in pattern:
            pattern = pattern.replace("ADJ", self.rng.choice(adjectives(member.appearance.species)))
        before, after = fix_articles(pattern).split("NAME")
        self.order.append(letter)
        self.discourse.pronouns.append(member.pronoun)
        self._emit(before)
        self._mention(letter, member.name)
        self._emit(after)

    def _greeting(self, letter: str, what: str) -> str:
        """How a character that the story knows comes on."""
        if letter in self.nameless:
            return self.rng.choice(NAMELESS[what]).replace("KIND", self.nameless.pop(letter))
        if letter in self.heroes:
            kind = self.cast[letter].kind
            fitting = [words for words in NAMED[what] if kind or "KIND" not in words]
            return self.rng.choice(fitting).replace("KIND", kind)
        return self.rng.choice(KNOWN[what])

    def _again(self, letters: str) -> str:
        """The user's word behind the name of a hero of an open beginning, now and then: "Zog the dragon"."""
        if letters not in self.heroes or self._quoted or not _ALONE.match(self._after):
            return ""
        kind, on_page = self.cast[letters].kind, self._indices(letters)[0] in self.discourse.page
        return f" the {kind}" if kind and not on_page and self.rng.random() < _KIND_AGAIN else ""

    def _pronoun(self, letters: str, form: str) -> None:
        plural = {"they": "he", "them": "him", "their": "his", "They": "He", "Their": "His"}
        form = plural.get(form, form)
        if form.lower() not in FORMS_OF["they"]:
            raise ValueError(f"unknown form {form!r}")
        pronoun = "they" if len(letters) > 1 else self.cast[letters].pronoun
        word = FORMS_OF[pronoun][form.lower()]
        if form == "self":
            self._emit(word)
        elif self._quoted or self._clear(letters):
            self._mention(letters, word.capitalize() if form[0].isupper() else word)
        else:
            self._names(letters, "'s" if form.lower() == "his" else "")

    def _names(self, letters: str, ending: str = "") -> None:
        for number, letter in enumerate(letters):
            if number:
                self._emit(" and " if number == len(letters) - 1 else ", ")
            last = number == len(letters) - 1
            self._mention(letter, self.cast[letter].name + (ending if last else ""))

    def _mention(self, letters: str, text: str) -> None:
        start = len(self._text)
        self._emit(text)
        if self._quoted:
            return
        indices = self._indices(letters)
        for index in indices:
            self._spans.append((start, len(self._text.removesuffix("'s")), index))
        if len(indices) == 1:
            self.discourse.mention(indices[0])
        else:
            self.discourse.mention_all(indices)

    def _clear(self, letters: str) -> bool:
        """Whether a pronoun for these characters would be understood."""
        pronoun = "they" if len(letters) > 1 else self.cast[letters].pronoun
        known = all(letter in self.order for letter in letters)
        return known and self.discourse.who(pronoun) == self._indices(letters)

    def _indices(self, letters: str) -> tuple[int, ...]:
        if not set(letters) <= set(self.order):
            raise ValueError(f"{letters} is not introduced yet")
        return tuple(sorted(self.order.index(letter) for letter in letters))


def choose(template: str, rng: random.Random) -> str:
    """Resolves the choices `[one|other]` of a template."""
    while "[" in template:
        template = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), template)
    return fix_articles(re.sub(r"  +", " ", template).strip())


def capitals(text: str) -> str:
    """Begins every sentence with a capital letter."""
    return re.sub(r'(^"?|[.!?] "?|\." "?)([a-z])', lambda found: found[1] + found[2].upper(), text)
