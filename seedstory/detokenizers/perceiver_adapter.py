"""The adapter that SEED-Story's de-tokenizer was trained with: a Perceiver resampler with two outputs.

Its attention reads the features and its own queries side by side (Flamingo, arXiv 2204.14198, section 3.1.1). SDXL's
context is what its two text encoders would give, side by side, and its pooled embedding that of CLIP's attention pool
(arXiv 2103.00020, section 2.4).

Shapes: B batch, F features of a picture, D width of a feature, Q queries, W width, H heads, C width of the context.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from seedstory.detokenizers.adapters import Condition, sdxl_condition
from seedstory.errors import ModelError
from seedstory.model_files import CheckedLoading


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of [B, Q, W] over [B, L, W] in so many heads."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class PerceiverBlock(nn.Module):
    """Attention of the queries over features and queries, and an MLP; pre-norm and residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.source_norm = nn.LayerNorm(width)
        self.query_norm = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key_value = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, queries: Tensor, source: Tensor) -> Tensor:
        normed = self.query_norm(queries)
        key, value = self.to_key_value(torch.cat([self.source_norm(source), normed], 1)).chunk(2, dim=-1)
        queries = queries + self.to_out(attend(self.to_query(normed), key, value, self.heads))
        return queries + self.down(F.gelu(self.up(self.mlp_norm(queries))))


class AttentionPool(nn.Module):
    """One embedding of many tokens: [B, Q, W] → [B, P]; their mean asks."""

    def __init__(self, tokens: int, width: int, heads: int, pooled_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(width**-0.5 * torch.randn(tokens + 1, width))
        self.to_query, self.to_key, self.to_value = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Linear(width, pooled_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positions
        query, key, value = self.to_query(tokens[:, :1]), self.to_key(tokens), self.to_value(tokens)
        return self.to_out(attend(query, key, value, self.heads))[:, 0]


class PerceiverAdapter(CheckedLoading, ModelMixin, ConfigMixin):
    """The SDXL form as released with SEED-Story: features to context tokens and a pooled embedding.

    Each channel of the features is first divided by its norm over all tokens of the picture, and not each token by its
    own: so were the released weights trained.

    Guidance steers away from `blank_features`, which are those of a picture without content. They are kept here, so
    that no vision tower is needed to draw.

    Args:
        feature_dim: D.
        num_features: F.
        context_tokens: Q, the tokens that the U-Net attends to.
        cross_attention_dim: C.
        first_context_dim: how much of C stands for the first text encoder; by default three eighths, as in SDXL.
        pooled_dim: width of the pooled embedding.
        image_size: side of the pictures in px.
        width, depth, heads: size of the resampler.
    """

    form = "sdxl"

    @register_to_config
    def __init__(
        self,
        feature_dim: int = 4096,
        num_features: int = 256,
        context_tokens: int = 64,
        cross_attention_dim: int = 2048,
        first_context_dim: int | None = None,
        pooled_dim: int = 1280,
        image_size: int = 1024,
        width: int = 1024,
        depth: int = 4,
        heads: int = 16,
    ) -> None:
        super().__init__()
        first_context_dim = first_context_dim or 3 * cross_attention_dim // 8
        if width % heads or not 0 < first_context_dim < cross_attention_dim:
            raise ModelError(
                f"width {width} must be a multiple of the {heads} heads, "
                f"and first_context_dim {first_context_dim} less than cross_attention_dim {cross_attention_dim}"
            )
        self.to_width = nn.Linear(feature_dim, width)
        self.queries = nn.Parameter(width**-0.5 * torch.randn(1, context_tokens, width))
        self.blocks = nn.ModuleList(PerceiverBlock(width, heads) for _ in range(depth))
        self.out_norm = nn.LayerNorm(width)
        self.to_first_context = nn.Linear(width, first_context_dim)
        self.to_second_context = nn.Linear(width, cross_attention_dim - first_context_dim)
        self.pool = AttentionPool(context_tokens, width, heads, pooled_dim)
        self.register_buffer("blank_features", torch.zeros(num_features, feature_dim))

    def resample(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, F, D] to context tokens [B, Q, C] and a pooled embedding [B, pooled_dim]."""
        source = self.to_width(F.normalize(features, dim=1))
        queries = self.queries.expand(len(features), -1, -1)
        for block in self.blocks:
            queries = block(queries, source)
        queries = self.out_norm(queries)
        context = torch.cat([self.to_first_context(queries), self.to_second_context(queries)], -1)
        return context, self.pool(queries)

    def forward(self, features: Tensor) -> Condition:
        """Map features [B, F, D] to a context [B, Q, C] and a pooled embedding [B, pooled_dim]."""
        return sdxl_condition(*self.resample(features), self.config.image_size)

    def blank(self, features: Tensor) -> Tensor:
        """Features [B, F, D] of pictures without content, as many as are given."""
        return self.blank_features.to(features).expand_as(features)
