"""Stage 1b: train the vision tower and the de-tokenizer together, pictures through visual tokens and back.

python -m training.detokenizer --config configs/mini/detokenizer.yaml
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from seedstory.detokenizers.autoencoder import PictureAutoencoder
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.vision_tower import VisionTower
from training.config import RunConfig
from training.optimizers import AveragedWeights, MuonAdamW
from training.pages import PagePictures, shuffled_rows
from training.run import Run, parse_arguments


@dataclass(kw_only=True)
class DetokenizerConfig(RunConfig):
    """Stage 1b.

    Attributes:
        autoencoder: folder of the trained autoencoder.
        token_noise: visual tokens get Gaussian noise of a level drawn from U(0, token_noise) times their RMS,
            so that the de-tokenizer bears what a language model regresses.
        condition_dropout: share of pictures trained without tokens, for classifier-free guidance.
        head_weight: weight of heads in the loss.
        limit: at most so many training pictures.
        init: folder with `vision_tower/` and `detokenizer/` to go on from.
    """

    autoencoder: str
    split: str = "train"
    heldout: str = "heldout"
    token_noise: float = 0.4
    condition_dropout: float = 0.05
    head_weight: float = 3.0
    limit: int | None = None
    init: str | None = None


def flow_loss(detokenizer: Detokenizer, latents: Tensor, features: Tensor, weights: Tensor) -> Tensor:
    """Rectified-flow loss with prediction of the clean latents (velocity weighting, capped).

    Args:
        latents: scaled, [B, Z, h, w].
        features: [B, F, D].
        weights: of the picture's regions, [B, 4 h / k, 4 w / k] for any k.
    """
    time = 1 - torch.rand(len(latents), device=latents.device) ** 1.5
    time = time.clamp_min(1e-3)
    t = time[:, None, None, None]
    noisy = (1 - t) * latents + t * torch.randn_like(latents)
    clean = detokenizer.predict_clean(noisy, time, features).float()
    region = F.adaptive_avg_pool2d(weights[:, None], latents.shape[-2:])
    region = region / region.mean((1, 2, 3), keepdim=True)
    return ((clean - latents).square() * region * (1 / t.square()).clamp_max(9.0)).mean()


@torch.no_grad()
def encode_latents(autoencoder: PictureAutoencoder, pictures: PagePictures, run: Run) -> Tensor:
    """Unscaled latents [N, Z, h, w] of all pictures, bf16."""
    parts = []
    for rows in torch.arange(len(pictures)).split(128):
        with run.autocast():
            parts.append(autoencoder.encoder(pictures.batch(rows)[0].to(run.device)).to(torch.bfloat16).cpu())
    return torch.cat(parts)


@torch.no_grad()
def reconstruct(tower: VisionTower, detokenizer: Detokenizer, pixels: Tensor, run: Run, steps: int = 4) -> Tensor:
    """Pixels [B, 3, H, W] in [-1, 1] through the visual tokens and back, in [0, 1]."""
    with run.autocast():
        features = tower(pixels.to(run.device)).float()
        generator = torch.Generator(run.device).manual_seed(0)
        return detokenizer(features, generator, num_inference_steps=steps, output_type="pt").float().cpu()


@torch.no_grad()
def report(tower: VisionTower, detokenizer: Detokenizer, heldout: PagePictures, run: Run, step: int) -> None:
    """Log held-out PSNR of reconstructions from visual tokens and save a sheet of them."""
    pixels, _ = heldout.batch(torch.arange(min(128, len(heldout))))
    output = reconstruct(tower, detokenizer, pixels, run)
    target = pixels / 2 + 0.5
    quality = -10 * torch.log10((output - target).square().mean((1, 2, 3)))
    run.write(step, heldout_psnr=quality.mean().item())
    run.sheet(step, "detokenizer", [target[:8], output[:8]])


def train(config: DetokenizerConfig) -> None:
    """Run stage 1b and write `OUT/vision_tower` and `OUT/detokenizer`."""
    run = Run(config, "detokenizer")
    autoencoder = PictureAutoencoder.from_pretrained(config.autoencoder).to(run.device).eval().requires_grad_(False)
    pictures = PagePictures(config.data, config.split, head_weight=config.head_weight, limit=config.limit)
    heldout = PagePictures(config.data, config.heldout, limit=128)
    scale = autoencoder.config.scaling_factor
    latents = encode_latents(autoencoder, pictures, run)

    if config.init:
        tower = VisionTower.from_pretrained(Path(config.init) / "vision_tower")
        detokenizer = Detokenizer.from_pretrained(Path(config.init) / "detokenizer")
        detokenizer.autoencoder = autoencoder
    else:
        tower = VisionTower(
            latent_channels=autoencoder.config.latent_channels,
            widths=autoencoder.config.widths,
            encoder_depths=autoencoder.config.encoder_depths,
            image_size=pictures.pixels.shape[-1],
        )
        detokenizer = Detokenizer.mini(autoencoder, tower.num_features, tower.config.feature_dim)
    tower.stem.load_state_dict(autoencoder.encoder.state_dict())
    networks = torch.nn.ModuleDict({"tower": tower, "adapter": detokenizer.adapter, "unet": detokenizer.unet})
    networks.to(run.device, memory_format=torch.channels_last).train()
    optimizer = MuonAdamW(networks.named_parameters(), config.muon_lr, config.adam_lr, config.weight_decay)
    average = AveragedWeights(networks)
    rows = shuffled_rows(len(pictures), config.batch_size, config.seed)

    def save(step: int) -> None:
        average.swap()
        report(tower, detokenizer, heldout, run, step)
        tower.save_pretrained(run.folder / "vision_tower")
        detokenizer.save_pretrained(run.folder / "detokenizer")
        average.swap()

    for step, progress in run.steps():
        chosen = next(rows)
        batch = latents[chosen].to(run.device, torch.float32)
        with run.autocast():
            features = tower.from_latents(batch).float()
            level = config.token_noise * torch.rand(len(batch), 1, 1, device=run.device)
            features = features + level * torch.randn_like(features)
            keep = torch.rand(len(batch), 1, 1, device=run.device) >= config.condition_dropout
            loss = flow_loss(detokenizer, batch * scale, features * keep, pictures.weights[chosen].to(run.device))
        optimizer.set_progress(progress)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        average.update(step)
        run.log(step, loss=loss.item())
        if run.saves(step):
            save(step)


if __name__ == "__main__":
    train(parse_arguments(DetokenizerConfig, __doc__))
