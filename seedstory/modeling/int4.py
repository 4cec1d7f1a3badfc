"""Weights in four bits: 4.5 bits a weight with what scales them, on any device and without another library.

Each run of 64 weights of a row (a group) has a scale and a lowest value of its own: `w = low + scale * q` with q in
0..15. Both are rounded to bfloat16 before the weights are, so rounding alone is at most half a scale, plus what the
lowest value lost. Activations stay as they are.

Shape legend: `O` rows, `I` columns, `G` groups of a row.
"""

from collections.abc import Callable

import torch
from torch import nn

GROUP = 64
LEVELS = 15
_AT_ONCE = 2**24  # weights that are unpacked at once, so that a matrix never stands in memory whole


class Int4Linear(nn.Module):
    """A linear layer whose weight is stored in four bits, a scale and a lowest value for each group.

    Args:
        linear: The layer that is taken over; its rows are a multiple of `GROUP` long.

    Attributes:
        packed: Two weights a byte, the first of a pair in the low half, uint8, `[O, I / 2]`.
        scale: bfloat16, `[O, G]`.
        low: bfloat16, `[O, G]`.
        bias: As in `linear`.
    """

    packed: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        step = max(1, _AT_ONCE // self.in_features)
        parts = [_pack(weight[row : row + step].float()) for row in range(0, self.out_features, step)]
        for name, stored in zip(("packed", "scale", "low"), zip(*parts, strict=True), strict=True):
            self.register_buffer(name, torch.cat(stored))
        self.bias = linear.bias
        self.requires_grad_(False)

    @staticmethod
    def fits(linear: nn.Linear) -> bool:
        """Whether the rows of a layer are whole groups."""
        return linear.in_features % GROUP == 0

    def weight_rows(self, start: int, end: int) -> torch.Tensor:
        """Some rows of the weight, float32, `[end - start, I]`."""
        packed = self.packed[start:end]
        levels = torch.stack([packed & 15, packed >> 4], dim=-1).view(end - start, -1, GROUP).float()
        scale, low = (one[start:end, :, None].float() for one in (self.scale, self.low))
        return torch.addcmul(low, levels, scale).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = max(1, _AT_ONCE // self.in_features)
        rows = [(start, min(start + step, self.out_features)) for start in range(0, self.out_features, step)]
        parts = [nn.functional.linear(x, self.weight_rows(*some).to(x.dtype)) for some in rows]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return out if self.bias is None else out + self.bias

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "Int4Linear":
        # What scales the weights keeps its type, whatever type the rest of the model is moved to.
        scale, low = self.scale, self.low
        super()._apply(fn, recurse)
        self.scale, self.low = scale.to(self.packed.device), low.to(self.packed.device)
        return self


def _pack(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs of four bits, scales and lowest values of rows `[O, I]` in float32."""
    groups = weight.unflatten(-1, (-1, GROUP))
    lowest, highest = groups.amin(-1), groups.amax(-1)
    low = lowest.bfloat16()
    scale = ((highest - low.float()) / LEVELS).clamp(min=1e-12).bfloat16()
    levels = ((groups - low.float()[..., None]) / scale.float()[..., None]).round().clamp(0, LEVELS).to(torch.uint8)
    pairs = levels.flatten(1).unflatten(-1, (-1, 2))
    return pairs[..., 0] | pairs[..., 1] << 4, scale, low
