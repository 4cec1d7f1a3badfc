"""Writes long stories: the same heroes in one plot after another, and only the first chapter says what they look like.

Later chapters call the heroes by name alone and cast them in other roles, so now and then one of them is away for a
chapter. Whoever draws page 100 must remember what was said before page 12, or keep seeing the heroes in between.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from data_tools.paper_theatre.casting import cast
from data_tools.paper_theatre.plots import Beat, Plot
from data_tools.paper_theatre.plots.plot import after_opening
from data_tools.paper_theatre.script import Member, Script, ScriptedPage
from data_tools.paper_theatre.stories import (
    FEW_WORDS,
    OPENING_BEAT,
    WORDS,
    Appearances,
    begin,
    choose_opening,
    draw_said,
    fill,
    opening_share,
    plots_of,
    write_beat,
)

# The last page of a chapter that has a page more than its plot.
EVENING = Beat(
    (
        (
            "{T:night} {ab} {ab~sat} by the window and talked about all that had happened.",
            "{T:night} {a} told {b} the whole story once more, from the beginning to the end.",
            "{T:dusk} {ab} {ab~walked} home side by side, and the way was not too long.",
        ),
        (
            '{b} {b:sleepy}. "What shall we do tomorrow?" {b.he} asked.',
            '"And tomorrow?" asked {b}. "Tomorrow is another story," said {a}, {a:sleepy,happy.ing}.',
            '{a} {a:happy}. "It was a good day," {a.he} said, and {b} {b:sleepy}.',
        ),
    ),
    plan="{a} and {b} end the day",
)
_NO_BEAT = -1  # number of the beat that is none of its plot's


@dataclass(frozen=True)
class LongStory:
    """A story of several chapters.

    Attributes:
        title: Its title.
        plots: Name of each chapter's plot.
        cast: The characters in order of first mention; the spans of the pages count in this order.
        pages: The pages of all chapters.
        beats: Number of each page's beat in its chapter's plot, from 0; -1 for an open beginning or an evening, which
            no plot has.
        plan: What happens on each page, in a few words; empty where a plot has no plan.
        said: As of `stories.GeneratedStory`.
    """

    title: str
    plots: tuple[str, ...]
    cast: tuple[Member, ...]
    pages: tuple[ScriptedPage, ...]
    beats: tuple[int, ...]
    plan: tuple[str, ...]
    said: dict[str, str]


def generate_long_story(
    seed: int,
    split: str,
    lengths: Sequence[int],
    added: Path | None = None,
    appearances: Appearances = "mixed",
    opening: bool | None = None,
) -> LongStory:
    """Writes one long story of three heroes; the same arguments always give the same story.

    Args:
        seed: Number of the story.
        split: One of `stories.SPLITS`, as for `stories.generate_story`.
        lengths: Pages of each chapter, such as `seedstory.layout.chapters` gives.
        added: Folder of plots that stand beside the shipped ones, or None.
        appearances: As for `stories.generate_story`.
        opening: The same; an open beginning is the first page of the first chapter, if a plot fits into the others.

    Raises:
        ValueError: The split is unknown, or no plot fits a chapter's number of pages.
    """
    rng = random.Random(f"long-{split}-{seed}")
    plots, cast_split = plots_of(split, added)
    spare = any(plot.cast == "abc" and _fits(plot, lengths[0] - 1) for plot in plots)  # a page for the beginning
    share = opening_share(appearances == "mixed", opening) if spare else 0.0
    begun = choose_opening(f"long-{split}-{seed}", split, len("abc"), share)
    members = cast("abc", cast_split, rng, begun.roles if begun else ())
    generated: list[str] = []
    pages: list[ScriptedPage] = []
    beats: list[int] = []
    plan: list[str] = []
    script = Script(members, {}, rng, said=draw_said("abc", appearances, rng))
    if begun:
        first = begin(script, begun, rng)
        pages, beats, plan = [first.page], [OPENING_BEAT], [first.plan]
    said = {members[letter].name: script.said[letter] for letter in members}
    few = bool(begun) or set(said.values()) != {"look"}
    for number, whole in enumerate(lengths):
        opens = begun is not None and number == 0
        length = whole - 1 if opens else whole
        plot = _next_plot(plots, length, generated, rng, all_heroes=number == 0)
        generated.append(plot.name)
        values = {key: rng.choice(choices) for key, choices in plot.values.items()}
        roles = _roles(members, rng) if number else members
        if opens:
            script.values = values
        else:
            script = script.next_chapter(roles, values)
        for at in _beats(plot, length, rng):
            part = EVENING if at == _NO_BEAT else plot.beats[at]
            beat = after_opening(part) if opens and at == 0 else part
            script, page = write_beat(beat, script, rng, FEW_WORDS if number or few else WORDS)
            pages.append(page)
            beats.append(at)
            plan.append(fill(part.plan, roles, values))
        if number == 0:
            heroes = tuple(members[letter] for letter in script.order)
    names = [member.name for member in heroes]
    title = rng.choice(("The Long Story of {}, {} and {}", "All the Adventures of {}, {} and {}")).format(*names)
    whole_plan = tuple(plan) if all(plan) else ()
    return LongStory(title, tuple(generated), heroes, tuple(pages), tuple(beats), whole_plan, said)


def _next_plot(
    plots: Sequence[Plot], length: int, generated: Sequence[str], rng: random.Random, all_heroes: bool
) -> Plot:
    """One of the plots used least often that fit into a chapter."""
    fitting = [plot for plot in plots if _fits(plot, length)]
    if all_heroes:
        fitting = [plot for plot in fitting if plot.cast == "abc"]
    if not fitting:
        raise ValueError(f"no plot fits a chapter of {length} pages: ask for other numbers of pages")
    fewest = min(generated.count(plot.name) for plot in fitting)
    return rng.choice([plot for plot in fitting if generated.count(plot.name) == fewest])


def _fits(plot: Plot, length: int) -> bool:
    return _needed(plot) <= length <= len(plot.beats) + 1


def _needed(plot: Plot) -> int:
    return sum(not part.optional for part in plot.beats)


def _beats(plot: Plot, length: int, rng: random.Random) -> list[int]:
    """The beats of a chapter: all that are needed, and as many others as there is room for."""
    spare = [i for i, part in enumerate(plot.beats) if part.optional]
    kept = set(rng.sample(spare, min(length - _needed(plot), len(spare))))
    beats = [i for i, part in enumerate(plot.beats) if not part.optional or i in kept]
    return beats if len(beats) == length else [*beats, _NO_BEAT]


def _roles(members: dict[str, Member], rng: random.Random) -> dict[str, Member]:
    """The heroes in other roles; as in every cast, the first two differ in pronoun."""
    casts = [dict(zip(members, order, strict=True)) for order in permutations(members.values())]
    return rng.choice([roles for roles in casts if roles["a"].pronoun != roles["b"].pronoun])
