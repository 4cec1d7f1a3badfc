"""Draws an open beginning: its frame, and who its heroes are."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from data_tools.paper_theatre.casting import Role
from data_tools.paper_theatre.language import CUES, fix_articles
from data_tools.paper_theatre.openings.grammar import DEFAULT_PLACE, PEOPLE, SLOT, Grammar, Kind, load_grammar
from data_tools.paper_theatre.world import HELD_OUT_APPEARANCES

_HEROES = {1: 0.62, 2: 0.28, 3: 0.1}  # share of beginnings with so many heroes
_ADJECTIVE = 0.3  # share of heroes with an adjective
_NO_AGE = frozenset(("boy", "girl", "child", "elder", "grandmother", "grandfather"))  # figures that say how old
_TRIES = 1000
_HELD_OUT_OUTFIT = dict(HELD_OUT_APPEARANCES)
_ONE_OF = {
    2: ("one of the two {}", "the other one of the two {}"),
    3: ("one of the three {}", "another of the three {}", "the third of the {}"),
}


@dataclass(frozen=True)
class Opening:
    """What is known of a beginning before its heroes have names.

    Attributes:
        frame: The frame.
        roles: What it asks of each hero.
        kinds: The kind of each hero.
        adjectives: What is said of each hero; may be empty.
        group: All heroes in one phrase, and how far each one's words reach in it: "two penguins" is each of them.
        grammar: The words that it is made of.
    """

    frame: str
    roles: tuple[Role, ...]
    kinds: tuple[Kind, ...]
    adjectives: tuple[str, ...]
    group: tuple[tuple[str, tuple[int, ...]], ...]
    grammar: Grammar

    @property
    def named(self) -> bool:
        """Whether its words name the heroes."""
        return "{name" in self.frame

    def noun(self, hero: int) -> str:
        """Adjective and kind of a hero."""
        return f"{self.adjectives[hero]} {self.kinds[hero].name}".strip()

    def reference(self, hero: int) -> str:
        """How later words take up a hero without a name: "the old dragon"; no adjective that would show a mood."""
        if any(len(heroes) > 1 for _, heroes in self.group):
            return _ONE_OF[len(self.kinds)][hero].format(self.kinds[hero].plural)
        plain = not any(word in CUES for word in self.adjectives[hero].split())
        return f"the {self.noun(hero) if plain else self.kinds[hero].name}"


def draw_opening(split: str, most: int, rng: random.Random) -> Opening:
    """Draws a beginning.

    Args:
        split: "train" has the training words only, every other split the held-out ones only.
        most: How many heroes the plot has room for.
        rng: The random numbers.
    """
    grammar = load_grammar(split != "train")
    counts = [count for count in _HEROES if count <= most]
    count = rng.choices(counts, [_HEROES[n] for n in counts])[0]
    frame = rng.choice(grammar.frames[count])
    alike = count > 1 and not any(digit and slot in ("kind", "a", "the") for slot, digit, _ in SLOT.findall(frame))
    for _ in range(_TRIES):
        opening = _draw(grammar, frame, count, alike, rng)
        if opening and (split == "train" or most > 1 or _can_be_held_out(opening.roles[0])):
            return opening
    raise ValueError(f"no heroes fit this frame in {_TRIES} tries: {frame}")


def _draw(grammar: Grammar, frame: str, count: int, alike: bool, rng: random.Random) -> Opening | None:
    """One try."""
    first = rng.choice(("he", "she"))
    pronouns = [first, "she" if first == "he" else "he", rng.choice(("he", "she"))][:count]
    names = list(grammar.kinds)
    style = rng.random() if count > 1 else 1.0
    link = ""
    if count == 2 and style < 0.3:
        one, link, other = rng.choice(grammar.pairs)
        chosen = [one, other]
        pronouns = ["he", "she"] if link == "his" else ["she", "he"]
    elif alike and style < 0.55:
        chosen = [rng.choice(names)] * count
    else:
        chosen = rng.sample(names, count)
    kinds = tuple(grammar.kinds[name] for name in chosen)
    if any(kind.pronoun not in ("", pronoun) for kind, pronoun in zip(kinds, pronouns, strict=True)):
        return None
    adjectives = [rng.choice(grammar.adjectives) if rng.random() < _ADJECTIVE and not link else "" for _ in kinds]
    if count > 1 and chosen[0] == chosen[1]:
        adjectives = adjectives[:1] * count
    adjectives = [_fitting(adjective, kind) for adjective, kind in zip(adjectives, kinds, strict=True)]
    roles: list[Role] = []
    for kind, pronoun, adjective in zip(kinds, pronouns, adjectives, strict=True):
        species = _figure(kind, pronoun, "old" in adjective.split(), {role.species for role in roles})
        if not species:
            return None
        role = Role(kind.name, species, pronoun, kind.outfit, kind.hat)
        if role.outfit in {other.outfit for other in roles} or (role.outfit == "purple dress" and pronoun == "he"):
            role = replace(role, outfit="")
        roles.append(role)
    if not any(slot in ("kind", "kinds", "a", "the") for slot, *_ in SLOT.findall(frame)):
        roles = [Role("", role.species, role.pronoun) for role in roles]
        kinds = tuple(replace(kind, home=DEFAULT_PLACE) for kind in kinds)
    group = _group(kinds, adjectives, link)
    return Opening(frame, tuple(roles), kinds, tuple(adjectives), group, grammar)


def _fitting(adjective: str, kind: Kind) -> str:
    """The adjective, or nothing where the kind says something of its own of it."""
    ages = {"young", "old", "small", "tiny", "very", "big"} & set(adjective.split())
    says_more = " " in kind.name and bool({"little", "old", "kind", "friendly"} & set(kind.name.split()))
    return "" if says_more or (ages and (_NO_AGE & set(kind.figures) or "giant" in kind.name)) else adjective


def _figure(kind: Kind, pronoun: str, old: bool, taken: set[str]) -> str:
    """The nearest figure that is free; empty where there is none."""
    for figure in kind.figures:
        near = [PEOPLE[figure][pronoun]] if figure in PEOPLE else [figure]
        if figure == "person":
            near.insert(0 if old else 1, PEOPLE["elder"][pronoun])
        for species in near:
            if species not in taken:
                return species
    return ""


def _group(kinds: tuple[Kind, ...], adjectives: list[str], link: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Pieces of the phrase for all heroes, each with the heroes that it means."""
    everyone = tuple(range(len(kinds)))
    if len(kinds) > 1 and kinds[0] == kinds[1]:
        number = {2: "two", 3: "three"}[len(kinds)]
        return ((" ".join(f"{number} {adjectives[0]} {kinds[0].plural}".split()), everyone),)
    nouns = [fix_articles(f"a {f'{adjectives[i]} {kind.name}'.strip()}") for i, kind in enumerate(kinds)]
    if link:
        nouns[1] = f"{link} {kinds[1].name}"
    pieces: list[tuple[str, tuple[int, ...]]] = []
    for i, noun in enumerate(nouns):
        if i:
            pieces.append((" and " if i == len(nouns) - 1 else ", ", ()))
        pieces.append((noun, (i,)))
    return tuple(pieces)


def _can_be_held_out(role: Role) -> bool:
    return role.pronoun == "she" or _HELD_OUT_OUTFIT[role.species] != "purple dress"


def facts_free(text: str, opening: Opening) -> bool:
    """Whether a fact may be said of the heroes of an opening."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    table = opening.grammar.contradictions
    return not any(word in words and kind.name in names for word, names in table.items() for kind in opening.kinds)
