"""Stage 1a: train the picture autoencoder.

python -m training.autoencoder --config configs/mini/autoencoder.yaml
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seedstory.detokenizers.autoencoder import PictureAutoencoder
from training.config import RunConfig
from training.optimizers import AveragedWeights, MuonAdamW
from training.pages import WEIGHT_SCALE, PagePictures, shuffled_rows
from training.run import Run, parse_arguments


@dataclass(kw_only=True)
class AutoencoderConfig(RunConfig):
    """Stage 1a.

    Attributes:
        heldout: JSONL split for the reported PSNR.
        latent_channels: Z.
        latent_noise: standard deviation of Gaussian noise on the latents while training.
        head_weight: weight of heads in the loss.
        limit: at most so many training pictures.
        init: folder of an autoencoder to go on from.
    """

    split: str = "train"
    heldout: str = "heldout"
    latent_channels: int = 8
    latent_noise: float = 0.05
    head_weight: float = 4.0
    limit: int | None = None
    init: str | None = None


def reconstruction_loss(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted L1 of pixels, of their edges and of 4x4 means.

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
    return pixels + 0.5 * (across + down) + 0.5 * pooled


@torch.no_grad()
def psnr(autoencoder: PictureAutoencoder, pictures: PagePictures, run: Run, count: int = 256) -> tuple[float, Tensor]:
    """Mean PSNR in dB over the first `count` pictures, and the first eight with their reconstructions."""
    values, rows = [], []
    for start in range(0, min(count, len(pictures)), 64):
        pixels, _ = pictures.batch(torch.arange(start, min(start + 64, count, len(pictures))))
        with run.autocast():
            output = autoencoder(pixels.to(run.device)).float().cpu().clamp(-1, 1)
        values.append(-10 * torch.log10(((output - pixels) / 2).square().mean((1, 2, 3))))
        rows.append((pixels, output))
    return torch.cat(values).mean().item(), torch.stack([rows[0][0][:8], rows[0][1][:8]]) / 2 + 0.5


def train(config: AutoencoderConfig) -> PictureAutoencoder:
    """Run stage 1a and write `OUT/autoencoder`, its latents scaled to unit variance."""
    run = Run(config, "autoencoder")
    pictures = PagePictures(config.data, config.split, head_weight=config.head_weight, limit=config.limit)
    heldout = PagePictures(config.data, config.heldout, limit=256)
    if config.init:
        model = PictureAutoencoder.from_pretrained(config.init)
    else:
        model = PictureAutoencoder(latent_channels=config.latent_channels)
    model.register_to_config(scaling_factor=1.0)
    model = model.to(run.device, memory_format=torch.channels_last)
    optimizer = MuonAdamW(model.named_parameters(), config.muon_lr, config.adam_lr, config.weight_decay)
    average = AveragedWeights(model)
    rows = shuffled_rows(len(pictures), config.batch_size, config.seed)

    def save(step: int) -> None:
        average.swap()
        quality, sheet = psnr(model, heldout, run)
        run.write(step, heldout_psnr=quality)
        run.sheet(step, "autoencoder", list(sheet))
        with torch.no_grad(), run.autocast():
            latents = model.encoder(heldout.batch(torch.arange(len(heldout)))[0].to(run.device)).float()
        model.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
        model.save_pretrained(run.folder / "autoencoder")
        model.register_to_config(scaling_factor=1.0)
        average.swap()

    for step, progress in run.steps():
        pixels, weights = (tensor.to(run.device) for tensor in pictures.batch(next(rows)))
        with run.autocast():
            latents = model.encoder(pixels.contiguous(memory_format=torch.channels_last))
            output = model.decoder(latents + config.latent_noise * torch.randn_like(latents))
        loss = reconstruction_loss(output.float(), pixels, weights)
        optimizer.set_progress(progress)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(step)
        run.log(step, loss=loss.item())
        if run.saves(step):
            save(step)
    return model


if __name__ == "__main__":
    train(parse_arguments(AutoencoderConfig, __doc__))
