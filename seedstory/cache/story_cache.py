"""The keys and values of one story as a transformers `Cache` that forgets at page boundaries only.

Shape legend: `H` key heads of width `Dh`, `S` sink tokens, `W` tokens of the window, in one story (batch 1).

Positions. A token's keys carry the rotation of its place in the story. Recent pages (the window) keep it. When pages
are evicted, their remaining tokens (the sinks) are moved up until they stand right before the window, each time from
a pristine copy, so that errors do not add up. All distances are then those of a reader who stores un-rotated keys and
numbers what is in the cache 0, 1, 2, ..., which is how StreamingLLM defines it (arXiv 2309.17453, section 3.2).
"""

import torch
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from seedstory.cache.policy import CachePolicy, PageSpan
from seedstory.cache.rotation import KeyRotation

_BLOCK = 256


class StoryCacheLayer(CacheLayerMixin):
    """Keys and values of one layer: `S` sinks, then `W` tokens of the window, in one growing buffer.

    Attributes:
        length: `S + W`, tokens held.
        forgotten: Tokens of the story that are not held; `length + forgotten` is the next token's position.
        pristine: Keys of the sinks as the model made them, `[1, H, S, Dh]`, or None.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.forgotten = 0
        self.pristine: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_empty(*key_states.shape[:2], 0, key_states.shape[-1])
        self.values = value_states.new_empty(*value_states.shape[:2], 0, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            self.keys, self.values = (_grown(buffer, self.length, end) for buffer in (self.keys, self.values))
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens: `crop(-3)` forgets three."""
        if not -self.length <= tokens_to_remove <= 0:
            raise ValueError(f"Give the number of tokens to remove as a negative number, got {tokens_to_remove}.")
        self.length += tokens_to_remove

    def keep(self, kept: torch.Tensor, sinks: int, held_sinks: int, rotation: KeyRotation, shift: torch.Tensor) -> None:
        """Forget all tokens but some and move those of evicted pages up.

        Args:
            kept: Sorted indices into what is held, the sinks first, `[S' + W']`.
            sinks: `S'`, how many of them are sinks from now on.
            held_sinks: `S`, how many tokens held were sinks before.
            rotation: Moves keys.
            shift: Distance from a sink's place in the story to its place before the window, `[S']`.
        """
        pristine = self.keys[:, :, kept[:sinks]]
        if self.pristine is not None:
            old = int((kept[:sinks] < held_sinks).sum())
            pristine[:, :, :old] = self.pristine[:, :, kept[:old]]
        self.forgotten += self.length - len(kept)
        self.length = len(kept)
        self.pristine = pristine if sinks else None
        # Index before writing: the source and the destination overlap.
        self.keys[:, :, : self.length] = self.keys[:, :, kept]
        self.values[:, :, : self.length] = self.values[:, :, kept]
        if sinks:
            self.keys[:, :, :sinks] = rotation.shift(pristine, shift)

    def reset(self) -> None:
        self.length = self.forgotten = 0
        self.pristine = None

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, self.forgotten

    def get_seq_length(self) -> int:
        return self.length + self.forgotten

    def get_max_length(self) -> int:
        return -1


def _grown(buffer: torch.Tensor, used: int, needed: int) -> torch.Tensor:
    capacity = -(-needed // _BLOCK) * _BLOCK
    larger = buffer.new_empty(*buffer.shape[:2], capacity, buffer.shape[-1])
    larger[:, :, :used] = buffer[:, :, :used]
    return larger


class StoryCache(Cache):
    """Keys and values of one story under a `CachePolicy`.

    The engine says where pages lie (`end_page`) and when to forget (`evict`); everything else is a plain `Cache`.

    Args:
        llm: The language model whose keys and values are held.
        policy: What is kept.

    Raises:
        ValueError: If the policy evicts and the model's keys cannot be moved.
    """

    def __init__(self, llm: PreTrainedModel, policy: CachePolicy) -> None:
        super().__init__(layers=[StoryCacheLayer() for _ in range(llm.config.num_hidden_layers)])
        self.policy = policy
        self.rotation = KeyRotation.of(llm) if policy.bounded else None
        self.pages: list[PageSpan] = []
        self.evicted: list[PageSpan] = []
        self.sink_positions: list[int] = []

    @property
    def position(self) -> int:
        """Position of the story's next token."""
        return self.layers[0].get_seq_length()

    @property
    def held(self) -> int:
        """Tokens held."""
        return self.layers[0].length

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, used or not."""
        tensors = [part for layer in self.layers for part in (layer.keys, layer.values, layer.pristine)]
        return sum(part.nbytes for part in tensors if part is not None)

    def position_ids(self, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """Positions of the next `count` tokens, `[1, count]`."""
        return torch.arange(self.position, self.position + count, device=device).unsqueeze(0)

    def causal_mask(self, count: int, device: torch.device | str = "cpu") -> torch.Tensor | None:
        """Mask of the next `count` tokens over what is held and themselves, `[1, 1, count, held + count]`."""
        if count == 1:
            return None
        mask = torch.ones(count, self.held + count, dtype=torch.bool, device=device)
        return mask.tril(self.held)[None, None]

    def forget_last(self, count: int) -> None:
        """Forget the last `count` tokens; they must belong to the page being written."""
        for layer in self.layers:
            layer.crop(-count)
        assert self.position >= (self.pages[-1].end if self.pages else 0), "only the open page may be cropped"

    def end_page(self, image_start: int, image_end: int) -> None:
        """Note that a page has ended.

        Args:
            image_start: Position of its `<img>`.
            image_end: Position of its `</img>`.
        """
        start = self.pages[-1].end if self.pages else self.evicted[-1].end if self.evicted else 0
        assert start <= image_start < image_end < self.position, "a page must lie inside the cache"
        self.pages.append(PageSpan(start, image_start, image_end))

    def evict(self) -> None:
        """Forget the pages that the policy does not keep whole. Call it at page boundaries only."""
        if not self.policy.bounded or len(self.pages) <= self.policy.window_pages:
            return
        count = len(self.pages) - self.policy.window_pages
        leaving, self.pages = self.pages[:count], self.pages[count:]
        # Of the pages that left earlier, the policy only ever asks for the first and for recent ones.
        self.evicted = [*self.evicted, *leaving]
        self.evicted = [*self.evicted[:1], *self.evicted[1:][-max(1, self.policy.sink_budget) :]]
        held_sinks = len(self.sink_positions)
        window_start = self.position - (self.held - held_sinks)
        index = {position: place for place, position in enumerate(self.sink_positions)}
        index |= {place: held_sinks + place - window_start for place in range(window_start, self.pages[0].start)}
        sinks = [position for position in self.policy.sinks(self.evicted) if position in index]
        recent = range(held_sinks + self.pages[0].start - window_start, self.held)
        device = self.layers[0].device
        kept = torch.tensor([*(index[position] for position in sinks), *recent], device=device)
        first = self.pages[0].start - len(sinks)
        shift = torch.tensor([first + place - position for place, position in enumerate(sinks)])
        for layer in self.layers:
            layer.keep(kept, len(sinks), held_sinks, self.rotation, shift)
        self.sink_positions = sinks

    def reset(self) -> None:
        """Forget everything but the buffers."""
        super().reset()
        self.pages, self.evicted, self.sink_positions = [], [], []
