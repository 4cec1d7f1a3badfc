"""Story states in the page loop: when they are written, read and pinned.

Shape legend: `T` tokens, `D` hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from seedstory.generation.sampling import page_generator
from seedstory.generation.state_sampler import StateSampler
from seedstory.generation.story_rows import StoryRows
from seedstory.story_state import StoryState


@dataclass
class OpeningStates:
    """What was read and written before the pictures of first pages, by row.

    Attributes:
        states: The story states.
        ids: Ids of what is read with `<img>`, in place of the caption.
        captions: Embeddings of the captions, `[T, D]`.
        hidden: Their hidden states, `[T, D]`.
    """

    states: dict[int, StoryState] = field(default_factory=dict)
    ids: dict[int, list[int]] = field(default_factory=dict)
    captions: dict[int, torch.Tensor] = field(default_factory=dict)
    hidden: dict[int, torch.Tensor] = field(default_factory=dict)


class StateWriter:
    """Writes the story states that stand before pages, and reads them.

    Args:
        rows: The stories.
        forbidden_ids: Ids that no line of a state may hold.
    """

    def __init__(self, rows: StoryRows, forbidden_ids: Sequence[int]) -> None:
        self.rows = rows
        self._forbidden_ids = forbidden_ids

    def read_opening_states(self, ids: list[list[int]]) -> OpeningStates:
        """Write the story states that stand in first pages, and read these pages' captions, which come before them.

        Args:
            ids: Ids of each story's caption.
        """
        rows = [row for row, story in enumerate(self.rows.stories) if story.opens_with_state]
        if not rows:
            return OpeningStates()
        captions = [self.rows.embed(own if row in rows else []) for row, own in enumerate(ids)]
        hidden = self.rows.read(captions)
        ends = [own[-1] if len(own) else self.rows.next[row] for row, own in enumerate(hidden[: len(ids)])]
        self.rows.next = torch.stack(ends)
        states, tokens = self._write(dict.fromkeys(rows, 1)), {}
        for row, state in states.items():
            story, start = self.rows.stories[row], self.rows.cache.rows[row].position
            tokens[row] = self.rows.layout.opening_state_ids(state, story.labels[1])
            story.read_states.append((1, self.rows.embed(tokens[row])))
            story.pin = (start, start + len(tokens[row]))
        return OpeningStates(states, tokens, {row: captions[row] for row in rows}, {row: hidden[row] for row in rows})

    def _write(self, pages: dict[int, int]) -> dict[int, StoryState]:
        """The story states of these pages, by row, given or written."""
        states: dict[int, StoryState] = {}
        samplers: dict[int, StateSampler] = {}
        for row, page in pages.items():
            story = self.rows.stories[row]
            given = story.states.get(page, StoryState())
            if page in story.fixed_states:
                states[row] = given
                continue
            given = replace(given, cast=given.cast or story.cast)
            samplers[row] = self.sampler(story.labels[page], given, story.seed_of(page), page)
        self.rows.decode(samplers, lambda row, scores: samplers[row](scores[row]), guided=False)
        states |= {row: sampler.state() for row, sampler in samplers.items()}
        for row, state in states.items():
            self.rows.stories[row].cast = state.cast or self.rows.stories[row].cast
        return states

    def sampler(self, label: int, given: StoryState | None, seed: int, page: int) -> StateSampler:
        return StateSampler(
            self.rows.sampling,
            self.rows.layout,
            label,
            given=given,
            forbidden_ids=self._forbidden_ids,
            generator=page_generator(seed, -page),
        )

    def open_pages(self, pieces: list[torch.Tensor]) -> dict[int, StoryState]:
        """Open pages, of which some have a story state before their label.

        Args:
            pieces: What each story reads before the state, or with its label if it has none, `[T, D]` each.

        Returns:
            The states, by row.
        """
        first = self.rows.read(pieces)[: len(pieces)]
        self.rows.next = torch.stack([hidden[-1] for hidden in first])
        waiting = {row: story.index for row, story in enumerate(self.rows.stories) if story.needs_state}
        states, pieces = self._write(waiting), [piece[:0] for piece in pieces]
        for row, state in states.items():
            story = self.rows.stories[row]
            own = self.rows.embed(self.rows.layout.state_ids(state, story.labels[story.index]))
            start = self.rows.cache.rows[row].position
            story.pin = (start, start + len(own))
            story.read_states.append((story.index, own))
            pieces[row] = torch.cat([own, self.rows.embed(self.rows.label_ids(story, story.index))])
        self.rows.open_pages(pieces, first)
        return states
