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
        image_size: side of the images in px, a multiple of 16.
        latent_channels: Z.
        latent_noise: standard deviation of Gaussian noise on the latents while training.
        limit: at most so many training pictures.
        init: folder of an autoencoder to go on from.
        decoder_only: leave the encoder, and so the latents, as they are.
    """

    split: str = "train"
    heldout: str = "heldout"
    image_size: int = 128
    latent_channels: int = 8
    latent_noise: float = 0.05
    limit: int | None = None
    init: str | None = None
    decoder_only: bool = False
    average: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size)


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
        if config.init:
            self.autoencoder = ImageAutoencoder.from_pretrained(config.init)
        else:
            self.autoencoder = ImageAutoencoder(latent_channels=config.latent_channels)
        self.autoencoder.to(memory_format=torch.channels_last)
        self.autoencoder.encoder.requires_grad_(not config.decoder_only)
        recipe = make_recipe(config.recipe, config.recipe_settings)
        self.images = PageImages(config.data, config.split, config.image_size, recipe, limit=config.limit)
        self.heldout = PageImages(config.data, config.heldout, config.image_size, limit=256)
        self.rows = ShuffledSampler(len(self.images), config.seed)
        self.sources = [*files_of(config.data, config.split, config.heldout), *([config.init] if config.init else [])]

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        pixels, weights = self.images.batch(torch.tensor([row for _, row in samples]))
        side = pixels.shape[-1] // 8
        shape = (self.autoencoder.config.latent_channels, side, side)
        noise = [torch.randn(shape, generator=noise_of(self.config.seed, number)) for number, _ in samples]
        return {"pixels": pixels, "weights": weights, "noise": torch.stack(noise)}

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        return {"loss": len(batch["pixels"])}

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        latents = self.autoencoder.encoder(batch["pixels"].contiguous(memory_format=torch.channels_last))
        output = self.autoencoder.decoder(latents + self.config.latent_noise * batch["noise"])
        return {"loss": reconstruction_loss(output.float(), batch["pixels"], batch["weights"])}

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        return {"loss": 1.0}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        values: list[Tensor] = []
        shown: list[Tensor] = []
        for rows in torch.arange(len(self.heldout)).split(64):
            pixels, _ = self.heldout.batch(rows)
            with backend.autocast():
                output = self.autoencoder(pixels.to(backend.device)).float().cpu().clamp(-1, 1)
            values.append(psnr(output, pixels))
            shown = shown or [pixels[:8] / 2 + 0.5, output[:8] / 2 + 0.5]
        recorder.write(step, heldout_psnr=torch.cat(values).mean().item())
        recorder.sheet(step, shown)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write `autoencoder/`, with the factor that scales its latents to unit variance; kept if the latents are."""
        if not (self.config.init and self.config.decoder_only):
            pixels, _ = self.heldout.batch(torch.arange(len(self.heldout)))
            latents = plain(self.autoencoder).latents(pixels.to(self.autoencoder.device)).float()
            self.autoencoder.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
        self.autoencoder.save_pretrained(folder / "autoencoder")


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
