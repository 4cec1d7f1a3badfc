"""Single pages with uniformly random scenes, to show the image models every combination."""

from __future__ import annotations

import random

from data_tools.paper_theatre.casting import cast
from data_tools.paper_theatre.script import Page, Script
from data_tools.paper_theatre.world import EXPRESSIONS, PLACES, POSES, PROPS, TIMES

_OPENING = {"day": "oneday", "dusk": "oneevening", "night": "onenight"}


def loose_page(seed: int, split: str) -> Page:
    """One page, uniform over looks of the split, poses, expressions, places, times, props and one to three actors.

    Args:
        seed: Number of the page.
        split: "train" or "heldout".

    Returns:
        A page whose caption `reader.Reader` reads as the first page of a story.
    """
    rng = random.Random(f"loose-{split}-{seed}")
    letters = "abc"[: rng.randint(1, 3)]
    script = Script(cast(letters, split, rng), {}, rng)
    sentences = [f"{{t:{_OPENING[rng.choice(TIMES)]}}} {{at:{rng.choice(PLACES)}}}, {{a.there}}."]
    for letter in letters:
        pose, mood = rng.choice(POSES), rng.choice(EXPRESSIONS)
        said = [f"{{{letter}:{pose}}}", f"{{{letter}:{mood}}}"]
        if (pose, mood) == ("standing", "happy") and rng.random() < 0.3:
            said = []
        elif pose == "standing" and rng.random() < 0.5:
            said = said[1:]
        elif mood == "happy" and rng.random() < 0.5:
            said = said[:1]
        rng.shuffle(said)
        if letter != "a":
            sentences.append(rng.choice((f"{{{letter}.is}}.", f"beside {{a.him}} was {{{letter}.new}}.")))
        if said:
            sentences.append(f"{{{letter}.he}} {' and '.join(said)}.")
    props = rng.sample(PROPS, rng.randint(0, 2))
    if props:
        line = rng.choice(("There was a {} nearby.", "On the ground lay a {}.", "A {} lay close by.", "Look, a {}!"))
        sentences.append(line.format(" and a ".join(f"{{{prop}}}" for prop in props)))
    return script.page(" ".join(sentences))
