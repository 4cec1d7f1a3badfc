"""The vision tower of the mini model, where a picture becomes a grid of visual tokens; and which towers there are.

Shapes: B batch, H W pixels, Z latent channels, F features of a picture (a square grid), D width of a feature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from seedstory.detokenizers.autoencoder import ImageEncoder, ResidualBlock
from seedstory.detokenizers.components import component_class, lay_out_component, load_component
from seedstory.errors import ModelError
from seedstory.image import Fit
from seedstory.model_files import CheckedLoading
from seedstory.modeling.pretrained_tower import PretrainedTower
from seedstory.modeling.qwen_vision_tower import QwenVisionTower


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class VisionTower(CheckedLoading, ModelMixin, ConfigMixin):
    """Encodes a picture into F visual tokens of width D, each of zero mean and unit variance.

    The stem is a frozen copy of the autoencoder's encoder: what the autoencoder cannot draw, the
    tokens need not carry, and training reads cached latents instead of pixels.

    Args:
        latent_channels, widths, encoder_depths: of the stem, as in `ImageAutoencoder`.
        width: channels of the transformer.
        depth: its blocks.
        heads: attention heads.
        feature_dim: D.
        image_size: side of the picture in px; the feature grid's side is image_size / 16.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        widths: tuple[int, int] = (64, 128),
        encoder_depths: tuple[int, int] = (2, 2),
        width: int = 192,
        depth: int = 3,
        heads: int = 4,
        feature_dim: int = 64,
        image_size: int = 128,
    ) -> None:
        super().__init__()
        self.stem = ImageEncoder(latent_channels, widths, encoder_depths)
        self.stem.requires_grad_(False)
        self.embed = nn.Sequential(
            nn.Conv2d(latent_channels, 96, 3, padding=1),
            ResidualBlock(96),
            nn.Conv2d(96, width, 2, stride=2),
            ResidualBlock(width),
        )
        self.positions = nn.Parameter(0.02 * torch.randn(1, self.num_features, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.project = nn.Linear(width, feature_dim)

    image_fit: Fit = "crop"
    """How a picture becomes the square that the tower reads, see `to_square`."""

    @property
    def num_features(self) -> int:
        """F, the number of visual tokens of a picture."""
        return (self.config.image_size // 16) ** 2

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode pixels [B, 3, H, W] in [-1, 1] to features [B, F, D]."""
        size = self.config.image_size
        if tuple(pixel_values.shape[1:]) != (3, size, size):
            raise ModelError(f"pixel_values must be [B, 3, {size}, {size}], not {list(pixel_values.shape)}")
        return self.from_latents(self.stem(pixel_values))

    def blank_features(self) -> Tensor:
        """Features [F, D] of a picture without content, which is gray."""
        size = self.config.image_size
        return self(torch.zeros(1, 3, size, size, dtype=self.dtype, device=self.device))[0]

    def from_latents(self, latents: Tensor) -> Tensor:
        """Encode the stem's latents [B, Z, H/8, W/8] (unscaled) to features [B, F, D]."""
        x = self.embed(latents).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.project(x)
        return F.layer_norm(x.float(), x.shape[-1:]).to(x.dtype)


AnyTower = VisionTower | QwenVisionTower | PretrainedTower
VISION_TOWERS: dict[str, Any] = {kind.__name__: kind for kind in (VisionTower, QwenVisionTower, PretrainedTower)}


def tower_class(folder: str | Path) -> type[AnyTower]:
    """The class of the vision tower that a folder holds, by its configuration.

    Raises:
        ModelError: The folder is missing, damaged or holds something else.
    """
    kind: type[AnyTower] = component_class(Path(folder), VISION_TOWERS)
    return kind


def load_vision_tower(folder: str | Path, dtype: torch.dtype | None = None) -> AnyTower:
    """Load the vision tower whose class its folder names, in evaluation mode.

    Args:
        folder: what `save_pretrained` wrote.
        dtype: of its weights; by default float32.

    Raises:
        ModelError: The folder is missing, damaged or holds something else.
    """
    tower: AnyTower = load_component(Path(folder), VISION_TOWERS, dtype)
    return tower


def lay_out_vision_tower(folder: str | Path) -> AnyTower:
    """What `load_vision_tower` loads, without memory for its weights: on torch's meta device, in float32.

    Raises:
        ModelError: As `load_vision_tower`.
    """
    tower: AnyTower = lay_out_component(Path(folder), VISION_TOWERS)
    return tower
