"""Captions of the pages that are open, of all stories under way.

Shape legend: `V` vocabulary of captions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from seedstory.generation.active_story import ActiveStory
from seedstory.generation.sampling import CaptionSampler, LogitsProcessor, apply_guidance, page_generator
from seedstory.generation.story_rows import StoryRows
from seedstory.text import sentence_ends

OnText = Callable[[int, int, str], Any]  # number of the story, index of the page, its caption so far


class CaptionWriter:
    """Decodes captions.

    Args:
        rows: The stories.
        forbidden_ids: Ids that no caption may hold.
        logits_processor: See `StoryEngine`.
    """

    def __init__(self, rows: StoryRows, forbidden_ids: Sequence[int], logits_processor: LogitsProcessor | None) -> None:
        self.rows, self.logits_processor = rows, logits_processor
        self._forbidden_ids = forbidden_ids

    def write(self, callback_on_text: OnText | None = None) -> list[str]:
        """Captions of the open pages, given or decoded.

        Args:
            callback_on_text: Called after every token. If it raises, nothing of the captions stays in the cache.
        """
        captions = [" ".join((story.given.caption or "").split()) for story in self.rows.stories]
        ids: dict[int, list[int]] = {}
        samplers: dict[int, CaptionSampler] = {}
        for row, story in enumerate(self.rows.stories):
            if story.given.caption is None and story.given.features is None:
                samplers[row], ids[row] = self._sampler(story), []

        def choose(row: int, scores: dict[int, torch.Tensor]) -> int | None:
            caption = self._add_token(row, samplers[row], scores, ids[row], callback_on_text)
            if caption is None:
                return ids[row][-1]
            captions[row] = caption
            return None

        self.rows.decode(samplers, choose, guided=True)
        return captions

    def _add_token(
        self,
        row: int,
        sampler: CaptionSampler,
        scores: dict[int, torch.Tensor],
        ids: list[int],
        callback_on_text: OnText | None,
    ) -> str | None:
        """Choose the next token of a caption; the whole caption if that ends it."""
        logits = scores[row]
        if self.rows.is_guided:
            logits = apply_guidance(
                logits, scores[row + len(self.rows.stories)], self.rows.sampling.text_guidance_scale
            )
        token = sampler(logits, ids)
        if token == self.rows.layout.image_start_id:
            return self._plain_text(ids)
        ids.append(token)
        if callback_on_text is not None:
            story = self.rows.stories[row]
            callback_on_text(story.number, story.index, self._plain_text(ids))
        if sampler.reads_text:
            caption = sampler.finished(self._plain_text(ids), ids)
            if caption is not None:
                return caption
        if len(ids) < self.rows.sampling.max_caption_tokens:
            return None
        caption = self._plain_text(ids)
        ends = [end for end in sentence_ends(caption) if end * 3 > len(caption)]
        return caption[: ends[-1]] if ends else caption

    def _sampler(self, story: ActiveStory) -> CaptionSampler:
        return CaptionSampler(
            self.rows.sampling,
            end_id=self.rows.layout.image_start_id,
            forbidden_ids=self._forbidden_ids,
            history=story.history,
            generator=page_generator(story.seed_of(story.index), story.index),
            logits_processor=None if self.logits_processor is None else partial(self.logits_processor, story.index),
        )

    def _plain_text(self, ids: Sequence[int]) -> str:
        # Letters may happen to spell the name of a special token, which no caption can hold.
        return " ".join(self.rows.layout.without_special_tokens(self.rows.layout.caption_text(ids)).split())
