"""The diffusion de-tokenizer: visual tokens become a picture.

A conditional network denoises autoencoder latents, steered by visual tokens. It comes in forms, which are sets of parts
of one class: `mini` predicts clean latents by rectified flow, with the tokens laid over the latents as a map and read
through cross-attention; `sdxl` is a Stable Diffusion XL whose text encoders a resampler stands in for, as in
SEED-Story (arXiv 2407.08683, section 3.1); so are `sd15`, `sd3` and `flux2` of theirs (`from_base.py`).

Shapes: B batch, F features of a picture, D width of a feature, Z latent channels, h w latent grid.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ModelMixin, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Generator, Tensor

from seedstory.detokenizers.adapters import Condition, FeatureAdapter, ResamplerAdapter
from seedstory.detokenizers.autoencoder import ImageAutoencoder
from seedstory.detokenizers.backbones import BACKBONES, NETWORKS, backbone_of
from seedstory.detokenizers.components import base_folder, lay_out_component, load_component, load_scheduler
from seedstory.detokenizers.context_adapter import ContextAdapter
from seedstory.detokenizers.fast_path import FastPath
from seedstory.detokenizers.flux2_autoencoder import Flux2Autoencoder
from seedstory.detokenizers.guidance import EVERY_STEP, GuidedPredictor, check_interval
from seedstory.detokenizers.kl_autoencoder import KLAutoencoder
from seedstory.detokenizers.objectives import Objective
from seedstory.detokenizers.perceiver_adapter import PerceiverAdapter
from seedstory.detokenizers.schedulers import make_scheduler
from seedstory.detokenizers.tiny_autoencoder import TinyAutoencoder
from seedstory.errors import ModelError

_KINDS: dict[str, Mapping[str, Any]] = {
    "unet": NETWORKS,
    "adapter": {
        "FeatureAdapter": FeatureAdapter,
        "ResamplerAdapter": ResamplerAdapter,
        "PerceiverAdapter": PerceiverAdapter,
        "ContextAdapter": ContextAdapter,
    },
    "autoencoder": {
        "ImageAutoencoder": ImageAutoencoder,
        "PictureAutoencoder": ImageAutoencoder,
        "AutoencoderKL": KLAutoencoder,
        "AutoencoderKLFlux2": Flux2Autoencoder,
        "AutoencoderTiny": TinyAutoencoder,
    },
}
ADAPTERS: dict[str, Any] = {"resampler": ResamplerAdapter, "perceiver": PerceiverAdapter}
"""The adapters of the SDXL form, by the names that settings have for them."""


class Detokenizer(FastPath):
    """Draws pictures from visual tokens.

    Args:
        unet: a U-Net, or a transformer in its place; predicts what the scheduler's objective asks for, from noisy
            latents and the adapter's condition.
        adapter: features to condition.
        autoencoder: latents to pixels.
        scheduler: says what the U-Net predicts and how drawing goes; by default flow-matching Euler.

    Raises:
        ModelError: The parts do not fit each other.
    """

    _is_tiled: bool | None = None

    def __init__(
        self,
        unet: ModelMixin,
        adapter: FeatureAdapter | ResamplerAdapter | PerceiverAdapter | ContextAdapter,
        autoencoder: ImageAutoencoder | KLAutoencoder | TinyAutoencoder,
        scheduler: Any = None,
    ) -> None:
        self.unet, self.adapter, self.autoencoder = unet, adapter, autoencoder
        self.scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
        self.backbone = backbone_of(unet)
        widths = self.backbone.widths(unet.config)
        for what, own, wanted in (
            ("latent channels", autoencoder.config.latent_channels, widths.latent_channels),
            ("cross_attention_dim", adapter.config.cross_attention_dim, widths.context),
            ("form", adapter.form, self.backbone.form),
            ("pooled_dim", adapter.config.get("pooled_dim", 0), widths.pooled),
        ):
            if own != wanted:
                raise ModelError(
                    f"the parts of this de-tokenizer do not fit: {what} is {own}, its network has {wanted}"
                )
        self.backbone.objective(self.scheduler, unet.config)

    @classmethod
    def mini(cls, autoencoder: ImageAutoencoder, num_features: int = 64, feature_dim: int = 64) -> Detokenizer:
        """Build the mini form, untrained, around a trained autoencoder."""
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

    @classmethod
    def sdxl(
        cls,
        base: str | os.PathLike[str],
        num_features: int = 64,
        feature_dim: int = 64,
        *,
        context_tokens: int = 64,
        width: int = 1024,
        depth: int = 4,
        dtype: torch.dtype | None = None,
        adapter: str = "resampler",
    ) -> Detokenizer:
        """Build the SDXL form around a trained Stable Diffusion XL; its adapter is untrained.

        Args:
            base: folder in diffusers' layout, or Hub id; `unet/`, `vae/` and `scheduler/` are read.
            num_features: F, a square number.
            feature_dim: D.
            context_tokens: tokens that the U-Net attends to.
            width, depth: of the adapter, whose heads are 64 wide.
            dtype: of all weights; by default float32.
            adapter: "resampler" for a `ResamplerAdapter`, "perceiver" for a `PerceiverAdapter`.

        Raises:
            ModelError: There is no such model or adapter, or it is no SDXL.
        """
        if adapter not in ADAPTERS:
            raise ModelError(f"adapter must be one of {', '.join(ADAPTERS)}, not {adapter!r}")
        folder = base_folder(os.fspath(base))
        unet = load_component(folder / "unet", _KINDS["unet"], dtype)
        vae = load_component(folder / "vae", {"AutoencoderKL": KLAutoencoder}, dtype)
        config = unet.config
        if config.addition_embed_type != "text_time" or config.in_channels != config.out_channels:
            raise ModelError(
                f"{folder / 'unet'} is not the U-Net of an SDXL that draws from text alone: it must take a pooled "
                "embedding and time ids (addition_embed_type text_time), and nothing beside the latents"
            )
        widths = BACKBONES["sdxl"].widths(config)
        made = ADAPTERS[adapter](
            feature_dim=feature_dim,
            num_features=num_features,
            context_tokens=context_tokens,
            cross_attention_dim=widths.context,
            pooled_dim=widths.pooled,
            image_size=config.sample_size * vae.downscale,
            width=width,
            depth=depth,
            heads=max(1, width // 64),
        )
        if dtype:
            made.to(dtype)
        return cls(unet, made.eval(), vae, load_scheduler(folder / "scheduler"))

    @property
    def form(self) -> str:
        """Which one it is: "mini", "sdxl", "sd15", "sd3" or "flux2"."""
        return self.adapter.form

    @property
    def objective(self) -> Objective:
        """What the U-Net predicts, and the way from noise to latents."""
        return self.objective_with(None)

    def objective_with(self, scheduler: str | None) -> Objective:
        """As `objective`, with a scheduler of `schedulers.SCHEDULERS` in place of its own.

        Raises:
            ModelError: There is none of this name, or it does not fit what the network predicts.
        """
        chosen = self.scheduler if scheduler is None else make_scheduler(scheduler, self.scheduler)
        return self.backbone.objective(chosen, self.unet.config)

    @property
    def latent_size(self) -> int:
        """Side of the latent grid."""
        if isinstance(self.adapter, ContextAdapter):
            return int(self.adapter.config.image_size // self.autoencoder.downscale)
        return int(self.unet.config.sample_size)

    def set_scheduler(self, name: str) -> None:
        """Draw with a scheduler of `schedulers.SCHEDULERS` from now on; `save_pretrained` writes it.

        Raises:
            ModelError: There is none of this name, or it does not fit what the U-Net predicts.
        """
        self.scheduler = make_scheduler(name, self.scheduler)

    @property
    def image_size(self) -> int:
        """Side of the pictures that are drawn, in px."""
        return self.autoencoder.upscale * self.latent_size

    @property
    def encoder_image_size(self) -> int:
        """Side in px of the pictures whose latents the U-Net learns; the decoder may draw larger ones."""
        return self.autoencoder.downscale * self.latent_size

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    def to(self, *args: Any, **kwargs: Any) -> Detokenizer:
        """Move or cast all networks, as `nn.Module.to`."""
        for module in (self.unet, self.adapter, self.autoencoder):
            module.to(*args, **kwargs)
        self._after_move()
        return self

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """The U-Net's prediction [B, Z, h, w] from noisy latents at `time` [B] of the objective."""
        timestep = self.objective.timestep(time, noisy.dtype)
        if condition.overlay is not None:
            noisy = torch.cat([noisy, condition.overlay.to(noisy.dtype)], 1)
        return self.backbone.predict(self.unet, noisy, timestep, condition.inputs)

    @torch.no_grad()
    def __call__(
        self,
        features: Tensor,
        generator: Generator | list[Generator] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        output_type: str = "pil",
        latents: Tensor | None = None,
        callback_on_step_end: Callable[[Detokenizer, int, float, dict[str, Tensor]], None] | None = None,
        scheduler: str | None = None,
        guidance_interval: tuple[float, float] = EVERY_STEP,
    ) -> list[Image.Image] | Tensor:
        """Draw one picture for each row of features.

        Args:
            features: [B, F, D].
            generator: source of the starting noise, one for all or a list with one for each picture. A picture that
                has its own gets the noise that it gets when it is drawn alone.
            num_inference_steps: by default those of the scheduler (`schedulers.SCHEDULERS`): 4 in the mini form, where
                the tokens fix the picture and 2 are enough, 50 in the SDXL form as it is published.
            guidance_scale: above 1, steer away from the prediction for the adapter's `blank` features (twice the
                cost); by default 1 in the mini form, that of the scheduler in the SDXL form (7.5; 1 for lcm, tcd and
                lightning), and elsewhere that of diffusers' pipeline.
            output_type: "pil", "pt" (pixels [B, 3, H, W] in [0, 1]) or "latent".
            latents: starting noise [B, Z, h, w] in place of the generator's.
            callback_on_step_end: called as `callback(self, step, timestep, callback_kwargs)`, with "latents" and the
                clean latents that they seem to become ("pred_original_sample"), both [B, Z, h, w].
            scheduler: draw with this one of `schedulers.SCHEDULERS` in place of the de-tokenizer's own.
            guidance_interval: share of the steps, from and to, in which guidance steers (arXiv 2404.07724); the others
                cost half.

        Returns:
            Pictures in the asked form.

        Raises:
            ModelError: on features of the wrong shape, non-finite features, an unknown `output_type`, a list of
                generators of another length than the features, or a scheduler that does not fit.
        """
        expected = (self.adapter.config.num_features, self.adapter.config.feature_dim)
        if features.ndim != 3 or tuple(features.shape[1:]) != expected:
            raise ModelError(f"features must be [B, {expected[0]}, {expected[1]}], not {list(features.shape)}")
        if not features.is_floating_point():
            raise ModelError(f"features must be floats, not {features.dtype}")
        if not torch.isfinite(features).all():
            raise ModelError("features hold NaN or infinity: the story model's output is broken")
        if output_type not in ("pil", "pt", "latent"):
            raise ModelError(f"unknown output_type {output_type!r}: choose pil, pt or latent")
        if isinstance(generator, list) and len(generator) != len(features):
            raise ModelError(f"there are {len(generator)} generators for {len(features)} pictures: give one for each")
        check_interval(guidance_interval)
        objective = self.objective_with(scheduler)
        steps = objective.num_inference_steps if num_inference_steps is None else num_inference_steps
        guidance = objective.guidance_scale if guidance_scale is None else guidance_scale
        if steps < 1:
            raise ModelError(f"num_inference_steps must be at least 1, not {steps}")
        predict = GuidedPredictor(self, features.to(self.device, self.dtype), steps, guidance, guidance_interval)

        if latents is None:
            channels, side = self.autoencoder.config.latent_channels, self.latent_size
            shape = (len(features), channels, side, side)
            latents = randn_tensor(shape, generator=generator, device=self.device, dtype=torch.float32)
        drawn = latents
        for step, (timestep, drawn, clean) in enumerate(objective.denoise(latents, steps, predict, generator)):
            if callback_on_step_end is not None:
                callback_on_step_end(self, step, timestep, {"latents": drawn, "pred_original_sample": clean})
        if output_type == "latent":
            return drawn
        pixels = self.autoencoder.decode(drawn.to(self.dtype)).float().clamp(-1, 1) / 2 + 0.5
        return pixels if output_type == "pt" else to_pil(pixels)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `unet/` or `transformer/`, `adapter/`, `autoencoder/` and `scheduler/` into a folder.

        A fused LoRA is in the weights.

        Raises:
            ModelError: A LoRA lies beside the weights.
        """
        with self._plain_weights():
            for name in ("unet", "adapter", "autoencoder", "scheduler"):
                getattr(self, name).save_pretrained(Path(folder) / (self.backbone.folder if name == "unet" else name))

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], dtype: torch.dtype | None = None) -> Detokenizer:
        """Load what `save_pretrained` wrote; the parts' configs say which form it is.

        Raises:
            ModelError: The folder is missing or damaged, or its parts do not fit each other.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ModelError(f"no de-tokenizer at {folder}: the folder does not exist")
        parts = _parts(folder, partial(load_component, dtype=dtype))
        return cls(**parts, scheduler=load_scheduler(folder / "scheduler"))

    @classmethod
    def lay_out(cls, folder: str | os.PathLike[str]) -> Detokenizer:
        """What `from_pretrained` loads, without memory for its weights: on torch's meta device, in float32.

        Raises:
            ModelError: As `from_pretrained`.
        """
        folder = Path(folder)
        return cls(**_parts(folder, lay_out_component), scheduler=load_scheduler(folder / "scheduler"))

    def enable_tiling(self) -> bool:
        """Decode images in overlapping tiles, where the autoencoder can: less memory, slightly other colors.

        Returns:
            Whether it can.
        """
        can = hasattr(self.autoencoder, "enable_tiling")
        if can:
            self.autoencoder.enable_tiling()
            self._is_tiled = True
        return can

    def disable_tiling(self) -> None:
        """Decode images whole."""
        if hasattr(self.autoencoder, "disable_tiling"):
            self.autoencoder.disable_tiling()
        self._is_tiled = False

    def take_over(self, other: Detokenizer) -> None:
        """Draw as another one, whose networks were read anew for this one: scheduler, LoRA, fast path and tiles."""
        self.scheduler = other.scheduler
        self._take_over(other)
        if other._is_tiled is not None:
            self.enable_tiling() if other._is_tiled else self.disable_tiling()


def _parts(folder: Path, load: Callable[..., Any]) -> dict[str, Any]:
    """The networks of a folder; the adapter's form says which one draws."""
    parts = {name: load(folder / name, _KINDS[name]) for name in ("adapter", "autoencoder")}
    form = parts["adapter"].form
    if form not in BACKBONES:
        raise ModelError(f"{folder / 'adapter'} is of the form {form}, not {', '.join(BACKBONES)}")
    return parts | {"unet": load(folder / BACKBONES[form].folder, _KINDS["unet"])}


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """Turn pixels [B, 3, H, W] in [0, 1] into RGB pictures."""
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in array]
