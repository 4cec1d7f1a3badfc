"""The page loop: caption, picture, context, eviction.

For every page
1. the caption is decoded token by token until `<img>`;
2. one forward pass over the caption, `<img>` and the `N` query tokens gives the picture's features; the queries' keys
   and values are dropped. (The reference emits the queries one by one; they are fixed once `<img>` is emitted, so one
   causal pass gives the same.)
3. one forward pass over the picture's `N` context embeddings, `</img>` and the next page's label;
4. the cache evicts at the page boundary.

The caption's decoding steps leave nothing behind: its keys and values are those of pass 2, whether the caption was
decoded, given by the user or restored. So what follows a page depends on its caption and features alone, and a story
that is resumed or redone from some page on comes out as the same bytes as one written in one go. The price is the
caption's tokens in a pass that is made anyway.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seedstory.cache import CachePolicy, StoryCache
from seedstory.generation.sampling import CaptionSampler, SamplingConfig, page_generator
from seedstory.layout import countdown
from seedstory.modeling import StoryModel

_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)")


@dataclass(frozen=True)
class OpeningPage:
    """What is given of a page; what is not given, the model makes.

    Attributes:
        caption: The text; None leaves it to the model, or means no text where there are features.
        features: Features of the picture, `[F, Df]`.
    """

    caption: str | None = None
    features: torch.Tensor | None = None


@dataclass(frozen=True)
class PageDraft:
    """A page as the language model leaves it, before its picture is painted.

    Attributes:
        index: Number of the page, from 0.
        caption: Its text.
        features: Features of its picture, float32, `[F, Df]`. Keep them in full precision to resume exactly.
        caption_seconds: Time to decode the caption.
        picture_seconds: Time to regress the features.
        context_seconds: Time to read the picture, open the next page and evict.
        cached_tokens: Tokens held in the cache after the page.
    """

    index: int
    caption: str
    features: torch.Tensor
    caption_seconds: float
    picture_seconds: float
    context_seconds: float
    cached_tokens: int

    @property
    def seconds(self) -> float:
        return self.caption_seconds + self.picture_seconds + self.context_seconds

    def as_opening(self) -> OpeningPage:
        """This page as something given, to resume a story after it."""
        return OpeningPage(self.caption, self.features)


class StoryEngine:
    """Writes stories page by page.

    Args:
        model: A story model with its layout, in evaluation mode.
        policy: What the cache keeps; `mm_sink` by default.
        sampling: How captions are sampled.

    Raises:
        ValueError: If the model has no layout, is in training mode, or does not allow the cache policy.

    Example:
        >>> engine = StoryEngine(StoryPipeline.from_pretrained("mini").story_model)
        >>> engine.start([OpeningPage("Fern the fox found a lantern.")], pages=10, seed=7)
        >>> for page in engine.pages():
        ...     print(page.index, page.caption, page.features.shape)
    """

    def __init__(
        self, model: StoryModel, policy: CachePolicy | None = None, sampling: SamplingConfig | None = None
    ) -> None:
        if model.layout is None:
            raise ValueError("The model has no layout (tokenizer); load it with StoryModel.from_pretrained.")
        if model.training:
            raise ValueError("The model is in training mode; call model.eval() before writing stories.")
        self.model, self.layout = model, model.layout
        self.policy = CachePolicy() if policy is None else policy
        self.sampling = SamplingConfig() if sampling is None else sampling
        self.cache = StoryCache(model.llm, self.policy)
        first, tokenizer = model.config.image_start_id, self.layout.tokenizer
        special = {self.layout.eos_id, *tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        self._forbidden_ids = sorted(id for id in special if id < first)
        self._special_text = re.compile("|".join(re.escape(text) for text in sorted(tokenizer.get_added_vocab())))
        # LoRA that is not merged is float32 on a base that may not be; autocast is how the two meet.
        self._mixed = any(weight.dtype != model.llm.dtype for weight in model.parameters())
        self._pages = 0

    def start(self, opening: Sequence[OpeningPage] = (), *, pages: int, seed: int = 0) -> None:
        """Begin a story; `pages()` then writes it.

        Args:
            opening: What is given of the first pages. It may span the whole story (a script of captions), and it
                resumes a story if it holds that story's pages so far.
            pages: Pages of the whole story, the opening included.
            seed: Seed of the captions; each page has random numbers of its own, derived from it and the page's index.

        Raises:
            ValueError: If there is no page, the opening is longer than the story, or an opening page is malformed.
        """
        labels = countdown(pages)
        if len(opening) > pages:
            raise ValueError(f"The opening has {len(opening)} pages, but the story shall have {pages}.")
        shape = (self.model.config.feature_tokens, self.model.config.feature_dim)
        for index, page in enumerate(opening):
            if page.features is not None and tuple(page.features.shape) != shape:
                raise ValueError(f"Opening page {index} has features {tuple(page.features.shape)}, expected {shape}.")
            self.layout.caption_ids(page.caption or "")
        self._opening, self._labels, self._pages, self._seed = list(opening), labels, pages, seed
        self._index = 0
        self._history: list[list[int]] = []
        self._window: list[torch.Tensor] = []
        self.cache.reset()
        with torch.inference_mode():
            self._next = self._read(self._embed([*self.layout.opening_ids, *self._label_ids(0)]))[:, -1]

    def pages(self, on_text: Callable[[int, str], Any] | None = None) -> Iterator[PageDraft]:
        """Write the pages that are left.

        Args:
            on_text: Called with the page's index and its caption so far after every decoded token.

        Yields:
            One page at a time; the next one is not begun before it is asked for.

        Raises:
            ValueError: If no story was started, or the model returns NaN.
        """
        if not self._pages:
            raise ValueError("No story was started; call engine.start(opening, pages=...) first.")
        while self._index < self._pages:
            draft = self._write_page(self._index, on_text)
            self._index += 1
            yield draft

    @torch.inference_mode()
    def _write_page(self, index: int, on_text: Callable[[int, str], Any] | None) -> PageDraft:
        times = [time.perf_counter()]
        given = self._opening[index] if index < len(self._opening) else OpeningPage()
        if given.caption is None and given.features is None:
            caption = self._decode_caption(index, on_text)
        else:
            caption = " ".join((given.caption or "").split())
        caption_ids = self.layout.caption_ids(caption)
        times.append(time.perf_counter())

        # The queries are read even if the picture is given, so that a restored page repeats its first writing exactly.
        count = self.layout.num_visual_tokens
        image_start = self.cache.position + len(caption_ids)
        text = self._embed([*caption_ids, self.layout.image_start_id, *self.layout.query_ids])
        hidden = self._read(text)
        self.cache.forget_last(count)
        if given.features is None:
            features = self._cast(self.model.decode_features, hidden[:, -count:])[0].float()
        else:
            features = given.features.to(hidden.device, torch.float32)
        times.append(time.perf_counter())

        self._history = [*self._history, caption_ids][-max(1, self.sampling.history_pages) :]
        if index + 1 < self._pages:
            self._turn_page(index, text[:, :-count], features, image_start)
        times.append(time.perf_counter())
        caption_seconds, picture_seconds, context_seconds = (b - a for a, b in zip(times, times[1:], strict=False))
        with torch.inference_mode(False):
            features = features.clone()
        return PageDraft(
            index, caption, features, caption_seconds, picture_seconds, context_seconds, cached_tokens=self.cache.held
        )

    def _decode_caption(self, index: int, on_text: Callable[[int, str], Any] | None) -> str:
        sampler = CaptionSampler(
            self.sampling,
            end_id=self.layout.image_start_id,
            forbidden_ids=self._forbidden_ids,
            history=self._history,
            generator=page_generator(self._seed, index),
        )
        ids: list[int] = []
        hidden, before = self._next, self.cache.position
        while len(ids) < self.sampling.max_caption_tokens:
            token = sampler(self._cast(self.model.caption_logits, hidden)[0], ids)
            if token == self.layout.image_start_id:
                break
            ids.append(token)
            if on_text is not None:
                on_text(index, self._plain_text(ids))
            if len(ids) < self.sampling.max_caption_tokens:
                hidden = self._read(self._embed([token]))[:, -1]
        self.cache.forget_last(self.cache.position - before)
        caption = self._plain_text(ids)
        if len(ids) == self.sampling.max_caption_tokens:
            ends = [match.end() for match in _SENTENCE_END.finditer(caption) if match.end() * 3 > len(caption)]
            caption = caption[: ends[-1]] if ends else caption
        return caption

    def _plain_text(self, ids: Sequence[int]) -> str:
        # Letters may happen to spell the name of a special token, which no caption can hold.
        return " ".join(self._special_text.sub(" ", self.layout.caption_text(ids)).split())

    def _turn_page(self, index: int, text: torch.Tensor, features: torch.Tensor, image_start: int) -> None:
        """Read the page's picture and the next page's label, then let the cache forget.

        Args:
            index: The page that ends.
            text: Embeddings of its caption and `<img>`, `[1, T, D]`.
            features: Features of its picture, `[F, Df]`.
            image_start: Position of its `<img>`.
        """
        picture = self._cast(self.model.embed_pictures, features[None]).to(text.dtype)
        picture = torch.cat([picture, self._embed([self.layout.image_end_id])], dim=1)
        label = self._embed(self._label_ids(index + 1))
        if self.policy.recomputes:
            page = torch.cat([self._embed(self._label_ids(index)), text, picture], dim=1)
            self._window = [*self._window, page][-self.policy.window_pages :]
            self.cache.reset()
            start = [self._embed(self.layout.opening_ids)] if self.layout.opening_ids else []
            hidden = self._read(torch.cat([*start, *self._window, label], dim=1))
        else:
            hidden = self._read(torch.cat([picture, label], dim=1))
            self.cache.end_page(image_start, image_start + self.layout.num_visual_tokens + 1)
            self.cache.evict()
        self._next = hidden[:, -1]

    def _label_ids(self, index: int) -> list[int]:
        return self.layout.page_label_ids(self._labels[index])

    def _embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings of ids, `[1, T, D]`."""
        return self.model.embed_tokens(torch.tensor([ids], device=self.model.device))

    def _read(self, embeds: torch.Tensor) -> torch.Tensor:
        """Hidden states of the story's next tokens, which enter the cache: `[1, T, D]` → `[1, T, D]`."""
        count, device = embeds.shape[1], embeds.device
        positions, mask = self.cache.position_ids(count, device), self.cache.causal_mask(count, device)
        return self._cast(self.model.hidden_states, embeds, positions, mask, self.cache)

    def _cast(self, function: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
        if not self._mixed:
            return function(*args)
        with torch.autocast(self.model.device.type, self.model.llm.dtype):
            return function(*args)
