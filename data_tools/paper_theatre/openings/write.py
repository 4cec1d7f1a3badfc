"""Writes the first page of an open beginning: its words, its picture, and who is meant where."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_tools.paper_theatre.language import CUES, FORMS_OF, fix_articles, is_expression, wear
from data_tools.paper_theatre.openings.draw import Opening, facts_free
from data_tools.paper_theatre.openings.grammar import SLOT
from data_tools.paper_theatre.openings.inflect import inflect
from data_tools.paper_theatre.script import Member, ScriptedPage, capitals, choose
from data_tools.paper_theatre.world import PROP_SPOTS, PROPS, Actor, Scene

FIRST_WORDS = range(4, 41)
PLAN_WORDS = range(3, 13)
_TRIES = 200
_WITH_HAT = 0.7  # share of words on clothes that name the hat, too
_MY = {"HIS": "my", "HIM": "me"}
# How a wish is put, in the present and in the past.
_WISHES = (
    ("want to", "want to", "would love to", "would like to", "hope to", "wish to"),
    ("want to", "hope to", "wish to"),
)


@dataclass(frozen=True)
class OpeningPage:
    """A first page.

    Attributes:
        page: Its words and its picture.
        plan: What happens on it, in a few words.
        said: How much its words say of each hero's look, a key of `language.SAID` for each.
        references: How a later page takes up each hero that has no name yet, such as "the old dragon"; else empty.
    """

    page: ScriptedPage
    plan: str
    said: tuple[str, ...]
    references: tuple[str, ...]


def write_opening(opening: Opening, heroes: Sequence[Member], rng: random.Random) -> OpeningPage:
    """Writes an opening of the right length.

    Args:
        opening: The frame and what it says of its heroes.
        heroes: The heroes; the spans count in this order.
        rng: The random numbers.
    """
    for _ in range(_TRIES):
        written = _Writer(opening, heroes, rng).write()
        words, plan = len(written.page.caption.split()), len(written.plan.split())
        if words in FIRST_WORDS and plan in PLAN_WORDS and len(written.page.scene.props) <= len(PROP_SPOTS):
            return written
    raise ValueError(f"no first page of {FIRST_WORDS[0]} to {FIRST_WORDS[-1]} words: {opening.frame}")


class _Writer:
    """One try."""

    def __init__(self, opening: Opening, heroes: Sequence[Member], rng: random.Random) -> None:
        self.opening, self.heroes, self.rng = opening, heroes, rng
        self.everyone = tuple(range(len(heroes)))
        self.text = ""
        self.spans: list[tuple[int, int, int]] = []
        self.shown: dict[int, dict[str, str]] = {hero: {} for hero in self.everyone}
        self.said = ["species" if hero.kind == hero.appearance.species else "name" for hero in heroes]
        self.place, self.time, self.where = opening.kinds[0].home, "day", ""
        self.used: list[str] = []
        self.plan = ""

    def write(self) -> OpeningPage:
        template = choose(self.opening.frame, self.rng)
        end = 0
        for slot in SLOT.finditer(template):
            self._emit(template[end : slot.start()])
            heroes = (int(slot[2]) - 1,) if slot[2] else self.everyone
            self._fill(slot[1], heroes, bool(slot[3]))
            end = slot.end()
        self._emit(template[end:])
        narration = re.sub(r'"[^"]*"', "", self.text).lower()
        actors = tuple(
            Actor(hero.appearance, shown.get("pose", "standing"), shown.get("mood", "happy"), hero.name)
            for hero, shown in zip(self.heroes, self.shown.values(), strict=True)
        )
        props = tuple(dict.fromkeys(word for word in re.findall(r"[a-z]+(?:-[a-z]+)*", narration) if word in PROPS))
        page = ScriptedPage(capitals(self.text), Scene(self.place, self.time, actors, props), tuple(self.spans))
        references = ["" if self.opening.named else self.opening.reference(hero) for hero in self.everyone]
        return OpeningPage(page, self._whole_plan(), tuple(self.said), tuple(references))

    def _fill(self, slot: str, heroes: tuple[int, ...], past: bool) -> None:
        grammar = self.opening.grammar
        if slot in ("name", "names"):
            for number, hero in enumerate(heroes):
                self._emit("" if not number else " and " if number == len(heroes) - 1 else ", ")
                self._mention(self.heroes[hero].name, (hero,))
        elif slot in ("a", "the"):
            (hero,) = heroes
            self._noun(fix_articles(f"{slot} {self.opening.noun(hero)}"), (hero,))
        elif slot == "kind":
            self._emit(self.opening.kinds[heroes[0]].name)
        elif slot == "kinds":
            for words, meant in self.opening.group:
                self._noun(words, meant)
        elif slot in ("he", "him", "his", "they", "them", "their"):
            self._pronoun({"they": "he", "them": "him", "their": "his"}.get(slot, slot), heroes)
        elif slot == "wear":
            self._wear(heroes[0])
        elif slot in ("home", "at"):
            table = dict(grammar.homes) | (dict(grammar.spots) if slot == "at" else {})
            self.where = self.rng.choice(list(table))
            self.place = table[self.where]
            self._emit(self.where)
        elif slot == "time":
            words = self.rng.choice(list(grammar.times))
            self.time = grammar.times[words]
            self._emit(words)
        elif slot == "goal":
            goal = self._fact("wishes")
            self._phrase(goal, heroes)
            self._note(f"want to {goal}", heroes)
        else:
            self._say(slot, heroes, past)

    def _say(self, slot: str, heroes: tuple[int, ...], past: bool) -> None:
        """A fact of some heroes."""
        kinds = {"wish": "wishes", "state": "states", "event": "events"}
        kind = kinds.get(slot) or self.rng.choice(list(kinds.values()))
        fact = self._fact(kind)
        if kind == "wishes":
            fact = f"{self.rng.choice(_WISHES[past])} {fact}"
        self._note(fact, heroes)
        number = "several" if len(heroes) > 1 else "one"
        form = number if not past else "past several" if number == "several" else "past"
        self._phrase(inflect(fact, form, self.opening.grammar.verbs), heroes)
        self._show(fact, heroes)

    def _phrase(self, text: str, heroes: tuple[int, ...]) -> None:
        """A verb phrase with its pronouns; the heroes' own words say "my"."""
        for part in re.split(r"\b(HIS|HIM)\b", text):
            if part not in _MY:
                self._emit(part)
            elif self.text.count('"') % 2:
                self._emit(_MY[part])
            else:
                self._pronoun(part.lower(), heroes)

    def _fact(self, kind: str) -> str:
        texts = [text for text in self.opening.grammar.facts[kind] if facts_free(text, self.opening)]
        fact = self.rng.choice([text for text in texts if not self._alike(text)])
        self.used.append(fact)
        return fact

    def _alike(self, text: str) -> bool:
        """Whether a fact of the page begins or ends as this one does: no "has a cold and has a secret".

        Only one of all facts and adjectives shows a mood or a pose: nobody is sad and happy all day long.
        """
        words = text.split()
        shows = [not CUES.keys().isdisjoint(said.split()) for said in (text, *self.used, *self.opening.adjectives)]
        return (shows[0] and any(shows[1:])) or any(
            words[0] == used.split()[0] or words[-1] == used.split()[-1] for used in self.used
        )

    def _note(self, fact: str, heroes: tuple[int, ...]) -> None:
        """The first fact is the line of the plan."""
        if self.plan:
            return
        pronoun = self.heroes[heroes[0]].pronoun if len(heroes) == 1 else "they"
        words = inflect(fact, "one" if len(heroes) == 1 else "several", self.opening.grammar.verbs)
        words = words.replace("HIS", FORMS_OF[pronoun]["his"]).replace("HIM", FORMS_OF[pronoun]["him"])
        self.plan = self._short(heroes, words)

    def _whole_plan(self) -> str:
        if self.plan:
            return self.plan
        if not self.where:
            return self._short(self.everyone, "", "we meet ")
        return self._short(self.everyone, f"{'are' if len(self.everyone) > 1 else 'is'} {self.where}")

    def _short(self, heroes: tuple[int, ...], words: str, before: str = "") -> str:
        """A line of the plan, with the kinds if there is room."""
        for named in (True, False):
            names = [
                f"{self.heroes[i].name} the {self.heroes[i].kind}"
                if named and self.heroes[i].kind
                else self.heroes[i].name
                for i in heroes
            ]
            joined = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
            line = f"{before}{joined} {words}".strip()
            if len(line.split()) in PLAN_WORDS:
                break
        return line[0].upper() + line[1:]

    def _wear(self, hero: int) -> None:
        look = self.heroes[hero].appearance
        hat = look.hat == "none" or self.rng.random() < _WITH_HAT
        levels = ("look", "wear") if self.said[hero] == "species" else ("clothes", "outfit")
        self.said[hero] = levels[0 if hat else 1]
        self._emit(wear(look, hat=hat))

    def _noun(self, words: str, meant: tuple[int, ...]) -> None:
        """A noun phrase of the user's; it stands for its heroes where they have no names."""
        if meant and not self.opening.named:
            self._mention(words, meant)
        else:
            self._emit(words)
        if meant:
            self._show(words, meant)

    def _pronoun(self, form: str, heroes: tuple[int, ...]) -> None:
        pronoun = self.heroes[heroes[0]].pronoun if len(heroes) == 1 else "they"
        self._mention(FORMS_OF[pronoun][form], heroes)

    def _mention(self, words: str, heroes: tuple[int, ...]) -> None:
        start = len(self.text)
        self._emit(words)
        if self.text[:start].count('"') % 2 == 0:
            self.spans += [(start, len(self.text), hero) for hero in heroes]

    def _show(self, words: str, heroes: tuple[int, ...]) -> None:
        """Words of mood and pose show in the picture."""
        for word in re.findall(r"[a-z]+", words.lower()):
            if word in CUES:
                for hero in heroes:
                    self.shown[hero]["mood" if is_expression(CUES[word]) else "pose"] = CUES[word]

    def _emit(self, words: str) -> None:
        self.text += words
