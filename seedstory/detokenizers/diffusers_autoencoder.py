"""Our picture autoencoder as pipelines of diffusers use theirs.

Shapes: B batch, H W pixels, Z latent channels, h w latent grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor

from seedstory.detokenizers.autoencoder import ImageAutoencoder

__all__ = ["DiffusersAutoencoder", "ModelMixin"]  # by the latter diffusers finds out how to load the former


class _Latents:
    """The latents of images, which are certain: what diffusers calls a distribution."""

    def __init__(self, latents: Tensor) -> None:
        self.mean = latents

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mean


class DiffusersAutoencoder(ImageAutoencoder):
    """`ImageAutoencoder` with the calls and settings of `AutoencoderKL`.

    Args:
        block_out_channels: One number for each halving of a drawn image down to its latents, and one more; pipelines
            count them.
        **others: Those of `ImageAutoencoder`.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        widths: tuple[int, int] = (64, 128),
        encoder_depths: tuple[int, int] = (2, 2),
        decoder_depths: Sequence[int] = (3, 3),
        scaling_factor: float = 1.0,
        decoder_widths: Sequence[int] | None = None,
        block_out_channels: Sequence[int] = (64, 64, 64, 64),
        force_upcast: bool = False,
    ) -> None:
        super().__init__(latent_channels, widths, encoder_depths, decoder_depths, scaling_factor, decoder_widths)

    @classmethod
    def of(cls, autoencoder: ImageAutoencoder) -> DiffusersAutoencoder:
        """The same network, with the same weights, by another name."""
        settings = {key: value for key, value in autoencoder.config.items() if not key.startswith("_")}
        halvings = autoencoder.upscale.bit_length() - 1
        same = cls(**settings, block_out_channels=[autoencoder.decoder.layers[0].out_channels] * (halvings + 1))
        same.load_state_dict(autoencoder.state_dict())
        return same.to(autoencoder.device, autoencoder.dtype)

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Pixels `[B, 3, H, W]` in [-1, 1] to latents; H and W are those of a drawn image."""
        factor = self.upscale // self.downscale
        small = torch.nn.functional.avg_pool2d(x, factor) if factor > 1 else x
        seen = _Latents(self.latents(small))
        return AutoencoderKLOutput(latent_dist=seen) if return_dict else (seen,)

    def decode(self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None) -> Any:
        """Unscaled latents `[B, Z, h, w]` to pixels `[B, 3, H, W]`."""
        drawn = self.decoder(z)
        return DecoderOutput(sample=drawn) if return_dict else (drawn,)
