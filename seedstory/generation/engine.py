"""The page loop: caption, picture, context, eviction.

For every page
1. the caption is decoded token by token until `<img>`;
2. one forward pass over the caption, `<img>` and the `N` query tokens gives the picture's features; the queries' keys
   and values are dropped. (The reference emits the queries one by one; they are fixed once `<img>` is emitted, so one
   causal pass gives the same.)
3. one forward pass over the picture's `N` context embeddings, `</img>` and the next page's label; where a story state
   stands before that page, it is written first, as a caption is, and read with the label in a pass of its own;
4. the cache evicts at the page boundary.

The caption's decoding steps leave nothing behind: its keys and values are those of pass 2, whether the caption was
decoded, given by the user or restored. So what follows a page depends on its caption and features alone, and a story
that is resumed or redone from some page on comes out as the same bytes as one written in one go. The price is the
caption's tokens in a pass that is made anyway.

Several stories may be written together, page by page; each comes out as it would alone. A story is a row of the
cache. With guidance of the text it has a second row, which knows the page's label and the caption, but not the story.

Shape legend: `B` rows, `T` tokens, `D` hidden width, `V` vocabulary of captions, `N` visual tokens, `F` feature tokens
of width `Df`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from seedstory.cache import CachePolicy, StoryCache
from seedstory.errors import RequestError
from seedstory.generation.decoding import autocast, make_decoding_step
from seedstory.generation.forward import caption_log_likelihood, embed_ids, forward_rows
from seedstory.generation.pages import GivenPage, PageDraft, StoryRequest
from seedstory.generation.sampling import (
    CaptionSampler,
    LogitsProcessor,
    SamplingConfig,
    apply_guidance,
    page_generator,
)
from seedstory.generation.state_sampler import MAX_LINE_TOKENS, StateSampler
from seedstory.layout import countdown
from seedstory.modeling import StoryModel
from seedstory.salience import Salience, by_capitals
from seedstory.story import page_seed
from seedstory.story_state import MAX_CAST, StoryState
from seedstory.text import sentence_ends


class _Story:
    """A story while it is written."""

    def __init__(self, number: int, start: StoryRequest) -> None:
        self.number, self.opening, self.pages, self.seed_of = number, list(start.opening), start.pages, start.seed_of
        self.labels = countdown(start.pages)
        self.index = 0
        self.history: list[list[int]] = []  # ids of recent captions
        self.window: list[torch.Tensor] = []  # embeddings of recent pages, for the policy that reads them again
        self.state_pages, self.states = frozenset(start.state_pages), dict(start.states)
        self.fixed_states, self.cast = frozenset(start.fixed_states), StoryState().cast
        self.state_in_opening = start.state_in_opening and 1 in self.state_pages
        self.read_states: list[tuple[int, torch.Tensor]] = []  # pages before which states stand; embeddings, [T, D]
        self.pin: tuple[int, int] | None = None  # where the newest one lies, until the cache knows
        self.text = torch.empty(0)  # embeddings of the open page's caption and <img>, [T, D]
        self.caption = ""  # of the open page

    @property
    def given(self) -> GivenPage:
        return self.opening[self.index] if self.index < len(self.opening) else GivenPage()

    @property
    def needs_state(self) -> bool:
        """Whether a story state stands before the label of the page that comes now."""
        return self.index in self.state_pages and not (self.index == 1 and self.state_in_opening)

    @property
    def opens_with_state(self) -> bool:
        """Whether a story state stands in the page that comes now, the first one."""
        return self.index == 0 and self.state_in_opening

    def reread(self) -> list[torch.Tensor]:
        """What the policy that reads pages again reads of the last ones, in order, with the states between them.

        The last state stays when the pages around it have gone; that of the first page may be a part of it.
        """
        first = self.index - len(self.window)
        between: dict[int, torch.Tensor] = {}
        for number, (page, state) in enumerate(self.read_states):
            inside = page == 1 and self.state_in_opening and first == 0
            if not inside and (page > first or number == len(self.read_states) - 1):
                between[max(page, first)] = state
        pages = range(first, self.index + 1)
        pieces = [[between.get(page), window] for page, window in zip(pages, [*self.window, None], strict=True)]
        return [piece for pair in pieces for piece in pair if piece is not None]


@dataclass
class _OpeningStates:
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


class StoryEngine:
    """Writes stories page by page with a `StoryModel`.

    Args:
        model: The model, in evaluation mode.
        policy: What its cache keeps.
        sampling: How captions are chosen.
        decoding: How a token is decoded, one of `seedstory.settings.DECODINGS`; see `seedstory.generation.decoding`.
        logits_processor: A control of the user's own over captions, see `LogitsProcessor`.
        salience: Which names a caption mentions, see `seedstory.salience`.

    Attributes:
        decoding: The form that was taken.
        cache: Keys and values of the stories under way.

    Raises:
        RequestError: If the model is in training mode, or does not allow the policy or the decoding.
    """

    def __init__(
        self,
        model: StoryModel,
        policy: CachePolicy | None = None,
        sampling: SamplingConfig | None = None,
        *,
        decoding: str = "auto",
        logits_processor: LogitsProcessor | None = None,
        salience: Salience = by_capitals,
    ) -> None:
        if model.layout is None:
            raise RequestError("The model has no layout (tokenizer); build it with from_base or from_pretrained.")
        if model.training:
            raise RequestError("The model is in training mode; call model.eval() before writing stories.")
        self.model, self.layout = model, model.layout
        self.policy = CachePolicy() if policy is None else policy
        self.sampling = SamplingConfig() if sampling is None else sampling
        self.logits_processor = logits_processor
        self.salience = salience
        self.cache = StoryCache(model.llm, self.policy, salience=salience)
        self._cast = autocast(model)
        self.decoding, self._step = make_decoding_step(decoding, model, self._cast)
        first, tokenizer = model.config.image_start_id, self.layout.tokenizer
        special = {self.layout.eos_id, *tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        self._forbidden_ids = sorted(id for id in special if id < first)
        self._is_guided = self.sampling.text_guidance_scale != 1
        self._stories: list[_Story] = []
        self._started = False

    # -------------------------------------------------------------------------------------------------------- begin

    def start(self, opening: Sequence[GivenPage] = (), *, pages: int, seed: int = 0, score: bool = False) -> None:
        """Begin a story; `pages()` then writes it.

        Args:
            opening: As in `StoryRequest`.
            pages: Pages of the whole story, the opening included.
            seed: As in `StoryRequest`.
            score: Also report how probable the model finds each caption.

        Raises:
            RequestError: If there is no page, the opening is longer than the story, or an opening page is malformed.
        """
        self.start_batch([StoryRequest(opening, pages, seed)], score=score)

    def start_batch(self, stories: Sequence[StoryRequest], *, score: bool = False) -> None:
        """Begin stories that are written together, page by page; each comes out as it would alone.

        Args:
            stories: The stories; they may differ in length.
            score: As in `start`.

        Raises:
            RequestError: As `start`; or there is no story.
        """
        if not stories:
            raise RequestError("There is no story to start.")
        for story in stories:
            self._check(story)
        self._stories = [_Story(number, story) for number, story in enumerate(stories)]
        self._score, self._started = score, True
        rows = len(stories) * (2 if self._is_guided else 1)
        capacity = self._capacity() if self._step.static else None
        if len(self.cache.rows) == rows and self.cache.capacity == capacity:
            self.cache.reset()
        else:
            self.cache = StoryCache(
                self.model.llm, self.policy, stories=rows, capacity=capacity, salience=self.salience
            )
        with torch.inference_mode():
            self._next = self._open_page([self._embed(self._opening_ids(story)) for story in self._stories])

    def _check(self, story: StoryRequest) -> None:
        countdown(story.pages)
        if len(story.opening) > story.pages:
            raise RequestError(f"The opening has {len(story.opening)} pages, but the story shall have {story.pages}.")
        shape = (self.model.config.feature_tokens, self.model.config.feature_dim)
        for index, page in enumerate(story.opening):
            if page.features is not None and tuple(page.features.shape) != shape:
                raise RequestError(f"Opening page {index} has features {tuple(page.features.shape)}, expected {shape}.")
            if page.features is not None and not (page.features.is_floating_point() and page.features.isfinite().all()):
                raise RequestError(f"Opening page {index} has features that are not finite floats.")
            self.layout.caption_ids(page.caption or "")
        labels = countdown(story.pages)
        if not all(0 < page < story.pages for page in story.state_pages):
            raise RequestError(f"A story state stands before a page from the second on: {sorted(story.state_pages)}.")
        if not story.states.keys() <= set(story.state_pages):
            raise RequestError("A story state is given for a page before which none shall stand.")
        if not all(0 <= page < story.pages for page in story.page_seeds):
            raise RequestError(f"A seed is given for a page that the story does not have: {sorted(story.page_seeds)}.")
        for at in set(story.state_pages) - set(story.fixed_states):
            self._state_sampler(labels[at], story.states.get(at), story.seed_of(at), at)

    def _capacity(self) -> int:
        """Tokens that a row of the static cache may come to hold."""
        page = 0
        for story in self._stories:
            given = [len(self.layout.caption_ids(opening.caption or "")) for opening in story.opening]
            caption = max([self.sampling.max_caption_tokens, *given])
            label = max(len(self.layout.page_label_ids(label)) for label in story.labels)
            page = max(page, label + caption + self.layout.num_visual_tokens + 2)
        longest = max(story.pages for story in self._stories)
        states = max((self._state_tokens(story) for story in self._stories), default=0)
        sinks = {"sink": self.policy.first_tokens, "mm_sink": self.policy.max_sink_tokens}.get(self.policy.name, 0)
        pages = longest if self.policy.name == "dense" else min(longest, self.policy.window_pages)
        needed = len(self.layout.opening_ids) + sinks + (pages + 2) * page + states
        return -(-needed // 64) * 64

    def _state_tokens(self, story: _Story) -> int:
        """Most tokens of story states that a row may come to hold: of those that a whole window can lie between."""
        most = [
            (MAX_CAST + story.labels[page] + 2) * (MAX_LINE_TOKENS + 8)
            + len(self.layout.state_ids(story.states.get(page, StoryState()), story.labels[page]))
            for page in story.state_pages
        ]
        held = len(most) if self.policy.name == "dense" else self.policy.window_pages + 2
        return sum(sorted(most)[-held:])

    # --------------------------------------------------------------------------------------------------------- write

    def pages(self, callback_on_text: Callable[[int, str], Any] | None = None) -> Iterator[PageDraft]:
        """Write the pages that are left.

        Args:
            callback_on_text: Called with the page's index and its caption so far after every token; for one story.

        Yields:
            One page at a time, of every story in turn; the next pages are not begun before they are asked for.

        Raises:
            RequestError: If no story was started, or the model returns NaN.
        """
        if not self._started:
            raise RequestError("No story was started; call engine.start(opening, pages=...) first.")
        if callback_on_text is not None and len(self._stories) > 1:
            raise RequestError("callback_on_text follows one story; these are several.")
        while self._stories:
            yield from self._write_pages(callback_on_text)

    @torch.inference_mode()
    def _write_pages(self, callback_on_text: Callable[[int, str], Any] | None) -> list[PageDraft]:
        """The next page of every story."""
        times = [time.perf_counter()]
        captions = self._decode_captions(callback_on_text)
        try:
            return self._finish_pages(captions, times)
        except BaseException:  # half a page is in the cache
            self._stories, self._started = [], False
            raise

    def _finish_pages(self, captions: list[str], times: list[float]) -> list[PageDraft]:
        """Pictures of the pages whose captions are chosen, which the cache then turns."""
        stories = self._stories
        ids = [self.layout.caption_ids(caption) for caption in captions]
        times.append(time.perf_counter())

        # The queries are read even if the picture is given, so that a restored page repeats its first writing exactly.
        count = self.layout.num_visual_tokens
        start_id, query_ids = self.layout.image_start_id, self.layout.query_ids
        captions_before = self._next
        early = self._read_opening_states(ids)
        texts = [self._embed([*early.ids.get(row, own), start_id, *query_ids]) for row, own in enumerate(ids)]
        image_starts = [row.position + len(text) - count - 1 for row, text in zip(self.cache.rows, texts, strict=False)]
        hidden = self._read(texts)
        self.cache.drop_last(self._per_row(count))
        queries = torch.stack([part[-count:] for part in hidden[: len(ids)]])
        drawn = self._cast(self.model.decode_features, queries, self._image_noise()).float()
        features = [
            new if story.given.features is None else story.given.features.to(new.device, torch.float32)
            for story, new in zip(stories, drawn, strict=True)
        ]
        read = {**dict(enumerate(hidden[: len(ids)])), **early.hidden}
        scores = [
            self._log_likelihood(captions_before[row], own, read[row]) if self._score else None
            for row, own in enumerate(ids)
        ]
        times.append(time.perf_counter())

        for story, words, own, text in zip(stories, captions, ids, texts, strict=True):
            story.history = [*story.history, own][-max(1, self.sampling.history_pages) :]
            story.text, story.caption = text[:-count], words
        for row, before_state in early.captions.items():
            stories[row].text = torch.cat([before_state, stories[row].text])
        num_kept, states = self._advance_pages(features, image_starts)
        times.append(time.perf_counter())
        caption, image, context = ((b - a) / len(stories) for a, b in zip(times, times[1:], strict=False))
        with torch.inference_mode(False):
            return [
                PageDraft(
                    story.index - 1,
                    captions[row],
                    features[row].clone(),
                    caption,
                    image,
                    context,
                    cached_tokens=num_kept[row],
                    caption_tokens=len(ids[row]) + 1,
                    log_likelihood=scores[row],
                    story=story.number,
                    next_state=states.get(row) or early.states.get(row),
                )
                for row, story in enumerate(stories)
            ]

    def _image_noise(self) -> torch.Tensor | None:
        """Where a flow starts to draw each story's picture, `[B, F, Df]`: from the story's seed and the page alone."""
        config = self.model.config
        if config.feature_head == "regression":
            return None
        # Seeded apart from the page's words, and from the de-tokenizer's noise.
        seeds = ((page_seed(story.seed_of(story.index), story.index), story.index) for story in self._stories)
        shape = (config.feature_tokens, config.feature_dim)
        return torch.stack([torch.randn(shape, generator=page_generator(*seed)) for seed in seeds]).to(
            self.model.device
        )

    def _decode_captions(self, callback_on_text: Callable[[int, str], Any] | None) -> list[str]:
        """Captions of the open pages, given or decoded."""
        captions = [" ".join((story.given.caption or "").split()) for story in self._stories]
        ids: dict[int, list[int]] = {}
        samplers: dict[int, CaptionSampler] = {}
        for row, story in enumerate(self._stories):
            if story.given.caption is None and story.given.features is None:
                samplers[row], ids[row] = self._sampler(story), []

        def choose(row: int, scores: dict[int, torch.Tensor]) -> int | None:
            caption = self._add_token(row, samplers[row], scores, ids[row], callback_on_text)
            if caption is None:
                return ids[row][-1]
            captions[row] = caption
            return None

        self._decode(samplers, choose, guided=True)
        return captions

    def _decode(
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
        with_partners = self._with_unconditional_rows if guided else list
        try:
            asked = with_partners(left)
            logits = self._cast(self.model.caption_logits, self._next[asked])
            while left:
                scores = dict(zip(asked, logits, strict=True))
                chosen = {row: choose(row, scores) for row in left}
                left = [row for row in left if chosen[row] is not None]
                asked = with_partners(left)
                if asked:
                    tokens = [token for row in asked if (token := chosen[row % len(self._stories)]) is not None]
                    logits = self._step(self.cache, tokens, asked)
        finally:  # also when `callback_on_text` or a logits processor raises: the page can then be written again
            self.cache.drop_last([row.position - at for row, at in zip(self.cache.rows, before, strict=True)])

    def _read_opening_states(self, ids: list[list[int]]) -> "_OpeningStates":
        """Write the story states that stand in first pages, and read these pages' captions, which come before them.

        Args:
            ids: Ids of each story's caption.
        """
        rows = [row for row, story in enumerate(self._stories) if story.opens_with_state]
        if not rows:
            return _OpeningStates()
        captions = [self._embed(own if row in rows else []) for row, own in enumerate(ids)]
        hidden = self._read(captions)
        ends = [own[-1] if len(own) else self._next[row] for row, own in enumerate(hidden[: len(ids)])]
        self._next = torch.stack(ends)
        states, tokens = self._write_states(dict.fromkeys(rows, 1)), {}
        for row, state in states.items():
            story, start = self._stories[row], self.cache.rows[row].position
            tokens[row] = self.layout.opening_state_ids(state, story.labels[1])
            story.read_states.append((1, self._embed(tokens[row])))
            story.pin = (start, start + len(tokens[row]))
        return _OpeningStates(states, tokens, {row: captions[row] for row in rows}, {row: hidden[row] for row in rows})

    def _write_states(self, pages: dict[int, int]) -> dict[int, StoryState]:
        """The story states of these pages, by row, given or written."""
        states: dict[int, StoryState] = {}
        samplers: dict[int, StateSampler] = {}
        for row, page in pages.items():
            story = self._stories[row]
            given = story.states.get(page, StoryState())
            if page in story.fixed_states:
                states[row] = given
                continue
            given = replace(given, cast=given.cast or story.cast)
            samplers[row] = self._state_sampler(story.labels[page], given, story.seed_of(page), page)
        self._decode(samplers, lambda row, scores: samplers[row](scores[row]), guided=False)
        states |= {row: sampler.state() for row, sampler in samplers.items()}
        for row, state in states.items():
            self._stories[row].cast = state.cast or self._stories[row].cast
        return states

    def _state_sampler(self, label: int, given: StoryState | None, seed: int, page: int) -> StateSampler:
        return StateSampler(
            self.sampling,
            self.layout,
            label,
            given=given,
            forbidden_ids=self._forbidden_ids,
            generator=page_generator(seed, -page),
        )

    def _add_token(
        self,
        row: int,
        sampler: CaptionSampler,
        scores: dict[int, torch.Tensor],
        ids: list[int],
        callback_on_text: Callable[[int, str], Any] | None,
    ) -> str | None:
        """Choose the next token of a caption; the whole caption if that ends it."""
        logits = scores[row]
        if self._is_guided:
            logits = apply_guidance(logits, scores[row + len(self._stories)], self.sampling.text_guidance_scale)
        token = sampler(logits, ids)
        if token == self.layout.image_start_id:
            return self._plain_text(ids)
        ids.append(token)
        if callback_on_text is not None:
            callback_on_text(self._stories[row].index, self._plain_text(ids))
        if sampler.reads_text:
            caption = sampler.finished(self._plain_text(ids), ids)
            if caption is not None:
                return caption
        if len(ids) < self.sampling.max_caption_tokens:
            return None
        caption = self._plain_text(ids)
        ends = [end for end in sentence_ends(caption) if end * 3 > len(caption)]
        return caption[: ends[-1]] if ends else caption

    def _sampler(self, story: _Story) -> CaptionSampler:
        return CaptionSampler(
            self.sampling,
            end_id=self.layout.image_start_id,
            forbidden_ids=self._forbidden_ids,
            history=story.history,
            generator=page_generator(story.seed_of(story.index), story.index),
            logits_processor=None if self.logits_processor is None else partial(self.logits_processor, story.index),
        )

    def _plain_text(self, ids: Sequence[int]) -> str:
        # Letters may happen to spell the name of a special token, which no caption can hold.
        return " ".join(self.layout.without_special_tokens(self.layout.caption_text(ids)).split())

    def _log_likelihood(self, before: torch.Tensor, ids: Sequence[int], hidden: torch.Tensor) -> float:
        """Log-probability of a caption and its `<img>`, from hidden states before, `[D]`, and at it, `[T, D]`."""
        return caption_log_likelihood(self.model, self._cast, before, hidden, ids)

    # --------------------------------------------------------------------------------------------------- turn a page

    def _advance_pages(
        self, features: list[torch.Tensor], image_starts: list[int]
    ) -> tuple[list[int], dict[int, StoryState]]:
        """Read the pages' pictures, the next pages' states and labels, then let the cache forget.

        Args:
            features: Features of each story's picture, `[F, Df]`.
            image_starts: Position of each `<img>`.

        Returns:
            Tokens that each story holds afterwards, and the states that stand before next pages, by row. Stories that
            have ended are left out from now on.
        """
        stories = self._stories
        for story in stories:
            story.index += 1
        going = [row for row, story in enumerate(stories) if story.index < story.pages]
        num_kept = [row.length for row in self.cache.rows[: len(stories)]]
        if not going:
            self._stories = []
            return num_kept, {}
        if len(going) < len(stories):
            self.cache.select(self._with_unconditional_rows(going))
            self._stories = stories = [stories[row] for row in going]
            features, image_starts = [features[row] for row in going], [image_starts[row] for row in going]
        images = self._cast(self.model.embed_images, torch.stack(features))
        pieces = []
        for row, story in enumerate(stories):
            image = torch.cat([images[row].to(story.text.dtype), self._embed([self.layout.image_end_id])])
            if self.policy.recomputes:
                page = torch.cat([self._embed(self._label_ids(story, story.index - 1)), story.text, image])
                story.window = [*story.window, page][-self.policy.window_pages :]
                self.cache.reset(row)
                image = torch.cat([self._embed(self.layout.opening_ids), *story.reread()])
            label = self._embed([] if story.needs_state else self._label_ids(story, story.index))
            pieces.append(torch.cat([image, label]))
        if any(story.needs_state for story in stories):
            states = self._open_page_with_states(pieces)
        else:
            states = {}
            self._next = self._open_page(pieces)
        if not self.policy.recomputes:
            for row, (story, start) in enumerate(zip(stories, image_starts, strict=True)):
                if story.pin is not None:
                    self.cache.pin(row, *story.pin)
                    story.pin = None
                self.cache.end_page(row, start, start + self.layout.num_visual_tokens + 1, story.caption)
            self.cache.evict()
        for row, now in zip(going, self.cache.rows, strict=False):
            num_kept[row] = now.length
        return num_kept, {going[row]: state for row, state in states.items()}

    def _open_page_with_states(self, pieces: list[torch.Tensor]) -> dict[int, StoryState]:
        """Open pages, of which some have a story state before their label.

        Args:
            pieces: What each story reads before the state, or with its label if it has none, `[T, D]` each.

        Returns:
            The states, by row.
        """
        first = self._read(pieces)[: len(pieces)]
        self._next = torch.stack([hidden[-1] for hidden in first])
        waiting = {row: story.index for row, story in enumerate(self._stories) if story.needs_state}
        states, pieces = self._write_states(waiting), [piece[:0] for piece in pieces]
        for row, state in states.items():
            story = self._stories[row]
            own = self._embed(self.layout.state_ids(state, story.labels[story.index]))
            start = self.cache.rows[row].position
            story.pin = (start, start + len(own))
            story.read_states.append((story.index, own))
            pieces[row] = torch.cat([own, self._embed(self._label_ids(story, story.index))])
        self._next = self._open_page(pieces, first)
        return states

    def _open_page(self, pieces: list[torch.Tensor], before: list[torch.Tensor] | None = None) -> torch.Tensor:
        """Read what opens each story's next page, `[T, D]` each; hidden states at the ends, `[B, D]`.

        What has nothing left to read ends as `before`, the hidden states of the pass before, does.
        """
        if self._is_guided:
            for row, story in enumerate(self._stories, len(self._stories)):
                self.cache.reset(row)
                pieces = [*pieces, self._embed(self._opening_ids(story))]
        ends = [hidden[-1:] for hidden in self._read(pieces)]
        if before is not None:
            ends[: len(before)] = [end if len(end) else was[-1:] for end, was in zip(ends, before, strict=False)]
        return torch.cat(ends)

    def _opening_ids(self, story: _Story) -> list[int]:
        return [*self.layout.opening_ids, *self._label_ids(story, story.index)]

    def _label_ids(self, story: _Story, index: int) -> list[int]:
        return self.layout.page_label_ids(story.labels[index])

    def _with_unconditional_rows(self, rows: Iterable[int]) -> list[int]:
        """Rows of the cache that belong to these stories."""
        rows = list(rows)
        return [*rows, *(row + len(self._stories) for row in rows)] if self._is_guided else rows

    def _per_row(self, count: int) -> list[int]:
        """A number for every row: `count` for stories, 0 for their partners."""
        return [count] * len(self._stories) + [0] * (len(self.cache.rows) - len(self._stories))

    def _embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings of ids, `[T, D]`."""
        return embed_ids(self.model, ids)

    def _read(self, pieces: list[torch.Tensor]) -> list[torch.Tensor]:
        """Hidden states of each row's next tokens, which enter the cache: `[T, D]` each → `[T, D]` each.

        Rows of which nothing is read stay as they are.
        """
        return forward_rows(self.model, self.cache, self._cast, pieces)
