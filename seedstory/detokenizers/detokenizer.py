"""The diffusion de-tokenizer: visual tokens become a picture.

A conditional U-Net denoises autoencoder latents by rectified flow (Liu et al. 2022, arXiv 2209.03003) and
predicts the clean latents; the visual tokens steer it twice, as a map laid over the latents and
through cross-attention.

Shapes: B batch, F features of a picture, D width of a feature, Z latent channels, h w latent grid.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import copy
from pathlib import Path

import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Generator, Tensor, nn

from seedstory.detokenizers.autoencoder import PictureAutoencoder


class FeatureAdapter(ModelMixin, ConfigMixin):
    """Turns features [B, F, D] into what the U-Net is conditioned on.

    Args:
        feature_dim: D.
        num_features: F, a square number.
        map_channels: channels of the token map laid over the latents.
        cross_attention_dim: width of the tokens that the U-Net attends to.
        latent_size: side of the latent grid.
    """

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

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features [B, F, D] to a token map [B, C, h, w] and a context [B, F, cross_attention_dim]."""
        grid = int(features.shape[1] ** 0.5)
        token_map = self.to_map(features).transpose(1, 2).unflatten(2, (grid, grid))
        return nn.functional.pixel_shuffle(token_map, self.upscale), self.to_context(features) + self.positions


class Detokenizer:
    """Draws pictures from visual tokens.

    Args:
        unet: predicts clean latents from [noisy latents, token map] and the context.
        adapter: features to token map and context.
        autoencoder: latents to pixels.
        scheduler: flow-matching Euler scheduler; `shift` bends its time steps.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        adapter: FeatureAdapter,
        autoencoder: PictureAutoencoder,
        scheduler: FlowMatchEulerDiscreteScheduler | None = None,
    ) -> None:
        self.unet, self.adapter, self.autoencoder = unet, adapter, autoencoder
        self.scheduler = scheduler or FlowMatchEulerDiscreteScheduler()

    @classmethod
    def mini(cls, autoencoder: PictureAutoencoder, num_features: int = 64, feature_dim: int = 64) -> Detokenizer:
        """Build the mini configuration, untrained, around a trained autoencoder."""
        latent_size = 2 * int(num_features**0.5)
        adapter = FeatureAdapter(feature_dim=feature_dim, num_features=num_features, latent_size=latent_size)
        latent_channels = autoencoder.config.latent_channels
        unet = UNet2DConditionModel(
            sample_size=adapter.config.latent_size,
            in_channels=latent_channels + adapter.config.map_channels,
            out_channels=latent_channels,
            block_out_channels=(96, 192),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("UpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=adapter.config.cross_attention_dim,
            attention_head_dim=6,
            norm_num_groups=16,
        )
        return cls(unet, adapter, autoencoder)

    @property
    def image_size(self) -> int:
        """Side of the pictures in px."""
        return 8 * self.adapter.config.latent_size

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    def to(self, *args, **kwargs) -> Detokenizer:
        """Move or cast all networks, as `nn.Module.to`."""
        for module in (self.unet, self.adapter, self.autoencoder):
            module.to(*args, **kwargs)
        return self

    def predict_clean(self, noisy: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """Predict clean latents [B, Z, h, w] from noisy ones at `time` [B] in (0, 1] (1 is pure noise)."""
        token_map, context = self.adapter(features)
        return self.unet(torch.cat([noisy, token_map.to(noisy.dtype)], 1), 1000 * time, context).sample

    @torch.no_grad()
    def __call__(
        self,
        features: Tensor,
        generator: Generator | list[Generator] | None = None,
        num_inference_steps: int = 4,
        guidance_scale: float = 1.0,
        output_type: str = "pil",
        callback_on_step_end: Callable[[Detokenizer, int, float, dict], None] | None = None,
    ) -> list[Image.Image] | Tensor:
        """Draw one picture for each row of features.

        Args:
            features: [B, F, D].
            generator: source of the starting noise, one for all or a list with one for each picture. A picture that
                has its own gets the noise that it gets when it is drawn alone.
            num_inference_steps: Euler steps; 2 to 4 are enough when the tokens fix the picture.
            guidance_scale: above 1, steer away from the unconditional prediction (twice the cost).
            output_type: "pil", "pt" (pixels [B, 3, H, W] in [0, 1]) or "latent".
            callback_on_step_end: called as `callback(self, step, timestep, {"latents": latents})`.

        Returns:
            Pictures in the asked form.

        Raises:
            ValueError: on features of the wrong shape, non-finite features, an unknown `output_type` or a list of
                generators of another length than the features.
        """
        expected = (self.adapter.config.num_features, self.adapter.config.feature_dim)
        if features.ndim != 3 or tuple(features.shape[1:]) != expected:
            raise ValueError(f"features must be [B, {expected[0]}, {expected[1]}], not {list(features.shape)}")
        if not torch.isfinite(features).all():
            raise ValueError("features hold NaN or infinity: the story model's output is broken")
        if output_type not in ("pil", "pt", "latent"):
            raise ValueError(f"unknown output_type {output_type!r}: choose pil, pt or latent")
        if isinstance(generator, list) and len(generator) != len(features):
            raise ValueError(f"there are {len(generator)} generators for {len(features)} pictures: give one for each")
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, not {num_inference_steps}")
        features = features.to(self.device, self.dtype)
        side, channels = self.adapter.config.latent_size, self.autoencoder.config.latent_channels
        latents = randn_tensor(
            (len(features), channels, side, side), generator=generator, device=self.device, dtype=torch.float32
        )
        scheduler = copy(self.scheduler)  # it counts steps, and two threads may draw
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        for step, timestep in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[step]
            time = sigma.expand(len(features)).to(self.device, self.dtype)
            clean = self.predict_clean(latents.to(self.dtype), time, features).float()
            if guidance_scale != 1.0:
                unguided = self.predict_clean(latents.to(self.dtype), time, torch.zeros_like(features)).float()
                clean = unguided + guidance_scale * (clean - unguided)
            velocity = (latents - clean) / sigma
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            if callback_on_step_end is not None:
                callback_on_step_end(self, step, float(timestep), {"latents": latents})
        if output_type == "latent":
            return latents
        pixels = self.autoencoder.decode(latents.to(self.dtype)).float().clamp(-1, 1) / 2 + 0.5
        return pixels if output_type == "pt" else to_pil(pixels)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `unet/`, `adapter/`, `autoencoder/` and `scheduler/` into a folder."""
        for name in ("unet", "adapter", "autoencoder", "scheduler"):
            getattr(self, name).save_pretrained(Path(folder) / name)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> Detokenizer:
        """Load what `save_pretrained` wrote."""
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"no de-tokenizer at {folder}: the folder does not exist")
        parts = {"torch_dtype": dtype} if dtype else {}
        return cls(
            UNet2DConditionModel.from_pretrained(folder / "unet", **parts).eval(),
            FeatureAdapter.from_pretrained(folder / "adapter", **parts).eval(),
            PictureAutoencoder.from_pretrained(folder / "autoencoder", **parts).eval(),
            FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        )


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """Turn pixels [B, 3, H, W] in [0, 1] into RGB pictures."""
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in array]
