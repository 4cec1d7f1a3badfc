"""Tells stories: a plot, a cast and a seed become pages of text with the scene of each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from data_tools.paper_theatre.casting import cast
from data_tools.paper_theatre.plots import Beat, Plot, load_plots
from data_tools.paper_theatre.script import Member, Script, ScriptedPage

# Of each split: whether its plots are the held-out ones, and whose names and looks it has.
SPLITS: dict[str, tuple[bool, str]] = {
    "train": (False, "train"),
    "heldout": (False, "heldout"),
    "heldout-plots": (True, "heldout"),
}
PAGES = range(8, 13)
WORDS = range(18, 41)
_TRIES = 60


@dataclass(frozen=True)
class GeneratedStory:
    """A whole story.

    Attributes:
        title: Its title.
        plot: Name of the plot.
        cast: The characters in order of first mention; the spans of the pages count in this order.
        pages: The pages.
    """

    title: str
    plot: str
    cast: tuple[Member, ...]
    pages: tuple[ScriptedPage, ...]


def generate_story(seed: int, split: str, plot: str | None = None, added: Path | None = None) -> GeneratedStory:
    """Tells one story; the same arguments always give the same story.

    Args:
        seed: Number of the story.
        split: One of `SPLITS`. "heldout" shares neither names nor held-out looks with "train", "heldout-plots" no plot
            either.
        plot: Name of a plot of the split, or None for the seed's own choice.
        added: Folder of plots that stand beside the shipped ones, or None.

    Returns:
        The story, 8 to 12 pages of 18 to 40 words.

    Raises:
        ValueError: The split is unknown, or the plot is none of its plots.
    """
    plots, cast_split = plots_of(split, added)
    rng = random.Random(f"{split}-{seed}")
    chosen = plots[rng.randrange(len(plots))] if plot is None else _plot(plot, plots)
    members = cast(chosen.cast, cast_split, rng)
    values = {key: rng.choice(choices) for key, choices in chosen.values.items()}
    script = Script(members, values, rng)
    pages = []
    for beat in _beats(chosen, rng):
        script, page = write_beat(beat, script, rng)
        pages.append(page)
    names = {letter: member.name for letter, member in members.items()}
    title = rng.choice(chosen.titles)
    for key, value in (names | values).items():
        title = title.replace(f"{{{key}}}", value)
    title = title[0].upper() + title[1:]
    return GeneratedStory(title, chosen.name, tuple(members[letter] for letter in script.order), tuple(pages))


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


def _beats(plot: Plot, rng: random.Random) -> list[Beat]:
    """The beats of this story: some optional ones, and the number of pages within bounds."""
    needed = sum(not beat.optional for beat in plot.beats)
    spare = [i for i, beat in enumerate(plot.beats) if beat.optional]
    low, high = max(PAGES[0] - needed, 0), min(PAGES[-1] - needed, len(spare))
    kept = set(rng.sample(spare, rng.randint(low, high)))
    return [beat for i, beat in enumerate(plot.beats) if not beat.optional or i in kept]


def write_beat(beat: Beat, script: Script, rng: random.Random, words: range = WORDS) -> tuple[Script, ScriptedPage]:
    """Writes a beat, in a wording of the right length; the script goes on from the one returned."""
    for _ in range(_TRIES):
        attempt = script.snapshot()
        page = attempt.page(" ".join(rng.choice(part) for part in beat.parts))
        if len(page.caption.split()) in words:
            return attempt, page
    raise ValueError(f"no wording of {words[0]} to {words[-1]} words in {_TRIES} tries: {beat.parts}")
