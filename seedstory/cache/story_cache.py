"""Keys and values of stories as a transformers `Cache` that forgets at page boundaries only.

Shape legend: `B` stories (rows), `K` key heads of width `Dh`, `C` tokens a row has room for, `T` new tokens, `S` sinks.

Positions. A token's keys carry the rotation of its place in the story. Recent pages (the window) keep it. When pages
are evicted, their remaining tokens (the sinks) are moved up until they stand right before the window, each time from
a pristine copy, so that errors do not add up. All distances are then those of a reader who stores un-rotated keys and
numbers what is in the cache 0, 1, 2, ..., which is how StreamingLLM defines it (arXiv 2309.17453, section 3.2).

Rows. Stories of different lengths stand side by side, each from place 0 of its row on. What lies behind a row's
`length` is never seen: a row that takes no part in a pass, or a smaller one, is simply not advanced.

Forms. The growing form makes room as a story needs it. The static form has all room from the start and, in the
one-token step, writes where a tensor says and hands out its buffers whole, so that the step can be compiled or
captured once; a story's lengths are then read from `lengths` on the device, and no step waits for the host.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from seedstory.cache.books import Books
from seedstory.cache.kept_tokens import Eviction, KeptTokens
from seedstory.cache.policy import CachePolicy
from seedstory.cache.rotation import KeyRotation
from seedstory.errors import RequestError
from seedstory.salience import Salience, by_capitals

_BLOCK = 64
_REBASE_AT = 32_768  # float32 angles lose their sharpness in the hundred thousands


class StoryCacheLayer(CacheLayerMixin):
    """Keys and values of one layer, `[B, K, C, Dh]` each; see `StoryCache`, which keeps the books of all layers.

    Attributes:
        pristine: For each row, keys of its sinks as the model made them, `[K, S, Dh]`, or None. They are read once a
            page, so they lie in main memory.
    """

    is_sliding = False
    is_compileable = True

    def __init__(self, books: Books, *, last: bool) -> None:
        super().__init__()
        self.books, self.last = books, last
        self.pristine: list[torch.Tensor | None] = [None] * len(books.rows)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        rows, heads, width = len(self.books.rows), key_states.shape[1], key_states.shape[-1]
        # Zeros, since what lies behind a row's end is masked, and a masked NaN is still a NaN.
        self.keys = key_states.new_zeros(rows, heads, self.books.capacity or 0, width)
        self.values = value_states.new_zeros(rows, heads, self.books.capacity or 0, value_states.shape[-1])
        self.is_initialized = True
        self._mark_static()

    def _mark_static(self) -> None:
        if self.books.capacity is not None and not torch.compiler.is_compiling():
            for buffer in (self.keys, self.values):
                torch._dynamo.mark_static_address(buffer)  # or a captured graph would copy them in at every token

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = key_states.shape[-2]
        if self.books.in_decoding_step:
            rows = torch.arange(key_states.shape[0], device=key_states.device)
            self.keys[rows, :, self.books.lengths] = key_states[:, :, 0]
            self.values[rows, :, self.books.lengths] = value_states[:, :, 0]
            return self.keys, self.values
        starts = [row.length for row in self.books.rows]
        end = max(starts) + count
        self.reserve(end)
        if len(set(starts)) == 1:
            self.keys[:, :, starts[0] : end] = key_states
            self.values[:, :, starts[0] : end] = value_states
        else:
            for row, start in enumerate(starts):
                self.keys[row, :, start : start + count] = key_states[row]
                self.values[row, :, start : start + count] = value_states[row]
        if self.last:
            self.books.advance([count] * len(starts))
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reserve(self, tokens: int) -> None:
        """Grow the buffers, if need be, to hold this many tokens a row."""
        if tokens <= self.keys.shape[-2]:
            return
        if self.books.capacity is not None:
            raise RequestError(
                f"The static cache has room for {self.books.capacity} tokens, but {tokens} are needed: "
                "give it a larger capacity, or shorter captions."
            )
        self.enlarge(tokens)

    def enlarge(self, tokens: int) -> None:
        """Grow the buffers to hold this many tokens a row, in whichever form."""
        if self.is_initialized and tokens > self.keys.shape[-2]:
            self.keys, self.values = (_enlarged(buffer, tokens) for buffer in (self.keys, self.values))
            self._mark_static()

    def evict(
        self, row: int, eviction: Eviction, kept: torch.Tensor, rotate: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        """Keep what an eviction keeps of a row and move its sinks up; `rotate` does that with keys."""
        sinks, old_sinks = eviction.sinks, eviction.old_sinks
        pristine = self.keys[row, :, kept[:sinks]]
        previous = self.pristine[row]
        if previous is not None:
            pristine[:, :old_sinks] = previous.to(pristine.device)[:, kept[:old_sinks]]
        self.pristine[row] = pristine.cpu() if sinks else None
        # Index before writing: the source and the destination overlap.
        self.keys[row, :, : len(kept)] = self.keys[row, :, kept]
        self.values[row, :, : len(kept)] = self.values[row, :, kept]
        if sinks:
            self.keys[row, :, :sinks] = rotate(pristine)

    def select(self, rows: Sequence[int | None]) -> None:
        if self.is_initialized:
            index = torch.tensor([row or 0 for row in rows], device=self.device)
            self.keys, self.values = self.keys[index], self.values[index]
            for place in [at for at, row in enumerate(rows) if row is None]:
                self.keys[place], self.values[place] = 0, 0  # a NaN of another story would be one of this story's, too
            self._mark_static()
        self.pristine = [None if row is None else self.pristine[row] for row in rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        evicted = {row.evicted_count for row in self.books.rows}
        if len(evicted) > 1:
            raise ValueError("Rows have evicted different numbers of tokens: pass the mask of StoryCache.causal_mask.")
        return max(row.length for row in self.books.rows) + query_length, evicted.pop()

    def get_seq_length(self) -> int:
        positions = {row.position for row in self.books.rows}
        if len(positions) > 1:
            raise ValueError("Rows stand at different positions: pass those of StoryCache.position_ids.")
        return positions.pop()

    def get_max_length(self) -> int:
        return -1


def _enlarged(buffer: torch.Tensor, needed: int) -> torch.Tensor:
    capacity = -(-needed // _BLOCK) * _BLOCK
    larger = buffer.new_zeros(*buffer.shape[:2], capacity, buffer.shape[-1])
    larger[:, :, : buffer.shape[-2]] = buffer
    return larger


class StoryCache(Cache):
    """Keys and values of one or several stories under a `CachePolicy`.

    A pass through the model adds its tokens to every row; the engine takes back what was padding (`drop_last`), says
    where pages lie (`end_page`) and when to forget (`evict`).

    Args:
        llm: The language model whose keys and values are held.
        policy: What is kept.
        stories: `B`.
        capacity: Tokens a row has room for, in the static form; None for the growing form.
        salience: Says which names a caption mentions, by which `mm_sink` knows the pages whose words are worth keeping.

    Raises:
        RequestError: If the policy evicts and the model's keys cannot be moved.
    """

    def __init__(
        self,
        llm: PreTrainedModel,
        policy: CachePolicy,
        *,
        stories: int = 1,
        capacity: int | None = None,
        salience: Salience = by_capitals,
    ) -> None:
        self.policy, self.salience = policy, salience
        self.rotations = KeyRotation.of_layers(llm) if policy.bounded else []
        self.books = Books(stories, capacity, llm.device)
        self.rebase_at = _REBASE_AT
        last = llm.config.num_hidden_layers - 1
        super().__init__(layers=[StoryCacheLayer(self.books, last=number == last) for number in range(last + 1)])

    @property
    def rows(self) -> list[KeptTokens]:
        """The books of each story."""
        return self.books.rows

    @property
    def capacity(self) -> int | None:
        """Tokens a row has room for, in the static form."""
        return self.books.capacity

    @property
    def lengths(self) -> torch.Tensor:
        """In the static form, tokens held of each story, on the device, `[B]`."""
        return self.books.lengths

    @property
    def positions(self) -> list[int]:
        """Position of the next token of each story, `[B]`."""
        return [row.position for row in self.rows]

    @property
    def num_kept(self) -> int:
        """Tokens held of the longest row."""
        return max(row.length for row in self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, used or not."""
        layers = [layer for layer in self.layers if layer.is_initialized]
        pristine = [part for layer in layers for part in layer.pristine if part is not None]
        return sum(part.nbytes for part in [*(b for layer in layers for b in (layer.keys, layer.values)), *pristine])

    # --------------------------------------------------------------------------------------------- what a pass needs

    def position_ids(self, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """Positions of the next `count` tokens of each story, `[B, count]`."""
        starts = torch.tensor([row.position for row in self.rows], device=device)
        return starts[:, None] + torch.arange(count, device=device)

    def causal_mask(self, count: int, device: torch.device | str = "cpu") -> torch.Tensor | None:
        """Mask of the next `count` tokens over what is held and themselves, `[B, 1, count, num_kept + count]`."""
        if count == 1 and len(self.rows) == 1:
            return None
        lengths = torch.tensor([row.length for row in self.rows], device=device)
        last_seen = lengths[:, None] + torch.arange(count, device=device)
        return (torch.arange(self.num_kept + count, device=device) <= last_seen[..., None])[:, None]

    def step_inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions `[B, 1]` and mask `[B, 1, 1, C]` of the static form's one-token step, from tensors alone."""
        assert self.capacity is not None, "only the static form has such a step"
        seen = torch.arange(self.capacity, device=self.lengths.device) <= self.lengths[:, None]
        return (self.lengths + self.books.evicted_counts)[:, None], seen[:, None, None]

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Within it, one token of each story is written where `lengths` says, and nothing is counted."""
        self.books.in_decoding_step = True
        try:
            yield
        finally:
            self.books.in_decoding_step = False

    def reserve(self, count: int) -> None:
        """Make room for `count` more tokens of each story, for who writes them without a pass through the model."""
        for layer in self.layers:
            layer.reserve(self.num_kept + count)

    # ------------------------------------------------------------------------------------------------- what is kept

    def advance(self, counts: Sequence[int]) -> None:
        """Note that the next tokens of each story are held; a pass through the model notes it by itself."""
        self.books.advance(counts)

    def drop_last(self, counts: int | Sequence[int]) -> None:
        """Forget the last tokens of each story; they must belong to the page being written."""
        for row, count in zip(self.rows, [counts] * len(self.rows) if isinstance(counts, int) else counts, strict=True):
            row.drop_last(count)
        self.books.sync_device()

    def end_page(self, row: int, image_start: int, image_end: int, caption: str = "") -> None:
        """Note that a page of one story has ended.

        Args:
            row: The story.
            image_start: Position of the page's `<img>`.
            image_end: Position of its `</img>`.
            caption: Its text, which the salience reads.
        """
        self.rows[row].end_page(image_start, image_end, self.salience(caption))

    def pin(self, row: int, start: int, end: int) -> None:
        """Keep tokens behind the last page under every policy: the story state.

        Args:
            row: The story.
            start: Position of the first of them.
            end: Position behind the last of them. What was pinned before is no longer.
        """
        self.rows[row].pin(start, end)

    def evict(self) -> None:
        """Forget the pages that the policy does not keep whole. Call it at page boundaries only."""
        for number, row in enumerate(self.rows):
            eviction = row.evict(self.policy)
            if eviction is not None:
                self._move(number, eviction)
            if self.policy.bounded and row.position > self.rebase_at and row.evicted_count:
                self._rebase(number, row.rebase(), row.length)
        self.books.sync_device()

    def _move(self, row: int, eviction: Eviction) -> None:
        kept = torch.tensor(eviction.kept, device=self.layers[0].device)
        for layer, rotate in zip(self.layers, self._movers(eviction.shift), strict=True):
            layer.evict(row, eviction, kept, rotate)

    def _rebase(self, row: int, base: int, length: int) -> None:
        for layer, rotate in zip(self.layers, self._movers([-base]), strict=True):
            layer.keys[row, :, :length] = rotate(layer.keys[row, :, :length])
            if layer.pristine[row] is not None:
                layer.pristine[row] = rotate(layer.pristine[row].to(layer.keys.device)).cpu()

    def _movers(self, distance: list[int]) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        """For each layer what moves its keys on by these distances."""
        device = self.layers[0].device
        tables = {rotation: rotation.table(torch.tensor(distance), device) for rotation in set(self.rotations)}
        return [partial(rotation.apply, table=tables[rotation]) for rotation in self.rotations]

    def reset(self, row: int | None = None) -> None:
        """Forget everything of one story, or of all, but the buffers."""
        for number in range(len(self.rows)) if row is None else [row]:
            self.rows[number].reset()
            for layer in self.layers:
                layer.pristine[number] = None
        self.books.sync_device()

    def select(self, rows: Sequence[int | None]) -> None:
        """Keep these stories alone, in this order; None is a new one, of which nothing is held yet."""
        for layer in self.layers:
            layer.select(rows)
        self.books.select(rows)

    def enlarge(self, capacity: int) -> None:
        """Give every row of the static form room for this many tokens at least."""
        assert self.capacity is not None, "the growing form grows by itself"
        self.books.capacity = max(self.capacity, -(-capacity // _BLOCK) * _BLOCK)
        for layer in self.layers:
            layer.enlarge(self.capacity)

    def crop(self, max_length: int) -> None:
        """Not supported: rows have lengths of their own; see `drop_last`."""
        raise NotImplementedError("A StoryCache is cropped by drop_last, which takes a count for each row.")

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Not supported: a row is a story, and beams would share its pages."""
        raise NotImplementedError("A StoryCache does not repeat rows: start the engine with more stories.")

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Not supported by this name; see `select`."""
        raise NotImplementedError("A StoryCache selects rows by select.")

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Not supported: stories are sampled, not searched for with beams."""
        raise NotImplementedError("A StoryCache does not reorder rows for beam search.")
