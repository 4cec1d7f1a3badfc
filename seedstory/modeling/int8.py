"""Weights in eight bits: half the memory, and half the bytes that a decoded token has to read.

Each row of a matrix is stored as int8 with a scale of its own (absmax, symmetric); activations stay as they are.
Rounding alone is at most half a step of the row's largest weight.
"""

from collections.abc import Callable

import torch
from torch import nn


class Int8Linear(nn.Module):
    """A linear layer whose weight is int8 with a scale per row.

    Args:
        linear: The layer that is taken over.

    Attributes:
        weight: int8, `[out, in]`.
        scale: float32, `[out]`.
        bias: As in `linear`.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = nn.functional.linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)
        return out if self.bias is None else out + self.bias

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "Int8Linear":
        # Scales are float32 whatever type the rest of the model is moved to.
        scale = self.scale
        super()._apply(fn, recurse)
        self.scale = scale.to(self.weight.device)
        return self
