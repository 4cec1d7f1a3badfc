"""Which tokens of an image others see, and when: functions of the seed and of what is asked about, never of the order.

So a page that is drawn alone, in a batch, again or after an interruption shows and sees the same tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np

Keep = Literal["hidden", "kv"]
Storage = Literal["float", "int8"]


def _generator(seed: int, *about: int | str) -> np.random.Generator:
    parts = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in about]
    return np.random.default_rng([seed % 2**63, *parts])


def _fixed(count: int, rate: float, generator: np.random.Generator) -> np.ndarray:
    chosen = generator.permutation(count)[: round(rate * count)]
    return np.sort(chosen)


def _bernoulli(count: int, rate: float, generator: np.random.Generator) -> np.ndarray:
    return np.flatnonzero(generator.random(count) < rate)


def _grid(count: int, rate: float, _: np.random.Generator) -> np.ndarray:
    return np.unique(np.floor(np.arange(round(rate * count)) / max(rate, 1e-9)).astype(np.int64).clip(0, count - 1))


SAMPLERS: dict[str, Callable[[int, float, np.random.Generator], np.ndarray]] = {
    "fixed": _fixed,
    "bernoulli": _bernoulli,
    "grid": _grid,
}


def sampled_tokens(sampler: str, count: int, rate: float, *, seed: int, step: int, key: str) -> np.ndarray:
    """Numbers of the tokens of one image that others see in a step, sorted; the same in all layers of a size.

    Args:
        sampler: One of `SAMPLERS`.
        count: Tokens of the image.
        rate: Share of them.
        seed, step: Of the run.
        key: Of the image.
    """
    return SAMPLERS[sampler](count, rate, _generator(seed, 1, step, count, key))


def shares(probability: float, *, seed: int, step: int, layer: str) -> bool:
    """Whether a layer shares in a step."""
    return probability >= 1 or (probability > 0 and _generator(seed, 2, step, layer).random() < probability)
