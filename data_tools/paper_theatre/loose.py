"""Single pages with uniformly random scenes, to show the image models every combination."""

from __future__ import annotations

import random

from data_tools.paper_theatre.casting import cast
from data_tools.paper_theatre.script import Script, ScriptedPage
from data_tools.paper_theatre.world import EXPRESSIONS, PLACES, POSES, PROPS, TIMES

LAYOUTS = ("middle", "middle", "middle", "near", "wide", "split")
_SEEN = {
    "near": ("{near:so close that you could count the eyelashes}", "{near:nose to nose with the reader}"),
    "wide": ("{wide:under the wide sky}", "{wide:as far as the eye could see}", "{wide:no bigger than a dot}"),
}
_OPENING = {"day": "oneday", "dusk": "oneevening", "night": "onenight"}


def single_page(seed: int, split: str) -> ScriptedPage:
    """One page, uniform over looks of the split, poses, expressions, places, times, props and one to three actors.

    A page in six is seen from near, one in six is wide, one in six shows two places.

    Args:
        seed: Number of the page.
        split: "train" or "heldout".

    Returns:
        A page whose caption `reader.Reader` reads as the first page of a story.
    """
    rng = random.Random(f"loose-{split}-{seed}")
    layout = rng.choice(LAYOUTS)
    least, most = {"near": (1, 2), "split": (2, 3)}.get(layout, (1, 3))
    letters = "abc"[: rng.randint(least, most)]
    script = Script(cast(letters, split, rng), {}, rng)
    place, elsewhere = rng.sample(PLACES, 2)
    opening = f"{{t:{_OPENING[rng.choice(TIMES)]}}}"
    if layout in _SEEN:
        opening += f", {rng.choice(_SEEN[layout])},"
    halves = [letters]
    if layout == "split":
        cut = rng.randint(max(1, len(letters) - 2), min(2, len(letters) - 1))
        halves = [letters[:cut], letters[cut:]]
    sentences = _half(f"{opening} {{at:{place}}},", halves[0], rng)
    if len(halves) > 1:
        sentences += _half(f"{{meanwhile:{elsewhere}}}", halves[1], rng)
    return script.page(" ".join(sentences))


def _half(opening: str, letters: str, rng: random.Random) -> list[str]:
    """The sentences of one place: who is there, what each does and feels, what lies about."""
    first = letters[0]
    sentences = [f"{opening} {{{first}.there}}."]
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
        if letter != first:
            sentences.append(rng.choice((f"{{{letter}.is}}.", f"beside {{{first}.him}} was {{{letter}.new}}.")))
        if said:
            sentences.append(f"{{{letter}.he}} {' and '.join(said)}.")
    props = rng.sample(PROPS, rng.randint(0, 2))
    if props:
        line = rng.choice(("There was a {} nearby.", "On the ground lay a {}.", "A {} lay close by.", "Look, a {}!"))
        sentences.append(line.format(" and a ".join(f"{{{prop}}}" for prop in props)))
    return sentences
