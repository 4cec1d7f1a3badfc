"""The adapter of forms without SDXL's size and crop: features become context tokens and, if wanted, one embedding.

Shapes: B batch, F features of a picture, D width of a feature, N context tokens.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from seedstory.detokenizers.adapters import Condition, make_resampler
from seedstory.model_files import CheckedLoading


class ContextAdapter(CheckedLoading, ModelMixin, ConfigMixin):
    """A resampler stands where Stable Diffusion 1 and 3 and FLUX.2 have their text encoders.

    Queries read the features and become the tokens that the network attends to. With `pooled_dim` there is one more
    query, which becomes the pooled embedding.

    Args:
        form: of the de-tokenizer: "sd15", "sd3" or "flux2".
        feature_dim: D.
        num_features: F, a square number.
        context_tokens: N.
        cross_attention_dim: width of the tokens that the network attends to.
        pooled_dim: width of the pooled embedding; 0 for none.
        image_size: side of the pictures in px.
        width, depth, heads: size of the resampler.

    Raises:
        ModelError: The sizes do not fit each other.
    """

    @register_to_config
    def __init__(
        self,
        form: str = "sd15",
        feature_dim: int = 64,
        num_features: int = 64,
        context_tokens: int = 64,
        cross_attention_dim: int = 768,
        pooled_dim: int = 0,
        image_size: int = 512,
        width: int = 1024,
        depth: int = 4,
        heads: int = 16,
    ) -> None:
        super().__init__()
        self.resampler = make_resampler(
            num_features,
            feature_dim,
            context_tokens + bool(pooled_dim),
            cross_attention_dim,
            width=width,
            depth=depth,
            heads=heads,
        )
        self.to_pooled = nn.Linear(cross_attention_dim, pooled_dim) if pooled_dim else None

    @property
    def form(self) -> str:
        """Of the de-tokenizer that it is made for."""
        return str(self.config.form)

    def forward(self, features: Tensor) -> Condition:
        """Map features [B, F, D] to a context [B, N, cross_attention_dim] and a pooled embedding [B, pooled_dim]."""
        tokens = self.resampler(features)
        if self.to_pooled is None:
            return Condition(None, {"encoder_hidden_states": tokens})
        pooled = self.to_pooled(tokens[:, -1])
        return Condition(None, {"encoder_hidden_states": tokens[:, :-1], "pooled_projections": pooled})

    def blank(self, features: Tensor) -> Tensor:
        """As in `FeatureAdapter`."""
        return torch.zeros_like(features)
