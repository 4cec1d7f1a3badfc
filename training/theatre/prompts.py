"""Prompts of pages of the paper theatre, for models that draw from words.

A share of the prompts leaves looks unsaid. A model then draws anybody, and what keeps the characters of a story the
same has something to do.
"""

from __future__ import annotations

import random
from typing import Any

SAID = (("all", 0.5), ("species", 0.15), ("name", 0.35))  # how much prompts say of looks, and how often


def scene_prompt(truth: dict[str, Any], draw: random.Random) -> str:
    """A prompt from a page's ground truth.

    Args:
        truth: As in `StoryRecord.pages`.
        draw: Chooses how much is said of the looks of each character.

    Returns:
        Such as "Mia, a fox in a red coat and a top hat, waving, happy. Forest, night. Ball".
    """
    kinds, shares = [kind for kind, _ in SAID], [share for _, share in SAID]
    parts = []
    for actor in truth["actors"]:
        look = appearance_of(actor, draw.choices(kinds, shares)[0])
        parts.append(f"{actor['name']}{', ' + look if look else ''}, {actor['pose']}, {actor['expression']}.")
    where = truth.get("place") or " and ".join(truth.get("places", []))
    said = [f"{where}, {truth['time']}.".capitalize()]
    if truth.get("view", "middle") != "middle":
        said.append(f"{truth['view']} view.".capitalize())
    if truth.get("props"):
        said.append(f"{', '.join(truth['props'])}.".capitalize())
    return " ".join([*parts, *said])


def appearance_of(actor: dict[str, Any], said: str) -> str:
    """What a character looks like: of "all", "species" or "name", nothing with the last."""
    if said == "name":
        return ""
    article = "an" if actor["species"][0] in "aeiou" else "a"
    look = f"{article} {actor['species']}"
    if said == "all":
        wears = [actor["outfit"]] + ([] if actor["hat"] == "none" else [actor["hat"]])
        look += f" in {' and '.join(wears)}"
    return look
