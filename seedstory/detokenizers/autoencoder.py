"""The small picture autoencoder of the mini model: 8x down, few latent channels, and up again as far as one likes.

Shapes: B batch, H W pixels, Z latent channels, h w latent grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from seedstory.errors import ModelError
from seedstory.model_files import CheckedLoading


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a ReLU, without normalization, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class ImageEncoder(nn.Module):
    """Pixels [B, 3, H, W] in [-1, 1] to latents [B, Z, H/8, W/8], softly bounded to (-4, 4)."""

    def __init__(self, latent_channels: int, widths: tuple[int, int], depths: tuple[int, int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, widths[0], 3, padding=1),
            *(ResidualBlock(widths[0]) for _ in range(depths[0])),
            nn.Conv2d(widths[0], widths[1], 4, stride=2, padding=1),
            *(ResidualBlock(widths[1]) for _ in range(depths[1])),
            nn.Conv2d(widths[1], latent_channels, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return 4 * torch.tanh(self.layers(pixels) / 4)


class ImageDecoder(nn.Module):
    """Latents [B, Z, h, w] to pixels [B, 3, s h, s w], where s is `upscale`.

    Args:
        latent_channels: Z.
        widths: channels of each level, the finest first; it works at a quarter of the picture's resolution.
        depths: residual blocks of each level.
    """

    def __init__(self, latent_channels: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != len(depths) or not widths:
            raise ModelError(f"a decoder has one depth for each width, not {list(depths)} for {list(widths)}")
        self.upscale = 4 * 2 ** (len(widths) - 1)
        layers: list[nn.Module] = [nn.Conv2d(latent_channels, widths[-1], 3, padding=1)]
        for level in reversed(range(len(widths))):
            layers += [ResidualBlock(widths[level]) for _ in range(depths[level])]
            if level:
                layers += [nn.Conv2d(widths[level], 4 * widths[level - 1], 1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[0], 48, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)


class ImageAutoencoder(CheckedLoading, ModelMixin, ConfigMixin):
    """Autoencoder for flat picture-book art; latents are what the de-tokenizer's U-Net denoises.

    Works at 1/4 of the picture's resolution and below (pixel shuffle at both ends), so that one
    picture of 128 px costs about 1.4 GFLOP there and back. The decoder may have more levels than the encoder:
    with three, what was read at 128 px is drawn at 256 px.

    Args:
        latent_channels: Z.
        widths: channels at 1/4 and at 1/8 of the resolution.
        encoder_depths: residual blocks of the encoder at these two resolutions.
        decoder_depths: residual blocks of the decoder at each of its levels, the finest first.
        decoder_widths: channels of the decoder's levels, the finest first; by default `widths`.
        scaling_factor: latents times this have a standard deviation of one (set after training).
    """

    downscale = 8  # pixels read that a latent covers, along one edge

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        widths: tuple[int, int] = (64, 128),
        encoder_depths: tuple[int, int] = (2, 2),
        decoder_depths: Sequence[int] = (3, 3),
        scaling_factor: float = 1.0,
        decoder_widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = ImageEncoder(latent_channels, widths, encoder_depths)
        self.decoder = ImageDecoder(latent_channels, decoder_widths or widths, decoder_depths)

    @property
    def upscale(self) -> int:
        """Pixels drawn that a latent covers, along one edge."""
        return self.decoder.upscale

    def latents(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, H, W] in [-1, 1] to latents [B, Z, H/8, W/8] as they are, unscaled."""
        return self.encoder(pixels)

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, H, W] in [-1, 1] to scaled latents [B, Z, H/8, W/8]."""
        return self.scaled(self.latents(pixels))

    def scaled(self, latents: Tensor) -> Tensor:
        """Scale what `latents` gave."""
        return latents * self.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents [B, Z, h, w] to pixels [B, 3, s h, s w] in about [-1, 1], where s is `upscale`."""
        return self.decoder(latents / self.config.scaling_factor)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.decode(self.encode(pixels))
