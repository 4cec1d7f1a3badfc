"""Stories under way as rows of the cache: they join and leave it between pages, are read into it and decoded from it.

A story is a row. With guidance of the text it has a second row, its partner, which knows the page's label and the
caption, but not the story; the partners lie behind all stories, in the same order.

Shape legend: `B` rows, `T` tokens, `D` hidden width, `V` vocabulary of captions.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import torch

from seedstory.cache import CachePolicy, StoryCache
from seedstory.generation.active_story import ActiveStory
from seedstory.generation.decoding import Cast, Step
from seedstory.generation.forward import embed_ids, forward_rows
from seedstory.generation.sampling import SamplingConfig
from seedstory.generation.state_sampler import MAX_LINE_TOKENS
from seedstory.layout import StoryLayout
from seedstory.modeling import StoryModel
from seedstory.salience import Salience
from seedstory.story_state import MAX_CAST, StoryState


class StoryRows:
    """Stories under way, and what the language model has read of them.

    Args:
        model: The model.
        layout: The tokens.
        policy: What the cache keeps.
        sampling: How captions are chosen.
        step: Decodes a token.
        cast: As `seedstory.generation.decoding.autocast` gives it.
        salience: Which names a caption mentions.

    Attributes:
        stories: The stories, in the order of their rows.
        cache: Keys and values, a row for each story and then one for each partner.
        next: Hidden states before the next token of each row, `[B, D]`.
    """

    def __init__(
        self,
        model: StoryModel,
        layout: StoryLayout,
        policy: CachePolicy,
        sampling: SamplingConfig,
        step: Step,
        cast: Cast,
        salience: Salience,
    ) -> None:
        self.model, self.layout, self.policy, self.sampling = model, layout, policy, sampling
        self.step, self.cast, self.salience = step, cast, salience
        self.is_guided = sampling.text_guidance_scale != 1
        self.stories: list[ActiveStory] = []
        self.cache = StoryCache(model.llm, policy, salience=salience)
        self.next = torch.empty(0)

    # ------------------------------------------------------------------------------------------------ join and leave

    def change(self, joining: Sequence[ActiveStory], leaving: Collection[int] = ()) -> None:
        """Let stories join and leave between pages; those that join read what opens their first page.

        Args:
            joining: Stories of which nothing is read yet.
            leaving: Numbers of stories.
        """
        staying = [row for row, story in enumerate(self.stories) if story.number not in leaving]
        order: list[int | None] = [*staying, *[None] * len(joining)]
        if self.is_guided:
            order += [None if row is None else row + len(self.stories) for row in order]
        self.stories = [*(self.stories[row] for row in staying), *joining]
        if not self.stories:
            return
        capacity = self._capacity() if self.step.static else None
        if staying:
            self.cache.select(order)
            if capacity is not None:
                self.cache.enlarge(capacity)
        elif len(self.cache.rows) == len(order) and self.cache.capacity == capacity:
            self.cache.reset()
        else:
            self.cache = StoryCache(
                self.model.llm, self.policy, stories=len(order), capacity=capacity, salience=self.salience
            )
        own = [self.embed([] if row is not None else self.opening_ids(story)) for row, story in self._owners(order)]
        read = self.read(own) if joining else own
        ends = [hidden[-1] if row is None else self.next[row] for row, hidden in zip(order, read, strict=True)]
        self.next = torch.stack(ends)

    def keep(self, rows: Sequence[int]) -> None:
        """Let all stories but these go, when a page has ended and the next ones are not yet opened."""
        if len(rows) < len(self.stories):
            self.cache.select(self.with_partners(rows))
            self.stories = [self.stories[row] for row in rows]

    def _owners(self, rows: Sequence[int | None]) -> list[tuple[int | None, ActiveStory]]:
        """Each row with its story; partners belong to the same ones."""
        return [(row, self.stories[at % len(self.stories)]) for at, row in enumerate(rows)]

    def _capacity(self) -> int:
        """Tokens that a row of the static cache may come to hold."""
        page = 0
        for story in self.stories:
            given = [len(self.layout.caption_ids(opening.caption or "")) for opening in story.opening]
            caption = max([self.sampling.max_caption_tokens, *given])
            label = max(len(self.layout.page_label_ids(label)) for label in story.labels)
            page = max(page, label + caption + self.layout.num_visual_tokens + 2)
        longest = max(story.pages for story in self.stories)
        states = max((self._state_tokens(story) for story in self.stories), default=0)
        sinks = self.policy.most_sinks(longest, page, self.layout.num_visual_tokens)
        pages = longest if self.policy.name == "dense" else min(longest, self.policy.window_pages)
        needed = len(self.layout.opening_ids) + sinks + (pages + 2) * page + states
        return -(-needed // 64) * 64

    def _state_tokens(self, story: ActiveStory) -> int:
        """Most tokens of story states that a row may come to hold: of those that a whole window can lie between."""
        most = [
            (MAX_CAST + story.labels[page] + 2) * (MAX_LINE_TOKENS + 8)
            + len(self.layout.state_ids(story.states.get(page, StoryState()), story.labels[page]))
            for page in story.state_pages
        ]
        held = len(most) if self.policy.name == "dense" else self.policy.window_pages + 2
        return sum(sorted(most)[-held:])

    # ------------------------------------------------------------------------------------------------ read and decode

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings of ids, `[T, D]`."""
        return embed_ids(self.model, ids)

    def read(self, pieces: list[torch.Tensor]) -> list[torch.Tensor]:
        """Hidden states of each row's next tokens, which enter the cache: `[T, D]` each → `[T, D]` each.

        Rows of which nothing is read stay as they are.
        """
        return forward_rows(self.model, self.cache, self.cast, pieces)

    def open_pages(self, pieces: list[torch.Tensor], before: list[torch.Tensor] | None = None) -> None:
        """Read what opens each story's next page, `[T, D]` each, and begin the partners anew.

        What has nothing left to read ends as `before`, the hidden states of the pass before, does.
        """
        if self.is_guided:
            for row, story in enumerate(self.stories, len(self.stories)):
                self.cache.reset(row)
                pieces = [*pieces, self.embed(self.opening_ids(story))]
        ends = [hidden[-1:] for hidden in self.read(pieces)]
        if before is not None:
            ends[: len(before)] = [end if len(end) else was[-1:] for end, was in zip(ends, before, strict=False)]
        self.next = torch.cat(ends)

    def decode(
        self, rows: Iterable[int], choose: Callable[[int, dict[int, torch.Tensor]], int | None], *, guided: bool
    ) -> None:
        """Decode tokens of some rows, each until `choose` gives None for it; nothing of them stays in the cache.

        Args:
            rows: The stories.
            choose: From a row and the scores `[V]` of all rows to that row's next token.
            guided: Whether the rows with which guidance compares are decoded, too.
        """
        left = list(rows)
        if not left:
            return
        before = [row.position for row in self.cache.rows]
        with_partners = self.with_partners if guided else list
        try:
            asked = with_partners(left)
            logits = self.cast(self.model.caption_logits, self.next[asked])
            while left:
                scores = dict(zip(asked, logits, strict=True))
                chosen = {row: choose(row, scores) for row in left}
                left = [row for row in left if chosen[row] is not None]
                asked = with_partners(left)
                if asked:
                    tokens = [token for row in asked if (token := chosen[row % len(self.stories)]) is not None]
                    logits = self.step(self.cache, tokens, asked)
        finally:  # also when `callback_on_text` or a logits processor raises: the page can then be written again
            self.cache.drop_last([row.position - at for row, at in zip(self.cache.rows, before, strict=True)])

    def opening_ids(self, story: ActiveStory) -> list[int]:
        """What opens a page for who knows nothing of the story, and so a story's first page."""
        return [*self.layout.opening_ids, *self.label_ids(story, story.index)]

    def label_ids(self, story: ActiveStory, index: int) -> list[int]:
        """The label of a page."""
        return self.layout.page_label_ids(story.labels[index], first=index == 0)

    def with_partners(self, rows: Iterable[int]) -> list[int]:
        """Rows of the cache that belong to these stories."""
        rows = list(rows)
        return [*rows, *(row + len(self.stories) for row in rows)] if self.is_guided else rows

    def per_row(self, count: int) -> list[int]:
        """A number for every row: `count` for stories, 0 for their partners."""
        return [count] * len(self.stories) + [0] * (len(self.cache.rows) - len(self.stories))
