"""The tiny autoencoder of diffusers, with the face of `ImageAutoencoder`: a hundredth of the work, a little less sharp.

It reads and draws the latents of a large one, such as SDXL's, and takes its place.

Shapes: B batch, H W pixels, Z latent channels.
"""

from __future__ import annotations

import os
from typing import Any

from diffusers import AutoencoderTiny
from torch import Tensor, nn


class TinyAutoencoder(nn.Module):
    """diffusers' `AutoencoderTiny`; images pass one at a time.

    Args:
        vae: the network.
    """

    network = AutoencoderTiny  # what its folder holds

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        vae.enable_slicing()
        self.vae = vae

    @property
    def config(self) -> Any:
        """That of the network, with `latent_channels` and `scaling_factor`."""
        return self.vae.config

    @property
    def upscale(self) -> int:
        """Pixels drawn that a latent covers, along one edge."""
        return int(self.config.upsampling_scaling_factor ** (len(self.config.decoder_block_out_channels) - 1))

    @property
    def downscale(self) -> int:
        """Pixels read that a latent covers, along one edge."""
        return int(2 ** (len(self.config.encoder_block_out_channels) - 1))

    def latents(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, H, W] in [-1, 1] to latents [B, Z, h, w] as they are, unscaled."""
        return self.vae.encode(pixels.to(self.vae.dtype)).latents

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, H, W] in [-1, 1] to scaled latents [B, Z, h, w]."""
        return self.latents(pixels) * self.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents [B, Z, h, w] to pixels [B, 3, H, W] in about [-1, 1]."""
        return self.vae.decode(latents.to(self.vae.dtype) / self.config.scaling_factor).sample

    def forward(self, pixels: Tensor) -> Tensor:
        return self.decode(self.encode(pixels))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the network as diffusers does."""
        self.vae.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **options: Any) -> TinyAutoencoder:
        """Load what `save_pretrained`, or diffusers, wrote."""
        return cls(AutoencoderTiny.from_pretrained(folder, **options))
