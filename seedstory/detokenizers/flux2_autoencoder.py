"""FLUX.2's autoencoder: four neighboring latents are one, normalized by the running statistics of a batch norm.

Shapes: B batch, H W pixels, Z channels of four latents side by side, h w grid of them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from seedstory.detokenizers.kl_autoencoder import KLAutoencoder


class Flux2Autoencoder(KLAutoencoder):
    """As `KLAutoencoder`, of diffusers' `AutoencoderKLFlux2`.

    Args:
        vae: the network.
    """

    network = AutoencoderKLFlux2

    @property
    def config(self) -> Any:
        """What a de-tokenizer asks of it: `latent_channels`, as its network reads them."""
        return SimpleNamespace(latent_channels=4 * self.vae.config.latent_channels)

    @property
    def downscale(self) -> int:
        """Pixels that four latents side by side cover, along one edge."""
        return 2 * super().downscale

    def latents(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, H, W] in [-1, 1] to latents [B, Z, h, w] as they are, not normalized."""
        return pixel_unshuffle(super().latents(pixels), 2)

    def scaled(self, latents: Tensor) -> Tensor:
        """Normalize what `latents` gave."""
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def unscaled(self, latents: Tensor) -> Tensor:
        """The latents that `scaled` gave these for, as the network decodes them: [B, Z/4, 2 h, 2 w]."""
        mean, std = self._statistics(latents)
        return pixel_shuffle(latents * std + mean, 2)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        mean, variance = norm.running_mean.float(), norm.running_var.float()
        std = (variance + self.vae.config.batch_norm_eps).sqrt()
        return mean.view(1, -1, 1, 1).to(like), std.view(1, -1, 1, 1).to(like)

    def _type(self) -> torch.dtype:
        if self.vae.dtype == torch.float16:  # trained in bfloat16; nothing says that float16 is enough
            self.vae.to(torch.float32)
        return self.vae.dtype
