"""How a story state is written: its form is given, its words are the model's.

`V` is the vocabulary of captions, whose last token would end a caption.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import torch

from seedstory.errors import RequestError
from seedstory.generation.sampling import CaptionSampler, SamplingConfig
from seedstory.layout import StoryLayout
from seedstory.story_state import CAST, MAX_CAST, MAX_LINE, PLAN, StoryState, parse_character

MAX_LINE_TOKENS = 32  # of a line that the model writes; a longer one ends there


class StateSampler:
    """Chooses the tokens of one story state, line by line.

    The model writes characters until it writes the heading of the plan; then a line for each page, whose number is
    forced. What is given of either is forced, too: the model adds characters behind given ones, and writes the lines
    of the plan that are empty.

    Args:
        config: How words are chosen. Repetition is not penalized: a state repeats names on purpose.
        layout: The tokens.
        label: Number in the label of the page before which the state stands, and so the number of the plan's lines.
        given: What is given of the state. With a plan given in full, no characters are added to a given cast.
        forbidden_ids: Ids that no line may hold.
        generator: Random numbers; None for the default ones.
    """

    def __init__(
        self,
        config: SamplingConfig,
        layout: StoryLayout,
        label: int,
        *,
        given: StoryState | None = None,
        forbidden_ids: Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        given = given or StoryState()
        if given.plan and len(given.plan) != label:
            raise RequestError(f"the plan has {len(given.plan)} lines, but it shall have {label}: one for each page")
        self.layout, self.label = layout, label
        self._plan = list(given.plan) or [""] * label
        self._break = layout.line_ids("")[-1:]
        words = replace(
            config, repetition_penalty=1.0, no_repeat_ngram_size=0, min_caption_tokens=1, stop=(), max_sentences=0
        )
        self._sampler = CaptionSampler(
            words,
            end_id=self._break[0] if self._break else layout.eos_id,
            forbidden_ids=[*forbidden_ids, layout.image_start_id],
            generator=generator,
        )
        self._lines: list[str] = [CAST, *(f"{name}: {look}" for name, look in given.cast)]
        self._forced = deque(id for line in self._lines for id in layout.line_ids(line))
        self._line: list[int] | None = None  # ids of the line that the model writes; None within forced ones
        self._in_plan = False
        if all(self._plan) and given.cast:
            self._begin_plan()
        else:
            self._begin_character()

    def __call__(self, logits: torch.Tensor) -> int | None:
        """The next token from its scores `[V]`; None when the state is finished."""
        if self._forced:
            return self._forced.popleft()
        if self._line is None:
            return None
        token = self._sampler(logits, self._line)
        self._line.append(token)
        text = self.layout.tokenizer.decode(self._line)
        if "\n" not in text and len(self._line) < MAX_LINE_TOKENS:
            if not self._in_plan and text.strip() == PLAN:
                self._line = None
                self._begin_plan(heading=False)
            return token
        ended = "\n" in text
        self._end_line(text.split("\n")[0])
        if ended and self._forced and self._forced[0] == token:
            self._forced.popleft()  # the line break that ends a line begins the next one
        elif ended and self._line is None and not self._forced:
            return None
        return token

    def _begin_character(self) -> None:
        """Let the model begin a line of the cast, or the plan."""
        self._forced.extend(self._break)
        self._line = []

    def _begin_plan(self, heading: bool = True) -> None:
        self._in_plan = True
        self._lines.append(PLAN)
        if heading:
            self._forced.extend(self.layout.line_ids(PLAN))
        self._next_page(0)

    def _next_page(self, at: int) -> None:
        """Force the plan's given lines from `at` on and the number of the first that is the model's."""
        while at < self.label:
            head = f"{self.label - at}."
            if not self._plan[at]:
                self._forced.extend(self.layout.line_ids(head))
                self._at, self._line = at, []
                return
            self._forced.extend(self.layout.line_ids(f"{head} {self._plan[at]}"))
            at += 1
        self._line = None

    def _end_line(self, text: str) -> None:
        if self._in_plan:
            self._plan[self._at] = self._plain(text)
            self._next_page(self._at + 1)
            return
        self._lines.append(self._plain(text))
        self._line = None
        if len(self._lines) > MAX_CAST:
            self._begin_plan()
        else:
            self._begin_character()

    def _plain(self, text: str) -> str:
        return " ".join(self.layout.without_special_tokens(text).split())[:MAX_LINE]

    def state(self) -> StoryState:
        """What was written. A line of the cast that names nobody, or somebody again, is left out."""
        cast: dict[str, str] = {}
        for line in self._lines[1 : self._lines.index(PLAN) if PLAN in self._lines else None]:
            try:
                name, look = parse_character(line)
                StoryState(((name, look),))
            except RequestError:
                continue
            cast.setdefault(name, look)
        return StoryState(tuple(cast.items()), tuple(self._plan))
