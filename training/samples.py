"""Samples of stage 2: a story with its features, what of it is shown, and both as one packed batch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seedstory.layout import StoryLayout, collate, countdown
from seedstory.salience import find_names
from seedstory.storystream import StoryRecord
from training.backend import Backend
from training.features import PageFeatures, page_features
from training.recipes import NoRecipe, Recipe
from training.splits import open_split
from training.states import SampleStates, draw_states, unsaid_newcomers

if TYPE_CHECKING:
    from training.mllm import MllmConfig, StoryConfigOfRun


class StoryDataset:
    """The stories of a split with their features.

    Args:
        config: names data set and vision tower.
        split: which stories.
        backend: where the vision tower runs.
        recipe: reads their ground truth, if any does.
        limit: at most so many stories.
    """

    def __init__(
        self,
        config: StoryConfigOfRun,
        split: str,
        backend: Backend,
        recipe: Recipe | None = None,
        limit: int | None = None,
    ) -> None:
        self.records = [story.record for story in itertools.islice(open_split(config.data, split), limit)]
        if not self.records:
            raise ValueError(f"{config.data} has no story in the split {split!r}")
        tower = Path(config.stage1) / "vision_tower"
        with backend.main_process_first():
            self.features: PageFeatures = page_features(config.data, split, tower, backend.device)
        self.starts = [0, *itertools.accumulate(len(record.images) for record in self.records)]
        self.recipe: Recipe = recipe or NoRecipe()
        for record in self.records:
            self.recipe.check(record)

    def __len__(self) -> int:
        return len(self.records)

    def images(self, row: int) -> Tensor:
        """Features of a story's pictures [P, F, D], float32."""
        return self.features[self.starts[row] : self.starts[row + 1]].float()

    def page_rows(self, row: int) -> Tensor:
        """What the recipe's losses need to know of a story's pages [P, K]."""
        return self.recipe.page_rows(self.records[row])


@dataclass
class SampleDropout:
    """What one sample does not show.

    Attributes:
        pages: numbers of the pages that are shown.
        first_caption: whether the first page's caption is.
        no_caption: numbers of later pages whose captions are not.
        states: the story states that are shown.
    """

    pages: list[int]
    first_caption: bool = True
    no_caption: frozenset[int] = frozenset()
    states: SampleStates = field(default_factory=SampleStates)


def draw_dropout(
    record: StoryRecord, config: MllmConfig, choice: random.Random, recipe: Recipe | None = None
) -> SampleDropout:
    """Choose at random what a sample of a story leaves out, and which states it shows."""
    drop = _draw_pages(record, config, choice, recipe)
    settings = config.state_settings
    drop.states = draw_states(record, drop.pages, drop.first_caption, settings, choice)
    if drop.states.cast_shown_from is None and settings.drop_newcomers:
        new = sorted(unsaid_newcomers(record, all_names(record, recipe)).keys() & set(drop.pages[1:]))
        drop.no_caption = frozenset(page for page in new if choice.random() < settings.drop_newcomers)
    return drop


def _draw_pages(record: StoryRecord, config: MllmConfig, choice: random.Random, recipe: Recipe | None) -> SampleDropout:
    pages = list(range(len(record.captions)))
    if config.window and len(pages) > config.window:
        first = choice.randint(0, len(pages) - config.window)
        pages = pages[first : first + config.window]
    elif len(pages) > config.max_pages:
        return SampleDropout(later_window(record, config.max_pages, choice, recipe))
    first_caption = len(pages) == 1 or choice.random() >= config.image_only
    if len(pages) >= 5 and choice.random() < config.skipped:
        kept, gap = choice.randint(1, 2), choice.randint(1, len(pages) - 4)
        pages = pages[:kept] + pages[kept + gap :]
    return SampleDropout(pages, first_caption)


def later_window(record: StoryRecord, most: int, choice: random.Random, recipe: Recipe | None = None) -> list[int]:
    """At most `most` pages of a long story, as the `mm_sink` cache remembers it.

    They are the first page, some in a row, those where the characters of shown pages came in as far as there is room,
    and perhaps others from before.
    """
    least = min(3, most - 1)
    length = choice.randint(least, most - 1)
    start = choice.randint(0, len(record.captions) - length)
    came_in: dict[str, int] = {}
    names = [names_on(record, page, recipe) for page in range(len(record.captions))]
    for page, some in enumerate(names):
        for name in some:
            came_in.setdefault(name, page)

    def introducing(pages: set[int]) -> set[int]:
        return {came_in[name] for page in pages for name in names[page]} - pages

    def introduced(pages: set[int]) -> set[int]:
        missing = introducing(pages)
        return introduced(pages | missing) if missing else pages

    row = list(range(start, start + length))
    while len(row) > least and len(introduced({0, *row})) > most:
        row.pop()
    shown = {0, *row}
    while len(shown) < most and (missing := introducing(shown)):
        shown.add(min(missing))
    for page in choice.sample(range(start), choice.randint(0, start)):
        if len(more := introduced(shown | {page})) <= most:
            shown = more
    return sorted(shown)


def names_on(record: StoryRecord, page: int, recipe: Recipe | None = None) -> set[str]:
    """Names of who is on a page: by the ground truth of its picture where that names anybody, or else by its words."""
    truth = (record.pages[page] if record.pages else None) or {}
    known = recipe.names(truth) if recipe else None
    if known is not None:
        return known
    if "characters" in truth:
        return {someone["name"] for someone in truth["characters"] if "name" in someone}
    return set(find_names(record.captions[page]))


def collate_stories(
    layout: StoryLayout,
    stories: StoryDataset,
    rows: Sequence[int],
    drops: Sequence[SampleDropout],
    last_page_only: bool = False,
    mask: bool = True,
) -> dict[str, Any]:
    """Stories as keyword arguments of `StoryModel.forward`, and the `page_rows` of their recipe if it has losses.

    Without `mask` they come as from `collate` without it.
    """
    packed, features, page_rows = [], [], []
    for row, drop in zip(rows, drops, strict=True):
        record = stories.records[row]
        captions = [record.captions[page] for page in drop.pages]
        # A lone picture is given, never asked for: without a caption nothing says what it should show.
        shown = [page not in drop.no_caption for page in drop.pages]
        shown[0] = drop.first_caption
        known = appearances_known(record, drop, stories.recipe)
        asked = [page == len(captions) - 1 or not last_page_only for page in range(len(captions))]
        labels = countdown(len(record.captions))
        packed.append(
            layout.pack_story(
                captions,
                pages_left=[labels[page] for page in drop.pages],
                keep_caption=shown,
                supervise_caption=[
                    ask and foreseen for ask, foreseen in zip(asked, follows_previous(drop.pages), strict=True)
                ],
                supervise_image=[all(flags) for flags in zip(shown, asked, known, strict=True)],
                state_ids={
                    place: (layout.opening_state_ids if drop.states.in_opening and place == 1 else layout.state_ids)(
                        *state
                    )
                    for place, state in drop.states.states.items()
                },
                supervise_state=drop.states.learned,
                state_in_opening=drop.states.in_opening,
            )
        )
        features.append(stories.images(row)[drop.pages])
        if stories.recipe.loss_weights:
            page_rows.append(stories.page_rows(row)[drop.pages])
    batch: dict[str, Any] = collate(packed, mask=mask)
    batch["target_features"] = torch.cat(features)
    batch["context_features"] = batch["target_features"]
    if page_rows:
        batch["page_rows"] = torch.cat(page_rows)[batch["target_mask"]]
    return batch


def appearances_known(record: StoryRecord, drop: SampleDropout, recipe: Recipe | None = None) -> list[bool]:
    """Whether what comes before each shown page says what all on it look like: words, cast, or an earlier image."""
    names = all_names(record, recipe)
    hidden = {name for new in unsaid_newcomers(record, names).values() for name in new}
    cast_from = drop.states.cast_shown_from
    found, seen = [], set[str]()
    for place, page in enumerate(drop.pages):
        unsaid = hidden & names[page]
        found.append((cast_from is not None and place >= cast_from) or unsaid <= seen)
        seen |= unsaid
    return found


def all_names(record: StoryRecord, recipe: Recipe | None = None) -> list[set[str]]:
    """Names of who is on each page, see `names_on`; nobody where the record leaves no look unsaid."""
    if not record.extra.get("unsaid"):
        return [set()] * len(record.captions)
    return [names_on(record, page, recipe) for page in range(len(record.captions))]


def follows_previous(pages: list[int]) -> list[bool]:
    """Whether each page goes on from the one before; what is behind a gap nobody could foresee."""
    return [True, *(page == before + 1 for before, page in itertools.pairwise(pages))]
