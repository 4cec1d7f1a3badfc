"""Resamplers: a fixed number of learned queries reads a picture from one side of the language model to the other.

Pre-norm transformer blocks of cross-attention, self-attention and MLP, in the manner of the Perceiver resampler
(Flamingo, arXiv 2204.14198, section 3.1). SEED-Story has a single cross-attention layer on either side
(arXiv 2407.08683, section 3.2).

Shape legend: `B` pictures, `F` feature tokens of width `Df`, `N` visual tokens of width `D`, `Q` queries of width `W`.
"""

import math

import torch
from torch import nn
from torch.nn import functional


def grid_positions(side: int, width: int) -> torch.Tensor:
    """2-D sine-cosine positions of a square grid in row order (as in MAE, arXiv 2111.06377).

    Args:
        side: Tokens along one edge.
        width: `W`, a multiple of 4.

    Returns:
        Row angles in the first half, column angles in the second, `[side * side, W]`.
    """
    frequencies = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64).outer(frequencies)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = line.repeat_interleave(side, dim=0), line.repeat(side, 1)
    return torch.cat([rows, columns], dim=1).float()


class Attention(nn.Module):
    """Multi-head attention of `x` `[B, Q, W]` over `source` `[B, S, W]`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.to_out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        query = self.to_query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.to_key_value(source).unflatten(-1, (2 * self.heads, -1)).transpose(1, 2).chunk(2, dim=1)
        out = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(out.transpose(1, 2).flatten(2))


class ResamplerBlock(nn.Module):
    """Cross-attention to the source, self-attention among the queries, MLP; all pre-norm and residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cross_norm = nn.LayerNorm(width)
        self.cross = Attention(width, heads)
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        x = x + self.cross(self.cross_norm(x), source)
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, normed)
        return x + self.mlp(self.mlp_norm(x))


def initialize(module: nn.Module) -> None:
    """Set linear layers so that they keep the size of what they read."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            nn.init.zeros_(part.bias)


class InputResampler(nn.Module):
    """Features of pictures → embeddings for the language model: `[B, F, Df]` → `[B, N, D]`.

    Args:
        feature_tokens: `F`, a square number.
        feature_dim: `Df`.
        num_visual_tokens: `N`.
        embedding_dim: `D`.
        width, depth, heads: Size of the transformer.
        embedding_rms: Root mean square of the language model's token embeddings; the output starts at this size.
    """

    def __init__(
        self,
        feature_tokens: int,
        feature_dim: int,
        num_visual_tokens: int,
        embedding_dim: int,
        *,
        width: int,
        depth: int,
        heads: int,
        embedding_rms: float = 1.0,
    ) -> None:
        super().__init__()
        self.to_width = nn.Linear(feature_dim, width)
        self.source_norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(num_visual_tokens, width))
        self.register_buffer("positions", grid_positions(math.isqrt(feature_tokens), width), persistent=False)
        self.blocks = nn.ModuleList(ResamplerBlock(width, heads) for _ in range(depth))
        self.to_embedding = nn.Linear(width, embedding_dim)
        self.out_norm = nn.LayerNorm(embedding_dim)
        initialize(self)
        nn.init.constant_(self.out_norm.weight, embedding_rms)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        source = self.to_width(features.to(self.queries.dtype))
        source = self.source_norm(source + self.positions.to(source.dtype))
        x = self.queries.expand(features.shape[0], -1, -1)
        for block in self.blocks:
            x = block(x, source)
        return self.out_norm(self.to_embedding(x))


class OutputResampler(nn.Module):
    """Hidden states at the query tokens → features of the picture: `[B, N, D]` → `[B, F, Df]`.

    The output ends in a LayerNorm without affine, because that is how the features themselves are normalized.

    Args:
        feature_tokens: `F`, a square number.
        feature_dim: `Df`.
        hidden_dim: `D`.
        width, depth, heads: Size of the transformer.
    """

    def __init__(
        self, feature_tokens: int, feature_dim: int, hidden_dim: int, *, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.source_norm = nn.LayerNorm(hidden_dim)
        self.to_width = nn.Linear(hidden_dim, width)
        self.queries = nn.Parameter(torch.randn(feature_tokens, width) * 0.5)
        self.register_buffer("positions", grid_positions(math.isqrt(feature_tokens), width), persistent=False)
        self.blocks = nn.ModuleList(ResamplerBlock(width, heads) for _ in range(depth))
        self.out_norm = nn.LayerNorm(width)
        self.to_feature = nn.Linear(width, feature_dim)
        self.feature_dim = feature_dim
        initialize(self)

    def read(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the queries' hidden states say, in the resampler's width: `[B, N, D]` → `[B, N, W]`."""
        return self.to_width(self.source_norm(hidden.to(self.queries.dtype)))

    def gather(self, source: torch.Tensor) -> torch.Tensor:
        """What each feature token finds in the source: `[B, N, W]` → `[B, F, W]`."""
        x = (self.queries + self.positions.to(self.queries.dtype)).expand(source.shape[0], -1, -1)
        for block in self.blocks:
            x = block(x, source)
        return x

    def finish(self, gathered: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Features from what `gather` found: `[B, F, W]` → `[B, F, Df]`, float32. A regression needs no noise."""
        return functional.layer_norm(self.to_feature(self.out_norm(gathered)).float(), (self.feature_dim,))

    def draw(self, source: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Features of the picture that `read` found: `[B, N, W]` → `[B, F, Df]`."""
        return self.finish(self.gather(source), noise)

    def forward(self, hidden: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        return self.draw(self.read(hidden), noise)
