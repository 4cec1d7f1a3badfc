"""Stories as SEED-Story's own script writes them, whatever one may think of it, for those who compare.

From the script (github.com/TencentARC/SEED-Story, src/inference/gen_george.py at commit aec3c1c) come, against what
`StoryEngine` does:

- words are greedy; the model writes "[INST]" itself, and ends a story early where it writes eos before any picture;
- each page reads the whole prompt again, as text that is tokenized anew, with its last 8 pictures at most;
- when a picture leaves, the prompt is cut behind its `</img>` and six characters more, whatever these are;
- visual tokens and `</img>` score 0, not minus infinity, where none may come: they win where all others score less;
- a page has 500 tokens at most, its picture's included, and is what was written until eos: text behind the picture
  counts, and of several pictures the last.

The query tokens of a picture are read in one pass, which gives what the script's one by one give. Where scores of 0
win, they are a tie of all visual tokens, of which the first is taken.

Shape legend: `N` visual tokens, `F` feature tokens of width `Df`, `D` hidden width.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from seedstory.cache import CachePolicy, StoryCache
from seedstory.errors import RequestError
from seedstory.generation.active_story import ActiveStory
from seedstory.generation.caption_writer import OnText
from seedstory.generation.engine import StoryEngine
from seedstory.generation.forward import forward_rows
from seedstory.generation.pages import PageDraft, StoryRequest
from seedstory.generation.sampling import SamplingConfig
from seedstory.layout import IMAGE_END, INSTRUCTION, LAYOUTS
from seedstory.modeling import StoryModel

WINDOW_IMAGES = 8
MAX_NEW_TOKENS = 500

OnToken = Callable[[list[int]], Any]

logger = logging.getLogger(__name__)


@dataclass
class _Prompt:
    """What the next page of a story reads: a text with image tokens, and features `[F, Df]` of its pictures."""

    text: str = ""
    images: list[torch.Tensor] = field(default_factory=list)


class ReferenceEngine(StoryEngine):
    """Writes stories as SEED-Story's script does. Stories are written one after the other, page by page.

    Args:
        model: A model of SEED-Story's layout, in evaluation mode.
        decoding: As in `StoryEngine`; the cache grows, so there is no compiled form.

    Raises:
        RequestError: As `StoryEngine`, or the model has another layout.
    """

    def __init__(self, model: StoryModel, *, decoding: str = "auto") -> None:
        policy = CachePolicy(name="recompute", window_pages=WINDOW_IMAGES)
        super().__init__(model, policy, SamplingConfig(temperature=0), decoding=decoding)
        if self.layout.name != LAYOUTS[1]:
            raise RequestError("This model was not trained with SEED-Story's prompt: leave reference out.")
        if self._step.static:
            raise RequestError(f"Reference has no {decoding} decoding: choose auto, eager or native.")
        self._prompts: dict[int, _Prompt] = {}

    def _check(self, story: StoryRequest) -> None:
        super()._check(story)
        if story.state_pages:
            raise RequestError("Reference knows no story state: leave cast and plan out.")

    def _join_and_leave(self) -> None:
        stories = [story for story in self._rows.stories if story.number not in self._leaving]
        self._rows.stories, self._joining, self._leaving = [*stories, *self._joining], [], set()
        numbers = {story.number for story in self._rows.stories}
        self._prompts = {number: self._prompts.get(number, _Prompt()) for number in numbers}

    def _end_all(self) -> None:
        super()._end_all()
        self._prompts = {}

    @torch.inference_mode()
    def _write_pages(self, callback_on_text: OnText | None) -> list[PageDraft]:
        self._join_and_leave()
        drafts = []
        for story in self._rows.stories:
            draft = self._write_page(story, self._prompts[story.number], callback_on_text)
            if draft is None:
                logger.warning("the model has ended its story after page %d", story.index)
                self._leaving.add(story.number)
            else:
                drafts.append(draft)
        for draft in drafts:
            story = next(story for story in self._rows.stories if story.number == draft.story)
            prompt = self._prompts[draft.story]
            prompt.text += draft.prompt + self._image_text
            prompt.images.append(draft.features)
            while len(prompt.images) > WINDOW_IMAGES:
                cut = prompt.text.index(IMAGE_END) + len(IMAGE_END) + len(INSTRUCTION)
                prompt.text, prompt.images = prompt.text[cut:], prompt.images[1:]
            story.index += 1
        self._rows.stories = [
            story for story in self._rows.stories if story.index < story.pages and story.number not in self._leaving
        ]
        with torch.inference_mode(False):
            return [draft for draft in drafts if draft.story not in self._leaving]

    @property
    def _image_text(self) -> str:
        start, end, *queries = self.layout.token_names(self.layout.num_visual_tokens)
        return start + "".join(queries) + end

    def _write_page(self, story: ActiveStory, prompt: _Prompt, callback_on_text: OnText | None) -> PageDraft | None:
        """The story's next page; None if the model ends the story before it has a picture."""
        started, given, count = time.perf_counter(), story.given, 0
        features = given.features
        if given.caption is None and features is None:
            cache = StoryCache(self.model.llm, CachePolicy(name="dense"))

            def on_token(ids: list[int]) -> None:
                if callback_on_text is not None:
                    callback_on_text(story.number, story.index, _caption(self._decode(ids)))

            ids, features = self._generate(cache, prompt, on_token)
            text, count = self._decode(ids), len(ids)
            if features is None:
                return None
        else:
            text = given.prompt or (INSTRUCTION if story.index else "") + (given.caption or "")
            if features is None:
                features = self._image_of(prompt, text)
        caption = _caption(text) if story.index else text
        seconds = time.perf_counter() - started
        with torch.inference_mode(False):
            return PageDraft(
                story.index,
                caption,
                features.detach().clone().to(self.model.device, torch.float32),
                seconds,
                0.0,
                0.0,
                cached_tokens=len(self._ids(prompt.text)),
                caption_tokens=count,
                story=story.number,
                prompt=text,
            )

    def _ids(self, text: str) -> list[int]:
        return [*self.layout.opening_ids, *self.layout.tokenizer.encode(text, add_special_tokens=False)]

    def _decode(self, ids: list[int]) -> str:
        """The script's text of generated ids: names of tokens, and whatever else stands in angle brackets, leave."""
        text = self.layout.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return re.sub(r"\s*<[^>]*>\s*", " ", text).strip()

    def _read(self, cache: StoryCache, prompt: _Prompt, text: str) -> torch.Tensor:
        """Hidden states `[T, D]` of a text whose first pictures are the prompt's."""
        ids = self._ids(text)
        embeds, first = self._rows.embed(ids), self.layout.query_ids[0]
        if prompt.images:
            if ids.count(self.layout.image_start_id) < len(prompt.images):
                raise RequestError(
                    "SEED-Story's script has cut its prompt inside an image, since a page does not begin with "
                    f"{INSTRUCTION}: it can write no further page"
                )
            features = torch.stack(prompt.images).to(self.model.device)
            images = self._cast(self.model.embed_images, features).flatten(0, 1)
            slots = [at for at, id in enumerate(ids) if first <= id <= self.layout.query_ids[-1]][: len(images)]
            embeds[slots] = images.to(embeds.dtype)
        return forward_rows(self.model, cache, self._cast, [embeds])[0]

    def _image_of(self, prompt: _Prompt, text: str) -> torch.Tensor:
        """Features `[F, Df]` of the picture behind given words."""
        cache = StoryCache(self.model.llm, CachePolicy(name="dense"))
        return self._features(self._read(cache, prompt, prompt.text + text + self._image_text))

    def _features(self, hidden: torch.Tensor) -> torch.Tensor:
        """Features of the picture whose `</img>` is read last: `[T, D]` → `[F, Df]`."""
        return self._cast(self.model.decode_features, hidden[None, -self.layout.num_visual_tokens - 1 : -1])[0].float()

    def _generate(
        self, cache: StoryCache, prompt: _Prompt, on_token: OnToken = lambda ids: None
    ) -> tuple[list[int], torch.Tensor | None]:
        """Ids that follow the prompt, and features of the last picture among them."""
        layout, ids = self.layout, list[int]()
        features: torch.Tensor | None = None
        logits = self._logits(self._read(cache, prompt, prompt.text))
        while len(ids) < MAX_NEW_TOKENS:
            best, score = int(logits.argmax()), float(logits.max())
            if not score < torch.inf:
                raise RequestError(
                    "The language model returned NaN or infinite scores; its weights are damaged or overflow."
                )
            if score >= 0 and best != layout.image_start_id:
                ids.append(best)
                on_token(ids)
                if best == layout.eos_id:
                    break
                logits = self._step(cache, [best], [0])[0]
                continue
            image = [*layout.query_ids, layout.image_end_id]
            if score >= 0:
                image = [layout.image_start_id, *image]
            ids += image
            if len(ids) > MAX_NEW_TOKENS:
                break
            hidden = forward_rows(self.model, cache, self._cast, [self._rows.embed(image)])[0]
            features, logits = self._features(hidden), self._logits(hidden)
        return ids[:MAX_NEW_TOKENS], features

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of what follows the last token: `[T, D]` → `[V]`."""
        return self._cast(self.model.caption_logits, hidden[-1:]).float()[0]


def _caption(text: str) -> str:
    """What a reader sees of a page's text."""
    return text.removeprefix(INSTRUCTION).strip()
