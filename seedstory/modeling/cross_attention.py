"""A resampler of one cross-attention layer, as SEED-Story and Qwen-VL have it, and positions on a grid.

Beside `seedstory.resampler` it has no residual path, no self-attention, no MLP and no norm of what it gives, and only
its keys know where they lie: values have no positions (Qwen-VL, arXiv 2308.12966, section 2.1).

Shape legend: `B` pictures, `F` feature tokens of width `Df`, `N` visual tokens of width `D`, `L` source tokens, `Q`
queries, `W` width of a resampler.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from seedstory.errors import ModelError
from seedstory.resampler import grid_positions


class GridPositions(nn.Module):
    """A fixed table of positions on a square grid, and the same resized to another grid.

    It is resized by bicubic interpolation in float32 and rounded once to the type of the table. That is done when it is
    first asked for, and again only when the table has changed or moved.

    Args:
        table: Positions in row order, `[S * S, W]`.
        side: Side of the other grid.
    """

    def __init__(self, table: torch.Tensor, side: int) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.side = side
        self._known: tuple[tuple[object, ...], torch.Tensor] | None = None

    def forward(self) -> torch.Tensor:
        """The positions on the other grid, `[side * side, W]`."""
        table = self.get_buffer("table")
        state = (table.data_ptr(), table.dtype, table.device, 0 if table.is_inference() else table._version)
        if self._known is None or self._known[0] != state:
            self._known = (state, resize_positions(table, self.side))
        return self._known[1]


def resize_positions(table: torch.Tensor, side: int) -> torch.Tensor:
    """Positions on a square grid, interpolated to another one: `[S * S, W]` → `[side * side, W]`."""
    own = math.isqrt(len(table))
    if own == side:
        return table
    grid = table.float().view(1, own, own, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)


class CrossAttentionResampler(nn.Module):
    """Learned queries on a grid read tokens on a grid, once: `[B, L, Dl]` → `[B, Q, W]`.

    Args:
        num_queries: `Q`, a square number.
        source_tokens: `L`, a square number.
        source_dim: `Dl`; what has the width already is not projected.
        width: `W`, a multiple of 4 and of `heads`.
        heads: Attention heads.
        eps: Of both norms.

    Raises:
        ModelError: Queries or source tokens fill no square grid.
    """

    def __init__(
        self, num_queries: int, source_tokens: int, source_dim: int, *, width: int, heads: int, eps: float = 1e-5
    ) -> None:
        super().__init__()
        for count in (num_queries, source_tokens):
            if math.isqrt(count) ** 2 != count:
                raise ModelError(f"a cross-attention resampler needs tokens on a square grid, and {count} fill none")
        rows, columns = grid_positions(math.isqrt(num_queries), width).chunk(2, dim=1)
        self.positions = GridPositions(torch.cat([columns, rows], dim=1), math.isqrt(source_tokens))
        self.queries = nn.Parameter(0.02 * torch.randn(num_queries, width))
        same = source_dim == width
        self.to_width: nn.Module = nn.Identity() if same else nn.Linear(source_dim, width, bias=False)
        self.query_norm = nn.LayerNorm(width, eps=eps)
        self.source_norm = nn.LayerNorm(width, eps=eps)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def resample(self, source: torch.Tensor) -> torch.Tensor:
        """What the queries find in the source: `[B, L, Dl]` → `[B, Q, W]`."""
        values = self.source_norm(self.to_width(source.to(self.queries.dtype)))
        keys = values + self.positions().to(values.dtype)
        queries = self.query_norm(self.queries)
        queries = (queries + self.positions.table.to(queries.dtype)).expand(len(source), -1, -1)
        return self.attention(queries, keys, values, need_weights=False)[0]

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return self.resample(source)


class CrossAttentionOutput(CrossAttentionResampler):
    """The output resampler of this kind: `[B, N, D]` → `[B, F, Df]`, with the methods of `OutputResampler`.

    Its features are not normalized, since those of a published vision tower are not.
    """

    @property
    def feature_dim(self) -> int:
        """`Df`."""
        return self.queries.shape[1]

    def read(self, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden states as they are: `[B, N, D]`."""
        return hidden

    def gather(self, source: torch.Tensor) -> torch.Tensor:
        """What each feature token finds in the source: `[B, N, D]` → `[B, F, Df]`."""
        return self.resample(source)

    def finish(self, gathered: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Features, in float32; a regression needs no noise."""
        return gathered.float()

    def draw(self, source: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Features of the picture that `read` found."""
        return self.finish(self.gather(source), noise)

    def forward(self, hidden: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        return self.draw(self.read(hidden), noise)
