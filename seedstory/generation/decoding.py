"""One token of each story: the step that caption decoding repeats, in four forms with the same numbers.

- `eager`: the model's own layers over the growing cache. Runs anywhere, with any language model.
- `native`: all layers in one call of our C code (see `native/`). For CPUs; reads the weights at the speed of memory.
- `static`: the model's own layers over preallocated buffers, from tensors alone.
- `compiled`: the same, compiled once for the whole story; on CUDA captured as a graph, a single launch a token.

Shape legend: `R` stories that take part of `B` in the cache, `D` hidden width, `V` vocabulary of captions.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from seedstory.cache import StoryCache
from seedstory.generation.native import NativeStep, native_unsupported_reason
from seedstory.modeling import StoryModel
from seedstory.settings import check_decoding

Cast = Callable[..., torch.Tensor]


class Step(Protocol):
    """Reads one token of some of the stories in a cache."""

    static: bool

    def __call__(self, cache: StoryCache, tokens: Sequence[int], rows: Sequence[int]) -> torch.Tensor:
        """Scores of the tokens after.

        Args:
            cache: Grows by one token in the rows that take part.
            tokens: One token for each of these rows.
            rows: The rows that take part, sorted.

        Returns:
            Float scores, `[R, V]`.
        """


class EagerStep:
    """The model's own layers over the growing cache."""

    static = False

    def __init__(self, model: StoryModel, cast: Cast) -> None:
        self.model, self.cast = model, cast

    def __call__(self, cache: StoryCache, tokens: Sequence[int], rows: Sequence[int]) -> torch.Tensor:
        embeds, device = _embeds(self.model, cache, tokens, rows), self.model.device
        positions, mask = cache.position_ids(1, device), cache.causal_mask(1, device)
        hidden = self.cast(self.model.hidden_states, embeds, positions, mask, cache)
        cache.drop_last([int(row not in rows) for row in range(len(cache.rows))])
        return self.cast(self.model.caption_logits, hidden[list(rows), -1])


class StaticStep:
    """The model's own layers over preallocated buffers; nothing in it asks the device for a number.

    Args:
        model: The story model.
        cast: Calls a function under the right autocast.
        compile: Compile it at first use. It then serves a whole story, across evictions.
    """

    static = True

    def __init__(self, model: StoryModel, cast: Cast, *, compile: bool) -> None:
        self.model, self.cast = model, cast
        self._pass: Callable[..., torch.Tensor] = self._forward
        if compile:
            options: dict[str, Any] = {"fullgraph": True, "dynamic": False}
            if model.device.type == "cuda":
                options["mode"] = "reduce-overhead"
            self._pass = torch.compile(self._forward, **options)

    def _forward(self, embeds: torch.Tensor, cache: StoryCache) -> torch.Tensor:
        positions, mask = cache.step_inputs()
        return self.model.caption_logits(self.model.hidden_states(embeds, positions, mask, cache)[:, -1])

    def __call__(self, cache: StoryCache, tokens: Sequence[int], rows: Sequence[int]) -> torch.Tensor:
        embeds = _embeds(self.model, cache, tokens, rows)
        cache.reserve(1)
        with cache.step():
            logits = self.cast(self._pass, embeds, cache)
        cache.advance([int(row in rows) for row in range(len(cache.rows))])
        return logits[list(rows)].clone()


def _embeds(model: StoryModel, cache: StoryCache, tokens: Sequence[int], rows: Sequence[int]) -> torch.Tensor:
    """Embeddings of the tokens, and of any token in the rows that take no part, `[B, 1, D]`."""
    ids = [0] * len(cache.rows)
    for row, token in zip(rows, tokens, strict=True):
        ids[row] = token
    return model.embed_tokens(torch.tensor(ids, device=model.device)[:, None])


def make_decoding_step(name: str, model: StoryModel, cast: Cast) -> tuple[str, Step]:
    """The step of this name.

    Args:
        name: One of `DECODINGS`; `auto` takes `compiled` on CUDA, `native` on a CPU where it fits, else `eager`.
        model: The story model.
        cast: Calls a function under the right autocast.

    Returns:
        The name of what was taken, and the step.

    Raises:
        ValueError: If there is no such step, or it does not fit the model or the machine.
    """
    check_decoding(name)
    if name == "auto":
        if model.device.type == "cuda":
            name = "compiled"
        else:
            name = "eager" if native_unsupported_reason(model) else "native"
    if name == "native":
        reason = native_unsupported_reason(model)
        if reason:
            raise ValueError(f"decoding 'native' cannot be used here: {reason}. Use 'eager' or 'auto'.")
        return name, NativeStep(model)  # the question above has tried it out
    if name == "eager":
        return name, EagerStep(model, cast)
    return name, StaticStep(model, cast, compile=name == "compiled")


def autocast(model: StoryModel) -> Cast:
    """Calls a function as the model's weights need it.

    LoRA that is not merged is float32 on a base that may not be; autocast is how the two meet.
    """
    mixed = any(weight.dtype != model.llm.dtype for weight in model.parameters() if weight.is_floating_point())

    def call(function: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
        context = torch.autocast(model.device.type, model.llm.dtype) if mixed else contextlib.nullcontext()
        with context:
            return function(*args)

    return call
