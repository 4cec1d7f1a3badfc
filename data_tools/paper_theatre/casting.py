"""Who plays: names, pronouns and looks, for a split."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from data_tools.paper_theatre.names import names_of
from data_tools.paper_theatre.script import Member
from data_tools.paper_theatre.world import HATS, HELD_OUT_APPEARANCES, OUTFITS, PRONOUN_OF_SPECIES, SPECIES, Appearance

SPLITS = ("train", "heldout")
_HELD_OUT_OUTFIT = dict(HELD_OUT_APPEARANCES)
_FITTING = 0.9  # share of roles with an outfit of their own that wear it


@dataclass(frozen=True)
class Role:
    """What an open beginning asks of one of its heroes.

    Attributes:
        kind: The user's word for it.
        species: The figure that is drawn.
        pronoun: "he" or "she".
        outfit: What it wears, if the split allows that; or empty.
        hat: The same for the hat.
    """

    kind: str
    species: str
    pronoun: str
    outfit: str = ""
    hat: str = ""


def cast(letters: str, split: str, rng: random.Random, roles: Sequence[Role] = ()) -> dict[str, Member]:
    """Draws a cast: different species, outfits and names; the first two differ in pronoun.

    Args:
        letters: One letter per role, such as "abc".
        split: "train" never uses a held-out look or name. "heldout" uses held-out names only, and a held-out
            look for at least one role.
        rng: The random numbers.
        roles: What an open beginning asks of the first members.

    Returns:
        A member per letter.

    Raises:
        ValueError: The split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    pronouns = rng.choice((["he", "she"], ["she", "he"])) + [rng.choice(("he", "she"))]
    if roles:
        other = {"he": "she", "she": "he"}[roles[0].pronoun]
        pronouns = [role.pronoun for role in roles] + [roles[0].pronoun, other, pronouns[2]][len(roles) :]
    special = rng.randrange(len(letters)) if split == "heldout" else -1
    while True:
        if roles and special >= 0:
            special = rng.randrange(len(letters))
        appearances = [
            _appearance_of(roles[i], split, rng, held_out=i == special)
            if i < len(roles)
            else draw_appearance(split, rng, held_out=i == special)
            for i in range(len(letters))
        ]
        distinct = all(
            len({getattr(appearance, key) for appearance in appearances}) == len(appearances)
            for key in ("species", "outfit")
        )
        fitting = all(fits(appearance, pronoun) for appearance, pronoun in zip(appearances, pronouns, strict=False))
        if distinct and fitting:
            break
    members: dict[str, Member] = {}
    kinds = [role.kind for role in roles] + [""] * (len(letters) - len(roles))
    for letter, pronoun, appearance, kind in zip(letters, pronouns, appearances, kinds, strict=False):
        taken = {member.name for member in members.values()}
        # Different initials, so that nobody mixes the friends up.
        free = [n for n in names_of(split, pronoun) if n[0] not in {t[0] for t in taken}]
        members[letter] = Member(rng.choice(free), pronoun, appearance, kind)
    return members


def recast(members: Mapping[str, Member], split: str, rng: random.Random) -> dict[str, Member]:
    """The same names and pronouns with other appearances, as `cast` draws them.

    Args:
        members: A member per letter.
        split: As for `cast`.
        rng: The random numbers.
    """
    while True:
        drawn = cast("".join(members), split, rng)
        others = [drawn[letter].appearance for letter in members]
        pairs = list(zip(members.values(), others, strict=True))
        if all(
            fits(other, member.pronoun)
            and other.species != member.appearance.species
            and other.outfit != member.appearance.outfit
            and other.hat != member.appearance.hat
            for member, other in pairs
        ):
            return {
                letter: replace(member, appearance=other, kind="")
                for letter, (member, other) in zip(members, pairs, strict=True)
            }


def fits(appearance: Appearance, pronoun: str) -> bool:
    """Whether a character of that look can be a "she" or a "he"; who wears the purple dress is a she."""
    return PRONOUN_OF_SPECIES.get(appearance.species, pronoun) == pronoun and (
        appearance.outfit != "purple dress" or pronoun == "she"
    )


def _appearance_of(role: Role, split: str, rng: random.Random, held_out: bool) -> Appearance:
    """Draws a look that a role asks for."""
    hat = role.hat or rng.choice(HATS)
    if held_out:
        return Appearance(role.species, _HELD_OUT_OUTFIT[role.species], hat)
    allowed = [outfit for outfit in OUTFITS if split == "heldout" or _HELD_OUT_OUTFIT[role.species] != outfit]
    fitting = role.outfit in allowed and rng.random() < _FITTING
    return Appearance(role.species, role.outfit if fitting else rng.choice(allowed), hat)


def draw_appearance(split: str, rng: random.Random, held_out: bool = False) -> Appearance:
    """Draws a look; a held-out one, or any that is allowed in the split."""
    hat = rng.choice(HATS)
    if held_out:
        return Appearance(*rng.choice(sorted(HELD_OUT_APPEARANCES)), hat)
    while True:
        appearance = Appearance(rng.choice(SPECIES), rng.choice(OUTFITS), hat)
        if split == "heldout" or not appearance.held_out:
            return appearance
