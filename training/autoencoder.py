"""Stage 1a: train the picture autoencoder.

python -m training.autoencoder --config configs/mini/autoencoder.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seedstory.detokenizers.autoencoder import ImageAutoencoder
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.image import resize_pixels
from seedstory.modeling.vision_tower import VisionTower
from training.backend import Backend
from training.command import run_stage
from training.distances import psnr
from training.loop import Stage
from training.pages import WEIGHT_SCALE, PageImages, ShuffledSampler, check_image_size, noise_of
from training.recipes import RecipeConfig, make_recipe
from training.recorder import Recorder
from training.splits import files_of


@dataclass(kw_only=True)
class AutoencoderConfig(RecipeConfig):
    """Stage 1a.

    Attributes:
        split: JSONL to train on; several are joined by "+".
        heldout: JSONL split for the reported PSNR.
        image_size: side of the images that are encoded, in px, a multiple of 16. With a decoder of more levels than
            the encoder, what is drawn and compared is larger.
        latent_channels: Z.
        latent_noise: standard deviation of Gaussian noise on the latents while training.
        limit: at most so many training pictures.
        init: folder of an autoencoder to go on from.
        decoder_only: leave the encoder, and so the latents, as they are.
        decoder_widths: channels of a new decoder's levels, the finest first; by default those of the autoencoder.
        decoder_depths: residual blocks of a new decoder's levels.
        model: folder with `vision_tower/` and `detokenizer/`; the decoder then also learns from latents as these draw
            them.
        drawn_share: share of the pictures whose latents are drawn; the others have the encoder's, with noise.
    """

    split: str = "train"
    heldout: str = "heldout"
    image_size: int = 128
    latent_channels: int = 8
    latent_noise: float = 0.05
    limit: int | None = None
    init: str | None = None
    decoder_only: bool = False
    decoder_widths: tuple[int, ...] | None = None
    decoder_depths: tuple[int, ...] | None = None
    model: str | None = None
    drawn_share: float = 0.7
    average: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size)
        if (self.decoder_widths is None) != (self.decoder_depths is None):
            raise ValueError("a new decoder has decoder_widths and decoder_depths: set both, or neither")
        if self.model and not (self.init and self.decoder_only):
            raise ValueError(
                "latents are drawn for a decoder alone: set init and decoder_only=true, or leave model out"
            )


def reconstruction_loss(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted L1 of pixels, of their edges and of 4x4 means, summed over pictures.

    Args:
        output, target: [B, 3, H, W].
        weights: [B, H/4, W/4].
    """
    weights = weights[:, None] / weights.mean((1, 2))[:, None, None, None]
    fine = F.interpolate(weights, scale_factor=WEIGHT_SCALE)
    error = output - target
    pixels = (error.abs() * fine).mean()
    across = ((error[..., 1:] - error[..., :-1]).abs() * fine[..., 1:]).mean()
    down = ((error[..., 1:, :] - error[..., :-1, :]).abs() * fine[..., 1:, :]).mean()
    pooled = (F.avg_pool2d(error, WEIGHT_SCALE).abs() * weights).mean()
    return len(target) * (pixels + 0.5 * (across + down) + 0.5 * pooled)


class AutoencoderStage(Stage):
    """Pictures through latents and back."""

    name = "autoencoder"
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, backend: Backend) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = make_autoencoder(config)
        self.autoencoder.to(memory_format=torch.channels_last)
        self.autoencoder.encoder.requires_grad_(not config.decoder_only)
        recipe = make_recipe(config.recipe, config.recipe_settings)
        side = config.image_size // ImageAutoencoder.downscale * self.autoencoder.upscale
        self.images = PageImages(config.data, config.split, side, recipe, limit=config.limit)
        self.heldout = PageImages(config.data, config.heldout, side, limit=256)
        self.rows = ShuffledSampler(len(self.images), config.seed)
        self.sources = [*files_of(config.data, config.split, config.heldout), *([config.init] if config.init else [])]
        self.drawing: tuple[VisionTower, Detokenizer] | None = None
        if config.model:
            parts = [Path(config.model) / name for name in ("vision_tower", "detokenizer")]
            tower = VisionTower.from_pretrained(parts[0]).eval().requires_grad_(False)
            self.drawing = tower.to(backend.device), Detokenizer.from_pretrained(parts[1]).to(backend.device)
            self.sources += parts

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        pixels, weights = self.images.batch(torch.tensor([row for _, row in samples]))
        side = pixels.shape[-1] // self.autoencoder.upscale
        shape = (self.autoencoder.config.latent_channels, side, side)
        generators = [noise_of(self.config.seed, number) for number, _ in samples]
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        coins = torch.stack([torch.rand((), generator=generator) for generator in generators])
        return {"pixels": pixels, "weights": weights, "noise": noise, "drawn": coins < self.config.drawn_share}

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        return {"loss": len(batch["pixels"])}

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        pixels = resize_pixels(batch["pixels"], self.config.image_size).contiguous(memory_format=torch.channels_last)
        latents = self.autoencoder.encoder(pixels) + self.config.latent_noise * batch["noise"]
        if self.drawing:
            latents = torch.where(
                batch["drawn"][:, None, None, None], self.draw_latents(pixels, batch["noise"]), latents
            )
        output = self.autoencoder.decoder(latents)
        return {"loss": reconstruction_loss(output.float(), batch["pixels"], batch["weights"])}

    @torch.no_grad()
    def draw_latents(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Unscaled latents [B, Z, h, w] as the de-tokenizer draws them from what the tower sees in pictures."""
        assert self.drawing is not None
        tower, detokenizer = self.drawing
        drawn = detokenizer(tower(pixels).float(), latents=noise.float(), output_type="latent")
        assert isinstance(drawn, Tensor)
        return drawn / detokenizer.autoencoder.config.scaling_factor

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        return {"loss": 1.0}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        values: list[Tensor] = []
        shown: list[Tensor] = []
        for rows in torch.arange(len(self.heldout)).split(64):
            pixels, _ = self.heldout.batch(rows)
            with backend.autocast():
                seen = resize_pixels(pixels, self.config.image_size).to(backend.device)
                output = self.autoencoder(seen).float().cpu().clamp(-1, 1)
            values.append(psnr(output, pixels))
            shown = shown or [pixels[:8] / 2 + 0.5, output[:8] / 2 + 0.5]
        recorder.write(step, heldout_psnr=torch.cat(values).mean().item())
        recorder.sheet(step, shown)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write `autoencoder/`, with the factor that scales its latents to unit variance; kept if the latents are."""
        if not (self.config.init and self.config.decoder_only):
            pixels, _ = self.heldout.batch(torch.arange(len(self.heldout)))
            seen = resize_pixels(pixels, self.config.image_size).to(self.autoencoder.device)
            latents = plain(self.autoencoder).latents(seen).float()
            self.autoencoder.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
        self.autoencoder.save_pretrained(folder / "autoencoder")


def make_autoencoder(config: AutoencoderConfig) -> ImageAutoencoder:
    """The autoencoder to train: new, or that of `init`, with a new decoder if one is asked for.

    A new decoder begins with those of the old one's weights that have the same name and shape: its coarsest levels.
    """
    sizes: dict[str, Any] = {}
    if config.decoder_widths and config.decoder_depths:
        sizes = {"decoder_widths": list(config.decoder_widths), "decoder_depths": list(config.decoder_depths)}
    if not config.init:
        return ImageAutoencoder(latent_channels=config.latent_channels, **sizes)
    trained = ImageAutoencoder.from_pretrained(config.init)
    if not sizes:
        return trained
    settings = {key: value for key, value in trained.config.items() if not key.startswith("_")}
    autoencoder = ImageAutoencoder(**{**settings, **sizes})
    weights = autoencoder.state_dict()
    known = trained.state_dict()
    same = {name: known[name] for name, new in weights.items() if name in known and known[name].shape == new.shape}
    autoencoder.load_state_dict({**weights, **same})
    return autoencoder


def plain(autoencoder: ImageAutoencoder) -> ImageAutoencoder:
    """The same weights without the hooks of ZeRO-3, by which a pass of one process alone waits for the others."""
    with torch.device("meta"):
        same = ImageAutoencoder.from_config(autoencoder.config)
    same.load_state_dict(autoencoder.state_dict(), assign=True)
    return same


def main() -> None:
    """Command line."""
    run_stage(AutoencoderConfig, AutoencoderStage, __doc__)


if __name__ == "__main__":
    main()
