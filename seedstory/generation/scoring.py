"""How probable a model finds stories that are there, many pages a pass.

While nothing has left the cache, reading pages one by one and reading them together is the same (the mask is causal
either way). So the first pages of several stories take one pass, and from then on each page takes one, as in
`StoryEngine`; a story whose every page is given needs no query tokens.

Shapes: T tokens, D hidden width, F features of a picture, Df width of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from seedstory.cache import CachePolicy, StoryCache
from seedstory.errors import RequestError
from seedstory.generation.decoding import autocast
from seedstory.generation.forward import caption_log_likelihood, embed_ids, forward_rows
from seedstory.generation.pages import GivenPage, StoryRequest
from seedstory.layout import countdown
from seedstory.modeling import StoryModel
from seedstory.story_state import StoryState

_MOST = 16  # pages a pass


@torch.inference_mode()
def score_pages(
    model: StoryModel,
    stories: Sequence[StoryRequest],
    policy: CachePolicy,
    callback_on_page: Callable[[], Any] = lambda: None,
) -> list[list[tuple[float, int]]]:
    """Log-probability of the captions of stories whose pages are given whole.

    Args:
        model: The model, in evaluation mode.
        stories: Their `opening` is what is scored; `pages`, by which labels count down, may be more.
        policy: What the cache keeps; any but "recompute".
        callback_on_page: Called for each page.

    Returns:
        For each page of each story the log-probability of its caption and `<img>`, and how many tokens these are.

    Raises:
        RequestError: A page lacks caption or features, or the policy keeps nothing.
    """
    if policy.recomputes:
        raise RequestError("the policy recompute reads every page anew: score with StoryEngine")
    if any(page.caption is None or page.features is None for story in stories for page in story.opening):
        raise RequestError("to be scored, a page needs a caption and features")
    reader = _Scorer(model, stories, policy)
    scores: list[list[tuple[float, int]]] = [[] for _ in stories]
    for row, score in reader.read():
        scores[row].append(score)
        callback_on_page()
    return scores


class _Scorer:
    """Stories under way, one a row of the cache."""

    def __init__(self, model: StoryModel, stories: Sequence[StoryRequest], policy: CachePolicy) -> None:
        assert model.layout is not None, "a loaded story model has its layout"
        self.model, self.layout, self.policy = model, model.layout, policy
        self.stories, self.names = list(stories), list(range(len(stories)))
        self.labels = [countdown(story.pages) for story in stories]
        self.cast, self.page = autocast(model), 0
        self.cache = StoryCache(model.llm, policy, stories=len(stories))
        self.last: list[Tensor] = []  # hidden state before the next caption of each story, [D]

    def read(self) -> Iterator[tuple[int, tuple[float, int]]]:
        """Each story's number and the score of its next page."""
        opening = [self._embed([*self.layout.opening_ids, *self._label(row, 0)]) for row in self.names]
        self.last = [hidden[-1] for hidden in self._pass(opening)]
        while self.stories:
            yield from self._next_pages(self._count())
            left = [row for row, story in enumerate(self.stories) if self.page < len(story.opening)]
            if left and len(left) < len(self.stories):
                self.cache.select(left)
            self.stories, self.names = [self.stories[row] for row in left], [self.names[row] for row in left]
            self.labels, self.last = [self.labels[row] for row in left], [self.last[row] for row in left]

    def _count(self) -> int:
        """Pages that may be read at once: until the first of them leaves, and until a story ends."""
        until = min(len(story.opening) for story in self.stories) - self.page
        stay = _MOST if self.policy.name == "dense" else max(1, self.policy.window_pages - self.page)
        return min(until, stay, _MOST)

    def _next_pages(self, count: int) -> Iterator[tuple[int, tuple[float, int]]]:
        pages = [story.opening[self.page : self.page + count] for story in self.stories]
        pieces = [self._pieces(row, own) for row, own in enumerate(pages)]
        begin = [row.position for row in self.cache.rows]
        hidden = self._pass([torch.cat([part for page in own for part in page]) for own in pieces])
        for row, own in enumerate(pages):
            at = 0
            for place, (page, parts) in enumerate(zip(own, pieces[row], strict=True)):
                ids = self.layout.caption_ids(page.caption or "", first=self.page + place == 0)
                score = caption_log_likelihood(self.model, self.cast, self.last[row], hidden[row][at:], ids)
                yield self.names[row], (score, len(ids) + 1)
                if opening := len(parts[0]) - len(ids) - 1:
                    self.cache.pin(row, begin[row] + at + len(ids), begin[row] + at + len(ids) + opening)
                if len(parts[1]):  # the last page of a story is not turned
                    start = begin[row] + at + len(parts[0]) - 1
                    self.cache.end_page(row, start, start + self.layout.num_visual_tokens + 1, page.caption or "")
                    end = start + self.layout.num_visual_tokens + 2
                    if state := len(parts[2]):
                        self.cache.pin(row, end, end + state)
                at += sum(map(len, parts))
                self.last[row] = hidden[row][at - 1]
        self.page += count
        self.cache.evict()

    def _pieces(self, row: int, pages: Sequence[GivenPage]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Embeddings [T, D] of each page's caption with `<img>`, its picture, the next page's state, and its label."""
        features = torch.stack([page.features for page in pages if page.features is not None])
        images = self.cast(self.model.embed_images, features.to(self.model.device, torch.float32))
        found = []
        for place, page in enumerate(pages):
            after = self.page + place + 1
            caption = self.layout.caption_ids(page.caption or "", first=after == 1)
            ids = [*caption, *self._opening_state_ids(row, after)]
            text = self._embed([*ids, self.layout.image_start_id])
            if after < self.stories[row].pages:
                image = torch.cat([images[place].to(text.dtype), self._embed([self.layout.image_end_id])])
                found.append((text, image, self._state(row, after), self._embed(self._label(row, after))))
            else:
                found.append((text, text[:0], text[:0], text[:0]))
        return found

    def _label(self, row: int, page: int) -> list[int]:
        return self.layout.page_label_ids(self.labels[row][page], first=page == 0)

    def _opening_state_ids(self, row: int, after: int) -> list[int]:
        """Ids of the state that stands in the page before page `after`: in the first one, if at all."""
        story = self.stories[row]
        if after != 1 or not story.state_in_opening or 1 not in story.states:
            return []
        return self.layout.opening_state_ids(story.states[1], self.labels[row][1])

    def _state(self, row: int, page: int) -> Tensor:
        """Embeddings [T, D] of the state that stands before a page's label."""
        if page == 1 and self.stories[row].state_in_opening:
            return self._embed([])
        state = self.stories[row].states.get(page, StoryState())
        return self._embed(self.layout.state_ids(state, self.labels[row][page]))

    def _embed(self, ids: Sequence[int]) -> Tensor:
        return embed_ids(self.model, ids)

    def _pass(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Hidden states of each story's next tokens, which enter the cache, [T, D] each."""
        return forward_rows(self.model, self.cache, self.cast, pieces)
