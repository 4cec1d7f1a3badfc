"""Who plays: names, pronouns and looks, for a split."""

from __future__ import annotations

import random

from data_tools.paper_theatre.names import names_of
from data_tools.paper_theatre.script import Member
from data_tools.paper_theatre.world import HATS, HELD_OUT_APPEARANCES, OUTFITS, PRONOUN_OF_SPECIES, SPECIES, Appearance

SPLITS = ("train", "heldout")


def cast(letters: str, split: str, rng: random.Random) -> dict[str, Member]:
    """Draws a cast: different species, outfits and names; the first two differ in pronoun.

    Args:
        letters: One letter per role, such as "abc".
        split: "train" never uses a held-out look or name. "heldout" uses held-out names only, and a held-out
            look for at least one role.
        rng: The random numbers.

    Returns:
        A member per letter.

    Raises:
        ValueError: The split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    pronouns = rng.choice((["he", "she"], ["she", "he"])) + [rng.choice(("he", "she"))]
    special = rng.randrange(len(letters)) if split == "heldout" else -1
    while True:
        appearances = [draw_appearance(split, rng, held_out=i == special) for i in range(len(letters))]
        distinct = all(
            len({getattr(appearance, key) for appearance in appearances}) == len(appearances)
            for key in ("species", "outfit")
        )
        fitting = all(fits(appearance, pronoun) for appearance, pronoun in zip(appearances, pronouns, strict=False))
        if distinct and fitting:
            break
    members: dict[str, Member] = {}
    for letter, pronoun, appearance in zip(letters, pronouns, appearances, strict=False):
        taken = {member.name for member in members.values()}
        # Different initials, so that nobody mixes the friends up.
        free = [n for n in names_of(split, pronoun) if n[0] not in {t[0] for t in taken}]
        members[letter] = Member(rng.choice(free), pronoun, appearance)
    return members


def fits(appearance: Appearance, pronoun: str) -> bool:
    """Whether a character of that look can be a "she" or a "he"; who wears the purple dress is a she."""
    return PRONOUN_OF_SPECIES.get(appearance.species, pronoun) == pronoun and (
        appearance.outfit != "purple dress" or pronoun == "she"
    )


def draw_appearance(split: str, rng: random.Random, held_out: bool = False) -> Appearance:
    """Draws a look; a held-out one, or any that is allowed in the split."""
    hat = rng.choice(HATS)
    if held_out:
        return Appearance(*rng.choice(sorted(HELD_OUT_APPEARANCES)), hat)
    while True:
        appearance = Appearance(rng.choice(SPECIES), rng.choice(OUTFITS), hat)
        if split == "heldout" or not appearance.held_out:
            return appearance
