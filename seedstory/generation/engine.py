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

Several stories may be written together, page by page; each comes out as it would alone. They join and leave between
pages (continuous batching). What is where: `story_rows.py` has the stories' rows in the cache, `caption_writer.py`
step 1, this module steps 2 to 4, `state_writer.py` the story states.

Shape legend: `B` rows, `T` tokens, `D` hidden width, `V` vocabulary of captions, `N` visual tokens, `F` feature tokens
of width `Df`.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence

import torch

from seedstory.cache import CachePolicy, StoryCache
from seedstory.errors import RequestError
from seedstory.generation.active_story import ActiveStory
from seedstory.generation.caption_writer import CaptionWriter, OnText
from seedstory.generation.decoding import autocast, make_decoding_step
from seedstory.generation.forward import caption_log_likelihood
from seedstory.generation.pages import GivenPage, PageDraft, StoryRequest
from seedstory.generation.sampling import LogitsProcessor, SamplingConfig, page_generator
from seedstory.generation.state_writer import StateWriter
from seedstory.generation.story_rows import StoryRows
from seedstory.layout import countdown
from seedstory.modeling import StoryModel
from seedstory.salience import Salience, by_capitals
from seedstory.story import page_seed
from seedstory.story_state import StoryState


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
        self._cast = autocast(model)
        self.decoding, self._step = make_decoding_step(decoding, model, self._cast)
        first, tokenizer = model.config.image_start_id, self.layout.tokenizer
        special = {self.layout.eos_id, *tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        forbidden_ids = sorted(id for id in special if id < first)
        self._rows = StoryRows(model, self.layout, self.policy, self.sampling, self._step, self._cast, salience)
        self._captions = CaptionWriter(self._rows, forbidden_ids, logits_processor)
        self._states = StateWriter(self._rows, forbidden_ids)
        self._joining: list[ActiveStory] = []
        self._leaving: set[int] = set()
        self._written: deque[PageDraft] = deque()  # pages that nobody has asked for yet
        self._count = 0
        self._started = False

    @property
    def cache(self) -> StoryCache:
        """Keys and values of the stories under way."""
        return self._rows.cache

    @property
    def stories(self) -> list[int]:
        """Numbers of the stories under way, those included that join before the next page."""
        numbers = [story.number for story in [*self._rows.stories, *self._joining]]
        return [number for number in numbers if number not in self._leaving]

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
        """Begin stories that are written together, page by page, in place of those under way.

        Args:
            stories: The stories; they may differ in length. Their numbers begin at 0 again.
            score: As in `start`.

        Raises:
            RequestError: As `start`; or there is no story.
        """
        if not stories:
            raise RequestError("There is no story to start.")
        for story in stories:
            self._check(story)
        self._end_all()
        self._count = 0
        for story in stories:
            self.add(story, score=score)
        self._join_and_leave()

    def add(self, story: StoryRequest, *, score: bool = False) -> int:
        """Let a story join those under way; its first page is written with their next ones.

        It comes out as it would alone. With static decoding the cache grows where the story needs more room than there
        is: rows that come and go change the shapes of a compiled step anyway.

        Args:
            story: The story.
            score: As in `start`.

        Returns:
            Its number, which no other story gets until `start` or `start_batch` begins anew.

        Raises:
            RequestError: As `start`.
        """
        self._check(story)
        self._joining.append(ActiveStory(self._count, story, score=score))
        self._count, self._started = self._count + 1, True
        return self._count - 1

    def remove(self, number: int) -> None:
        """Let a story go before its end: no page of it comes any more. The others do not notice.

        Args:
            number: As `add` returned it.

        Raises:
            RequestError: If no such story is under way.
        """
        if number not in {*self.stories, *(draft.story for draft in self._written)}:
            raise RequestError(f"Story {number} is not under way: it has ended, was removed, or was never added.")
        self._joining = [story for story in self._joining if story.number != number]
        self._leaving |= {number} & {story.number for story in self._rows.stories}
        self._written = deque(draft for draft in self._written if draft.story != number)

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
            self.layout.caption_ids(page.caption or "", first=index == 0)
        labels = countdown(story.pages)
        if not all(0 < page < story.pages for page in story.state_pages):
            raise RequestError(f"A story state stands before a page from the second on: {sorted(story.state_pages)}.")
        if not story.states.keys() <= set(story.state_pages):
            raise RequestError("A story state is given for a page before which none shall stand.")
        if not all(0 <= page < story.pages for page in story.page_seeds):
            raise RequestError(f"A seed is given for a page that the story does not have: {sorted(story.page_seeds)}.")
        for at in set(story.state_pages) - set(story.fixed_states):
            self._states.sampler(labels[at], story.states.get(at), story.seed_of(at), at)

    @torch.inference_mode()
    def _join_and_leave(self) -> None:
        if self._joining or self._leaving:
            joining, leaving, self._joining, self._leaving = self._joining, self._leaving, [], set()
            try:
                self._rows.change(joining, leaving)
            except BaseException:  # some rows have changed
                self._end_all()
                raise

    def _end_all(self) -> None:
        self._rows.stories, self._joining, self._leaving, self._started = [], [], set(), False
        self._written.clear()

    # --------------------------------------------------------------------------------------------------------- write

    def pages(self, callback_on_text: OnText | None = None) -> Iterator[PageDraft]:
        """Write the pages that are left. Stories may be added and removed between them, and after the last one.

        Args:
            callback_on_text: Called after every token of a caption with the number of the story, the page's index and
                the caption so far. If it raises, the page is written again when pages are next asked for.

        Yields:
            One page at a time, of every story in turn; the next pages are not begun before they are asked for.

        Raises:
            RequestError: If no story was started, or the model returns NaN.
        """
        self._check_started()
        while self._written or self._joining or self._rows.stories:
            if not self._written:
                self._written.extend(self._write_pages(callback_on_text))
            if self._written:
                yield self._written.popleft()

    def next_pages(self, callback_on_text: OnText | None = None) -> list[PageDraft]:
        """Write the next page of every story; none if there is no story under way.

        Args:
            callback_on_text: As in `pages`.

        Raises:
            RequestError: As `pages`.
        """
        self._check_started()
        drafts = list(self._written) or self._write_pages(callback_on_text)
        self._written.clear()
        return drafts

    def _check_started(self) -> None:
        if not self._started:
            raise RequestError("No story was started; call engine.start(opening, pages=...) first.")

    @torch.inference_mode()
    def _write_pages(self, callback_on_text: OnText | None) -> list[PageDraft]:
        """The next page of every story."""
        self._join_and_leave()
        if not self._rows.stories:
            return []
        times = [time.perf_counter()]
        captions = self._captions.write(callback_on_text)
        try:
            drafts = self._finish_pages(captions, times)
        except BaseException:  # half a page is in the cache
            self._end_all()
            raise
        return [draft for draft in drafts if draft.story not in self._leaving]

    def _finish_pages(self, captions: list[str], times: list[float]) -> list[PageDraft]:
        """Pictures of the pages whose captions are chosen, which the cache then turns."""
        rows, stories = self._rows, self._rows.stories
        ids = [
            self.layout.caption_ids(caption, first=story.index == 0)
            for story, caption in zip(stories, captions, strict=True)
        ]
        times.append(time.perf_counter())

        # The queries are read even if the picture is given, so that a restored page repeats its first writing exactly.
        count = self.layout.num_visual_tokens
        start_id, query_ids = self.layout.image_start_id, self.layout.query_ids
        captions_before = rows.next
        early = self._states.read_opening_states(ids)
        texts = [rows.embed([*early.ids.get(row, own), start_id, *query_ids]) for row, own in enumerate(ids)]
        image_starts = [row.position + len(text) - count - 1 for row, text in zip(rows.cache.rows, texts, strict=False)]
        hidden = rows.read(texts)
        rows.cache.drop_last(rows.per_row(count))
        queries = torch.stack([part[-count:] for part in hidden[: len(ids)]])
        drawn = self._cast(self.model.decode_features, queries, self._image_noise()).float()
        features = [
            new if story.given.features is None else story.given.features.to(new.device, torch.float32)
            for story, new in zip(stories, drawn, strict=True)
        ]
        read = {**dict(enumerate(hidden[: len(ids)])), **early.hidden}
        scores = [
            caption_log_likelihood(self.model, self._cast, captions_before[row], read[row], own)
            if stories[row].score
            else None
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
        seeds = ((page_seed(story.seed_of(story.index), story.index), story.index) for story in self._rows.stories)
        shape = (config.feature_tokens, config.feature_dim)
        return torch.stack([torch.randn(shape, generator=page_generator(*seed)) for seed in seeds]).to(
            self.model.device
        )

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
        rows, stories = self._rows, self._rows.stories
        for story in stories:
            story.index += 1
        going = [row for row, story in enumerate(stories) if story.index < story.pages]
        num_kept = [row.length for row in rows.cache.rows[: len(stories)]]
        if not going:
            rows.stories = []
            return num_kept, {}
        if len(going) < len(stories):
            rows.keep(going)
            stories = rows.stories
            features, image_starts = [features[row] for row in going], [image_starts[row] for row in going]
        images = self._cast(self.model.embed_images, torch.stack(features))
        pieces = []
        for row, story in enumerate(stories):
            image = torch.cat([images[row].to(story.text.dtype), rows.embed([self.layout.image_end_id])])
            if self.policy.recomputes:
                page = torch.cat([rows.embed(rows.label_ids(story, story.index - 1)), story.text, image])
                story.window = [*story.window, page][-self.policy.window_pages :]
                rows.cache.reset(row)
                image = torch.cat([rows.embed(self.layout.opening_ids), *story.reread()])
            label = rows.embed([] if story.needs_state else rows.label_ids(story, story.index))
            pieces.append(torch.cat([image, label]))
        if any(story.needs_state for story in stories):
            states = self._states.open_pages(pieces)
        else:
            states = {}
            rows.open_pages(pieces)
        if not self.policy.recomputes:
            for row, (story, start) in enumerate(zip(stories, image_starts, strict=True)):
                if story.pin is not None:
                    rows.cache.pin(row, *story.pin)
                    story.pin = None
                rows.cache.end_page(row, start, start + self.layout.num_visual_tokens + 1, story.caption)
            rows.cache.evict()
        for row, now in zip(going, rows.cache.rows, strict=False):
            num_kept[row] = now.length
        return num_kept, {going[row]: state for row, state in states.items()}
