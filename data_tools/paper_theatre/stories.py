"""Writes stories: a plot, a cast and a seed become pages of text with the scene of each, and the plan of them all."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_tools.paper_theatre.casting import cast
from data_tools.paper_theatre.casting import recast as cast_again
from data_tools.paper_theatre.openings import Opening, OpeningPage, draw_opening, write_opening
from data_tools.paper_theatre.plots import Beat, Plot, load_plots
from data_tools.paper_theatre.plots.plot import after_opening
from data_tools.paper_theatre.script import Member, Script, ScriptedPage

# Of each split: whether its plots are the held-out ones, and whose names and looks it has.
SPLITS: dict[str, tuple[bool, str]] = {
    "train": (False, "train"),
    "heldout": (False, "heldout"),
    "heldout-plots": (True, "heldout"),
}
PAGES = range(8, 13)
SHORT_PAGES = range(4, 7)  # of a story made of core beats alone
WORDS = range(18, 41)
# Where introductions say little or nothing, some wordings are shorter.
FEW_WORDS = range(14, WORDS.stop)
Appearances = Literal["mixed", "said", "shown"]
OPENING_BEAT = -1  # number of the beat of an open beginning, which no plot has
OPEN = 0.25  # share of stories with an open beginning, where the words say now more of looks, now less
_TRIES = 60
_SHORT = 0.25  # share of short stories
_ALL_SAID = 0.4  # share of stories whose words say all looks, if looks are mixed
_SAYS = {"look": 0.2, "wear": 0.15, "species": 0.4, "name": 0.25}  # of each character in the others


@dataclass(frozen=True)
class GeneratedStory:
    """A whole story.

    Attributes:
        title: Its title.
        plot: Name of the plot.
        cast: The characters in order of first mention; the spans of the pages count in this order.
        pages: The pages.
        beats: Number of each page's beat in its plot, from 0; -1 for an open beginning.
        plan: What happens on each page, in a few words; empty where the plot has no plan.
        said: How much the words say of each character's look, by name: a key of `language.SAID`.
    """

    title: str
    plot: str
    cast: tuple[Member, ...]
    pages: tuple[ScriptedPage, ...]
    beats: tuple[int, ...]
    plan: tuple[str, ...]
    said: dict[str, str]


def generate_story(
    seed: int,
    split: str,
    plot: str | None = None,
    added: Path | None = None,
    appearances: Appearances = "mixed",
    opening: bool | None = None,
    recast: bool = False,
) -> GeneratedStory:
    """Writes one story; the same arguments always give the same story.

    Args:
        seed: Number of the story.
        split: One of `SPLITS`. "heldout" shares neither names nor held-out looks with "train", "heldout-plots" no plot
            either.
        plot: Name of a plot of the split, or None for the seed's own choice.
        added: Folder of plots that stand beside the shipped ones, or None.
        appearances: Whether the words say what the characters look like ("said"), leave it to the pictures ("shown":
            names alone), or now one, now the other ("mixed").
        opening: Whether the first page is an open beginning (`openings`), or None for the seed's own choice: a quarter
            of the stories with mixed looks, none of the others.
        recast: Whether the characters have other appearances than the seed gives them. Where the words say nothing of
            appearances ("shown"), they are the same words.

    Returns:
        The story, 8 to 12 pages, or 4 to 6, of 14 to 40 words, and of 18 or more where all looks are said. An open
        beginning has 4 to 40 words; a short story has one page more with it.

    Raises:
        ValueError: The split is unknown, or the plot is none of its plots.
    """
    plots, cast_split = plots_of(split, added)
    rng = random.Random(f"{split}-{seed}")
    chosen = plots[rng.randrange(len(plots))] if plot is None else _plot(plot, plots)
    begun = choose_opening(f"{split}-{seed}", split, len(chosen.cast), opening_share(appearances == "mixed", opening))
    members = cast(chosen.cast, cast_split, rng, begun.roles if begun else ())
    if recast:
        members = cast_again(members, cast_split, random.Random(f"recast-{split}-{seed}"))
    values = {key: rng.choice(choices) for key, choices in chosen.values.items()}
    script = Script(members, values, rng, said=draw_said(chosen.cast, appearances, rng))
    words = WORDS if not begun and set(script.said.values()) <= {"look"} else FEW_WORDS
    beats = _beats(chosen, rng, before=1 if begun else 0)
    plan = [fill(chosen.beats[number].plan, members, values) for number in beats]
    pages = []
    if begun:
        first = begin(script, begun, rng)
        pages.append(first.page)
        plan.insert(0, first.plan if all(plan) else "")
    for number in beats:
        beat = chosen.beats[number]
        script, page = write_beat(after_opening(beat) if begun and number == 0 else beat, script, rng, words)
        pages.append(page)
    beats = [OPENING_BEAT, *beats] if begun else beats
    return GeneratedStory(
        title=fill(rng.choice(chosen.titles), members, values),
        plot=chosen.name,
        cast=tuple(members[letter] for letter in script.order),
        pages=tuple(pages),
        beats=tuple(beats),
        plan=tuple(plan) if all(plan) else (),
        said={members[letter].name: script.said.get(letter, "look") for letter in script.order},
    )


def choose_opening(key: str, split: str, most: int, share: float) -> Opening | None:
    """The open beginning of a story of at most so many heroes, or None; `share` of all stories have one."""
    rng = random.Random(f"opening-{key}")
    return draw_opening(split, most, rng) if rng.random() < share else None


def opening_share(mixed: bool, wanted: bool | None) -> float:
    """Share of stories with an open beginning; `wanted` as `opening` of `generate_story`."""
    return float(mixed) * OPEN if wanted is None else float(wanted)


def begin(script: Script, opening: Opening, rng: random.Random) -> OpeningPage:
    """Writes an open beginning; the script goes on after it."""
    letters = list(script.cast)[: len(opening.roles)]
    first = write_opening(opening, [script.cast[letter] for letter in letters], rng)
    script.begin(first.page, dict(zip(letters, first.references, strict=True)))
    script.said = dict(script.said) | dict(zip(letters, first.said, strict=True))
    return first


def draw_said(letters: str, appearances: Appearances, rng: random.Random) -> dict[str, str]:
    """How much the words say of the look of each role, a key of `language.SAID`."""
    if appearances == "shown":
        return dict.fromkeys(letters, "name")
    if appearances == "said" or rng.random() < _ALL_SAID:
        return dict.fromkeys(letters, "look")
    return {letter: rng.choices(list(_SAYS), list(_SAYS.values()))[0] for letter in letters}


def fill(text: str, members: Mapping[str, Member], values: Mapping[str, str]) -> str:
    """A title or a line of a plan with its names and values."""
    for key, value in ({letter: member.name for letter, member in members.items()} | dict(values)).items():
        text = text.replace(f"{{{key}}}", value)
    return text[:1].upper() + text[1:]


def plots_of(split: str, added: Path | None = None) -> tuple[tuple[Plot, ...], str]:
    """The plots of a split, and the split whose names and looks its casts have; `added` as for `generate_story`."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    held_out, cast_split = SPLITS[split]
    return tuple(plot for plot in load_plots(added) if plot.held_out == held_out), cast_split


def _plot(name: str, plots: tuple[Plot, ...]) -> Plot:
    for plot in plots:
        if plot.name == name:
            return plot
    raise ValueError(f"unknown plot {name!r} in this split: choose one of {', '.join(plot.name for plot in plots)}")


def _beats(plot: Plot, rng: random.Random, before: int = 0) -> list[int]:
    """The beats of this story: some optional ones, so that the pages are within bounds; or a short one's core.

    `before` is the number of pages that are none of the plot's.
    """
    core = [i for i, beat in enumerate(plot.beats) if beat.core]
    if core and rng.random() < _SHORT:
        return core
    needed = sum(not beat.optional for beat in plot.beats)
    spare = [i for i, beat in enumerate(plot.beats) if beat.optional]
    taken = needed + before
    low, high = max(PAGES[0] - taken, 0), max(min(PAGES[-1] - taken, len(spare)), 0)
    kept = set(rng.sample(spare, rng.randint(low, high)))
    return [i for i, beat in enumerate(plot.beats) if not beat.optional or i in kept]


def write_beat(beat: Beat, script: Script, rng: random.Random, words: range = WORDS) -> tuple[Script, ScriptedPage]:
    """Writes a beat, in a wording of the right length; the script goes on from the one returned."""
    for _ in range(_TRIES):
        attempt = script.snapshot()
        page = attempt.page(" ".join(rng.choice(part) for part in beat.parts))
        if len(page.caption.split()) in words:
            return attempt, page
    raise ValueError(f"no wording of {words[0]} to {words[-1]} words in {_TRIES} tries: {beat.parts}")
