"""Tokens of finished images that later ones read: a bank for each image, layer and step.

Shape legend: `G` groups of guidance (without and with the prompt), `M` sampled tokens, `C` channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from seedstory.errors import RequestError


@dataclass(frozen=True)
class _Stored:
    """`[G, M, C]`, as floats or as eight bits with a scale for each token."""

    values: torch.Tensor
    scales: torch.Tensor | None
    numbers: torch.Tensor  # of the tokens in their image, [M]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.numbers.nbytes + (0 if self.scales is None else self.scales.nbytes)


@dataclass
class TokenBank:
    """Sampled tokens of images by key, layer and step.

    Args:
        storage: "float" or "int8".
        device: Where they lie; None: where they come from.
    """

    storage: str = "float"
    device: str | None = None
    _images: dict[str, dict[tuple[str, int], _Stored]] = field(default_factory=dict)

    def __contains__(self, key: str) -> bool:
        return key in self._images

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    @property
    def nbytes(self) -> int:
        """Bytes of all tokens."""
        return sum(stored.nbytes for image in self._images.values() for stored in image.values())

    def write(self, key: str, layer: str, step: int, tokens: torch.Tensor, numbers: torch.Tensor) -> None:
        """Keeps tokens of an image, `[G, M, C]`, with their numbers in it, `[M]`."""
        scales = None
        if self.storage == "int8":
            scales = tokens.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
            tokens = (tokens / scales).round().to(torch.int8)
        else:
            tokens = tokens.clone()  # a view would keep the whole batch alive
        stored = [None if part is None else part.to(self.device or part.device) for part in (tokens, scales, numbers)]
        self._images.setdefault(key, {})[layer, step] = _Stored(*stored)  # type: ignore[arg-type]

    def read(self, key: str, layer: str, step: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of an image `[G, M, C]` and their numbers `[M]`, of the type and on the device of a tensor.

        Raises:
            RequestError: The image was not drawn yet, or not with these layers and steps.
        """
        stored = self._images.get(key, {}).get((layer, step))
        if stored is None:
            raise RequestError(
                f"the bank has no tokens of image {key!r} for this step: draw it first, with the same model, size, "
                "scheduler and steps"
            )
        values = stored.values.to(like.device, non_blocking=True).to(like.dtype)
        if stored.scales is not None:
            values = values * stored.scales.to(like.device, non_blocking=True).to(like.dtype)
        return values, stored.numbers.to(like.device, non_blocking=True)

    def drop(self, keys: Iterable[str]) -> None:
        """Forgets images; those that are not known are no error."""
        for key in list(keys):
            self._images.pop(key, None)

    def keys(self) -> list[str]:
        """Images that are kept, in the order in which they came."""
        return list(self._images)
