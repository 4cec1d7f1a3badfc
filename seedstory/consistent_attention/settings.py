"""What consistent self-attention may be asked for, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from seedstory.consistent_attention.sampling import SAMPLERS, Keep, Storage
from seedstory.errors import RequestError


@dataclass(frozen=True)
class ConsistentAttentionSettings:
    """How images share tokens. Points of a run are shares of it, from 0 to 1, whatever its number of steps.

    Args:
        rate: Share of an image's tokens that others see (Eq. 2 of the paper; 0.5 there). A mapping gives a rate for
            some sizes, by the side of their tokens in pixels of the latent image (1, 2, 4); other sizes share nothing.
        start: Nothing is shared before this point of the run.
        probability: Points from which a layer shares in a step with this probability. The released code draws
            `((0.0, 0.7), (0.4, 0.9))`; the paper always shares, as this default does.
        sampler: "fixed" takes the same number of tokens of every image, at random; "bernoulli" each token by itself,
            as the paper does; "grid" evenly.
        seed: Of what is drawn at random.
        window: Images of one batch see those in a window of so many only, and the outputs of all windows that an
            image is in are averaged (Algorithm 1 of the paper). None: all of them.
        bank_steps: At how many points of the run a bank keeps tokens, evenly; between them the nearest earlier ones
            are read. None: at every step.
        keep: "hidden" keeps what the layer reads, which stays right when a LoRA's weight changes; "kv" its keys and
            values, which is twice as much and spares their projection.
        storage: "float" as the network computes, or "int8" with a scale for each token.
        device: Where banks lie; None: where the network is.

    Raises:
        RequestError: A value is out of its range.
    """

    rate: float | Mapping[int, float] = 0.5
    start: float = 0.02
    probability: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    sampler: str = "fixed"
    seed: int = 0
    window: int | None = None
    bank_steps: int | None = None
    keep: str = "hidden"
    storage: str = "float"
    device: str | None = field(default=None)

    def __post_init__(self) -> None:
        rates = self.rate.values() if isinstance(self.rate, Mapping) else [self.rate]
        for name, values in (("rate", rates), ("start", [self.start])):
            for value in values:
                _check_share(name, value)
        if not self.probability or any(len(point) != 2 for point in self.probability):
            raise RequestError("probability is a list of pairs: a point of the run, and a probability from there on")
        for point, probability in self.probability:
            _check_share("probability", point)
            _check_share("probability", probability)
        if list(self.probability) != sorted(self.probability, key=lambda pair: pair[0]):
            raise RequestError("the points of probability must be in order")
        for name, choice, known in (
            ("sampler", self.sampler, tuple(SAMPLERS)),
            ("keep", self.keep, get_args(Keep)),
            ("storage", self.storage, get_args(Storage)),
        ):
            if choice not in known:
                raise RequestError(f"unknown {name} {choice!r}: choose one of {', '.join(known)}")
        for name, number in (("window", self.window), ("bank_steps", self.bank_steps)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                raise RequestError(f"{name} must be a whole number from 1, or nothing, not {number!r}")

    def rate_of(self, side: int) -> float:
        """The rate for tokens of so many pixels of the latent image a side."""
        return self.rate.get(side, 0.0) if isinstance(self.rate, Mapping) else self.rate

    def probability_at(self, point: float) -> float:
        """With which probability a layer shares at a point of the run."""
        if point < self.start:
            return 0.0
        passed = [probability for begin, probability in self.probability if begin <= point]
        return passed[-1] if passed else 0.0


def _check_share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RequestError(f"{name} must lie between 0 and 1, not {value!r}")
