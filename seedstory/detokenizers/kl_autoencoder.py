"""The variational autoencoder of Stable Diffusion, with the face of `ImageAutoencoder`.

Shapes: B batch, H W pixels, Z latent channels.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from seedstory.errors import ModelError

TILE = 512  # px


class KLAutoencoder(nn.Module):
    """Latents of a picture are the mean of what diffusers' `AutoencoderKL` says of it; pictures pass one at a time.

    It always computes in its own type, since SDXL's loses much in mixed precision; if it says of itself that
    float16 overflows (`force_upcast`), it stays in float32 then.

    Args:
        vae: the network.

    Raises:
        ModelError: Its latents are scaled in another way than by one shift and one factor.
    """

    network: ClassVar[Any] = AutoencoderKL  # what its folder holds

    def __init__(self, vae: Any) -> None:
        super().__init__()
        if vae.config.get("latents_mean"):
            raise ModelError("an autoencoder that shifts each channel by itself (latents_mean) is not supported")
        vae.enable_slicing()
        self.vae = vae

    @property
    def config(self) -> Any:
        """That of the network, with `latent_channels` and `scaling_factor`."""
        return self.vae.config

    @property
    def upscale(self) -> int:
        """Pixels drawn that a latent covers, along one edge: as many as it reads."""
        return self.downscale

    @property
    def downscale(self) -> int:
        """Pixels that a latent covers, along one edge."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def latents(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, H, W] in [-1, 1] to latents as they are, unscaled."""
        with _without_autocast(pixels):
            return self.vae.encode(pixels.to(self._type())).latent_dist.mode()

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, H, W] in [-1, 1] to scaled latents [B, Z, h, w]."""
        return self.scaled(self.latents(pixels))

    def scaled(self, latents: Tensor) -> Tensor:
        """Scale what `latents` gave: the shift is that of Stable Diffusion 3."""
        return (latents - (self.config.get("shift_factor") or 0.0)) * self.config.scaling_factor

    def unscaled(self, latents: Tensor) -> Tensor:
        """The latents that `scaled` gave these for."""
        return latents / self.config.scaling_factor + (self.config.get("shift_factor") or 0.0)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents [B, Z, h, w] to pixels [B, 3, H, W] in about [-1, 1]."""
        with _without_autocast(latents):
            return self.vae.decode(self.unscaled(latents.to(self._type()))).sample

    def enable_tiling(self, tile: int = TILE) -> None:
        """Pass images through in overlapping tiles of so many px, where they are larger: less memory."""
        self.vae.tile_sample_min_size, self.vae.tile_latent_min_size = tile, tile // self.downscale
        self.vae.enable_tiling()

    def disable_tiling(self) -> None:
        """Pass images through whole."""
        self.vae.disable_tiling()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.decode(self.encode(pixels))

    def _type(self) -> torch.dtype:
        if self.vae.dtype == torch.float16 and self.config.force_upcast:
            self.vae.to(torch.float32)
        return self.vae.dtype

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the network as diffusers does."""
        self.vae.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **options: Any) -> KLAutoencoder:
        """Load what `save_pretrained`, or diffusers, wrote."""
        if options.get("torch_dtype") == torch.float16 and cls.network.load_config(folder).get("force_upcast", True):
            options["torch_dtype"] = torch.float32
        return cls(cls.network.from_pretrained(folder, **options))


def _without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
