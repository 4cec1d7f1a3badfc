"""Who plays: names, pronouns and looks, for a split."""

from __future__ import annotations

import random

from data_tools.paper_theatre.names import names_of
from data_tools.paper_theatre.script import Member
from data_tools.paper_theatre.world import HATS, HELD_OUT_LOOKS, OUTFITS, PRONOUN_OF_SPECIES, SPECIES, Look

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
        looks = [draw_look(split, rng, held_out=i == special) for i in range(len(letters))]
        distinct = all(len({getattr(look, key) for look in looks}) == len(looks) for key in ("species", "outfit"))
        fitting = all(fits(look, pronoun) for look, pronoun in zip(looks, pronouns, strict=False))
        if distinct and fitting:
            break
    members: dict[str, Member] = {}
    for letter, pronoun, look in zip(letters, pronouns, looks, strict=False):
        taken = {member.name for member in members.values()}
        # Different initials, so that nobody mixes the friends up.
        free = [n for n in names_of(split, pronoun) if n[0] not in {t[0] for t in taken}]
        members[letter] = Member(rng.choice(free), pronoun, look)
    return members


def fits(look: Look, pronoun: str) -> bool:
    """Whether a character of that look can be a "she" or a "he"; who wears the purple dress is a she."""
    return PRONOUN_OF_SPECIES.get(look.species, pronoun) == pronoun and (
        look.outfit != "purple dress" or pronoun == "she"
    )


def draw_look(split: str, rng: random.Random, held_out: bool = False) -> Look:
    """Draws a look; a held-out one, or any that is allowed in the split."""
    hat = rng.choice(HATS)
    if held_out:
        return Look(*rng.choice(sorted(HELD_OUT_LOOKS)), hat)
    while True:
        look = Look(rng.choice(SPECIES), rng.choice(OUTFITS), hat)
        if split == "heldout" or not look.held_out:
            return look
