"""Adapters: visual tokens become what a de-tokenizer's U-Net is conditioned on.

Shapes: B batch, F features of a picture, D width of a feature, C channels, h w latent grid, N context tokens.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from seedstory.errors import ModelError
from seedstory.model_files import CheckedLoading
from seedstory.resampler import InputResampler


class Condition(NamedTuple):
    """What steers a U-Net: conditions of a batch of pictures.

    Attributes:
        overlay: [B, C, h, w], further channels beside the noisy latents; None for none.
        inputs: what `UNet2DConditionModel` takes by name.
    """

    overlay: Tensor | None
    inputs: dict[str, Any]


class FeatureAdapter(CheckedLoading, ModelMixin, ConfigMixin):
    """The mini form: features steer twice, as a map laid over the latents and through cross-attention.

    Args:
        feature_dim: D.
        num_features: F, a square number.
        map_channels: channels of the token map laid over the latents.
        cross_attention_dim: width of the tokens that the U-Net attends to.
        latent_size: side of the latent grid.
    """

    form = "mini"

    @register_to_config
    def __init__(
        self,
        feature_dim: int = 64,
        num_features: int = 64,
        map_channels: int = 48,
        cross_attention_dim: int = 192,
        latent_size: int = 16,
    ) -> None:
        super().__init__()
        grid = int(num_features**0.5)
        self.upscale = latent_size // grid
        self.to_map = nn.Linear(feature_dim, map_channels * self.upscale**2)
        self.to_context = nn.Linear(feature_dim, cross_attention_dim)
        self.positions = nn.Parameter(0.02 * torch.randn(1, num_features, cross_attention_dim))

    def forward(self, features: Tensor) -> Condition:
        """Map features [B, F, D] to a token map [B, C, h, w] and a context [B, F, cross_attention_dim]."""
        grid = int(features.shape[1] ** 0.5)
        token_map = self.to_map(features).transpose(1, 2).unflatten(2, (grid, grid))
        context = self.to_context(features) + self.positions
        return Condition(nn.functional.pixel_shuffle(token_map, self.upscale), {"encoder_hidden_states": context})

    def blank(self, features: Tensor) -> Tensor:
        """Features [B, F, D] that stand for no picture: what guidance steers away from."""
        return torch.zeros_like(features)


def sdxl_condition(context: Tensor, pooled: Tensor, image_size: int) -> Condition:
    """What SDXL's U-Net takes, for whole square pictures.

    Args:
        context: [B, N, cross_attention_dim].
        pooled: [B, pooled_dim].
        image_size: side of the pictures in px.
    """
    size = float(image_size)
    # Height and width as they were, the crop's top and left, height and width now.
    time_ids = context.new_tensor([size, size, 0, 0, size, size], dtype=torch.float32)
    added = {"text_embeds": pooled, "time_ids": time_ids.expand(len(context), -1)}
    return Condition(None, {"encoder_hidden_states": context, "added_cond_kwargs": added})


def make_resampler(
    num_features: int, feature_dim: int, tokens: int, token_dim: int, *, width: int, depth: int, heads: int
) -> InputResampler:
    """What reads the features of a picture where a model of images from text has its text encoders.

    Raises:
        ModelError: The sizes do not fit each other.
    """
    if math.isqrt(num_features) ** 2 != num_features:
        raise ModelError(f"num_features must be a square number, not {num_features}: features lie on a square grid")
    if width % heads or width % 4:
        raise ModelError(f"width {width} must be a multiple of 4 and of the {heads} heads")
    return InputResampler(num_features, feature_dim, tokens, token_dim, width=width, depth=depth, heads=heads)


class ResamplerAdapter(CheckedLoading, ModelMixin, ConfigMixin):
    """The SDXL form: a resampler stands where SDXL (arXiv 2307.01952) has its two text encoders.

    Queries read the features; all but the last become the tokens that the U-Net attends to, the last one the pooled
    embedding. SDXL also takes a picture's size and crop (section 2.2): here always those of a whole square picture.

    Args:
        feature_dim: D.
        num_features: F, a square number.
        context_tokens: N.
        cross_attention_dim: width of the tokens that the U-Net attends to.
        pooled_dim: width of the pooled embedding.
        image_size: side of the pictures in px.
        width, depth, heads: size of the resampler.
    """

    form = "sdxl"

    @register_to_config
    def __init__(
        self,
        feature_dim: int = 64,
        num_features: int = 64,
        context_tokens: int = 64,
        cross_attention_dim: int = 2048,
        pooled_dim: int = 1280,
        image_size: int = 1024,
        width: int = 1024,
        depth: int = 4,
        heads: int = 16,
    ) -> None:
        super().__init__()
        self.resampler = make_resampler(
            num_features, feature_dim, context_tokens + 1, cross_attention_dim, width=width, depth=depth, heads=heads
        )
        self.to_pooled = nn.Linear(cross_attention_dim, pooled_dim)

    def forward(self, features: Tensor) -> Condition:
        """Map features [B, F, D] to a context [B, N, cross_attention_dim] and a pooled embedding [B, pooled_dim]."""
        tokens = self.resampler(features)
        return sdxl_condition(tokens[:, :-1], self.to_pooled(tokens[:, -1]), self.config.image_size)

    def blank(self, features: Tensor) -> Tensor:
        """As in `FeatureAdapter`."""
        return torch.zeros_like(features)
