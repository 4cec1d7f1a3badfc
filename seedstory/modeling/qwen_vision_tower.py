"""The vision tower of Qwen-VL, which SEED-Story has: OpenCLIP's ViT-bigG, no class token, and an attention pool.

Qwen-VL: arXiv 2308.12966, section 2.1. Weights: `seedstory.convert` makes them from the published file.

Shapes: B batch, S side of a picture in px, L patches, W width, H heads, E width of a head, F features, D their width.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from seedstory.errors import ModelError
from seedstory.image import Fit
from seedstory.model_files import CheckedLoading
from seedstory.modeling.cross_attention import CrossAttentionResampler, GridPositions

EPS = 1e-6
# Of CLIP's training pictures, in [0, 1] (arXiv 2103.00020).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class GroupedAttention(nn.Module):
    """Self-attention whose joint projection lies head by head: query, key and value of the first, then of the next."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        grouped = self.qkv(x).unflatten(-1, (self.heads, 3, -1))
        q, k, v = grouped.permute(3, 0, 2, 1, 4)  # each [B, H, L, E]
        attended = F.scaled_dot_product_attention(q / math.sqrt(q.shape[-1]), k, v, scale=1.0)
        return self.out(attended.transpose(1, 2).flatten(2))


class QwenBlock(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=EPS)
        self.attention = GroupedAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=EPS)
        self.up = nn.Linear(width, mlp_width)
        self.down = nn.Linear(mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class QwenVisionTower(CheckedLoading, ModelMixin, ConfigMixin):
    """Encodes a picture into F features of width D, as they come: not normalized.

    Args:
        width: W of the transformer.
        depth: its blocks.
        heads: its attention heads.
        mlp_ratio: width of its MLPs by W, rounded down.
        patch_size: side of a patch in px.
        position_side: side of the grid on which positions are stored; they are resized to that of the patches.
        feature_side: side of the grid of features.
        feature_dim: D.
        pool_heads: attention heads of the pool.
        image_size: S, a multiple of `patch_size`.
        image_fit: how a picture becomes a square, see `to_square`; SEED-Story's inference stretches it.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 1664,
        depth: int = 48,
        heads: int = 16,
        mlp_ratio: float = 4.9231,
        patch_size: int = 14,
        position_side: int = 16,
        feature_side: int = 16,
        feature_dim: int = 4096,
        pool_heads: int = 32,
        image_size: int = 448,
        image_fit: str = "stretch",
    ) -> None:
        super().__init__()
        if image_fit not in get_args(Fit):
            raise ModelError(f"image_fit must be one of {', '.join(get_args(Fit))}, not {image_fit!r}")
        if image_size % patch_size or width % heads:
            raise ModelError(
                f"image_size {image_size} must be a multiple of patch_size {patch_size}, width {width} of heads {heads}"
            )
        side = image_size // patch_size
        self.patches = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.positions = GridPositions(width**-0.5 * torch.randn(position_side**2, width), side)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.blocks = nn.ModuleList(QwenBlock(width, heads, int(width * mlp_ratio)) for _ in range(depth))
        self.pool = CrossAttentionResampler(
            feature_side**2, side**2, width, width=feature_dim, heads=pool_heads, eps=EPS
        )
        self.pool_norm = nn.LayerNorm(feature_dim, eps=EPS)
        self.projection = nn.Parameter(feature_dim**-0.5 * torch.randn(feature_dim, feature_dim))

    @property
    def num_features(self) -> int:
        """F, the number of features of a picture."""
        return self.config.feature_side**2

    @property
    def image_fit(self) -> Fit:
        """How a picture becomes the square that the tower reads."""
        fit: Fit = self.config.image_fit
        return fit

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode pixels [B, 3, S, S] in [-1, 1] to features [B, F, D]."""
        mean, std = (torch.tensor(values, device=pixel_values.device)[:, None, None] for values in (MEAN, STD))
        return self.encode((pixel_values.float() / 2 + 0.5 - mean) / std)

    def encode(self, normalized: Tensor) -> Tensor:
        """Encode pixels [B, 3, S, S] of CLIP's mean and deviation to features [B, F, D]."""
        size = self.config.image_size
        if tuple(normalized.shape[1:]) != (3, size, size):
            raise ModelError(f"pixels must be [B, 3, {size}, {size}], not {list(normalized.shape)}")
        x = self.patches(normalized.to(self.dtype)).flatten(2).transpose(1, 2)
        x = self.norm(x + self.positions())
        for block in self.blocks:
            x = block(x)
        return self.pool_norm(self.pool(x)) @ self.projection

    def blank_features(self) -> Tensor:
        """Features [F, D] of a picture whose normalized pixels are all zero: what SEED-Story steers away from."""
        size = self.config.image_size
        return self.encode(torch.zeros(1, 3, size, size, device=self.device))[0]
