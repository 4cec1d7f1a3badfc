"""Classifier-free guidance of a de-tokenizer: what is predicted for the features, away from what is for none.

Shapes: B batch, F features of a picture, D width of a feature, Z latent channels, h w latent grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seedstory.detokenizers.adapters import Condition
from seedstory.errors import ModelError

if TYPE_CHECKING:
    from seedstory.detokenizers.detokenizer import Detokenizer

EVERY_STEP = (0.0, 1.0)


def check_interval(interval: tuple[float, float]) -> None:
    """Refuse what is no share of the steps.

    Raises:
        ModelError: It is not 0 <= from <= to <= 1.
    """
    fits = isinstance(interval, tuple | list) and len(interval) == 2
    if (
        not fits
        or not all(isinstance(end, int | float) for end in interval)
        or not 0 <= interval[0] <= interval[1] <= 1
    ):
        raise ModelError(
            f"guidance_interval must be two numbers, 0 <= from <= to <= 1, such as (0.1, 0.8), not {interval!r:.60}"
        )


class GuidedPredictor:
    """Predicts for one batch of pictures, step by step; what stays the same in all steps is computed here once.

    Args:
        detokenizer: Whose U-Net predicts.
        features: [B, F, D], where the U-Net is and in its type.
        steps: Of the way from noise to latents.
        scale: Of guidance; 1.0 and less is none, as in diffusers.
        interval: Share of the steps in which guidance steers.
    """

    def __init__(
        self, detokenizer: Detokenizer, features: Tensor, steps: int, scale: float, interval: tuple[float, float]
    ) -> None:
        self.detokenizer, self.steps, self.scale, self.interval = detokenizer, steps, scale, interval
        self._time: Tensor | None = None
        self._step = -1
        shown = detokenizer.adapter(features)
        self._shown = detokenizer.prepared(shown)
        self._hidden: Condition | None = None
        self._joined: Condition | None = None
        if scale <= 1.0 or not any(self._is_guided(step) for step in range(steps)):
            return
        hidden = detokenizer.adapter(detokenizer.adapter.blank(features))
        if detokenizer.guides_in_one_pass:
            self._joined = detokenizer.prepared(join(shown, hidden))
        else:
            self._hidden = detokenizer.prepared(hidden)

    def _is_guided(self, step: int) -> bool:
        share = (step + 0.5) / self.steps  # the middle of a step, so that (0, 1) is all of them
        return self.interval[0] <= share <= self.interval[1]

    def __call__(self, latents: Tensor, time: Tensor) -> Tensor:
        """The prediction [B, Z, h, w] in float32 from latents [B, Z, h, w] at a time."""
        if self._time is None or bool(time != self._time):
            self._time, self._step = time, self._step + 1
        batch, owner = len(latents), self.detokenizer
        noisy, times = latents.to(owner.dtype), time.to(owner.device).expand(batch)
        guided = self._is_guided(min(self._step, self.steps - 1))
        if guided and self._joined is not None:
            both = owner.predict(torch.cat([noisy, noisy]), times.repeat(2), self._joined).float()
            shown, hidden = both.chunk(2)
        else:
            shown = owner.predict(noisy, times, self._shown).float()
            if not guided or self._hidden is None:
                return shown
            hidden = owner.predict(noisy, times, self._hidden).float()
        return hidden + self.scale * (shown - hidden)


def join(first: Condition, second: Condition) -> Condition:
    """Two conditions as those of one batch, [2B, ...] from [B, ...] and [B, ...]."""

    def joined(one: Any, other: Any) -> Any:
        if isinstance(one, Mapping):
            return {key: joined(one[key], other[key]) for key in one}
        return torch.cat([one, other])

    overlay = None if first.overlay is None else joined(first.overlay, second.overlay)
    return Condition(overlay, joined(first.inputs, second.inputs))
