"""Stage 1b: train the vision tower and the de-tokenizer together, pictures through visual tokens and back.

python -m training.detokenizer --config configs/mini/detokenizer.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from seedstory.detokenizers.autoencoder import PictureAutoencoder
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.lora import merge_lora
from seedstory.modeling.vision_tower import VisionTower
from training.autoencoder import psnr
from training.backend import Backend
from training.config import RunConfig
from training.loop import Stage, run_stage
from training.pages import PagePictures, ShuffledRows, noise_of
from training.recorder import Recorder

Parts = Literal["full", "kv", "lora"]


@dataclass(kw_only=True)
class DrawingConfig(RunConfig):
    """What the stages that train a de-tokenizer share.

    Attributes:
        parts: what of the U-Net is trained beside its adapter: "full" (all of it), "kv" (the key and value
            projections that read the visual tokens, as in IP-Adapter, arXiv 2308.06721), or "lora".
        lora_rank: of "lora", on the attention's projections; merged into the weights that are written.
        token_noise: visual tokens get Gaussian noise of a level drawn from U(0, token_noise) times their RMS,
            so that the de-tokenizer bears what a language model regresses.
        condition_dropout: share of pictures trained without tokens, for classifier-free guidance.
        head_weight: weight of heads in the loss.
        limit: at most so many training pictures.
    """

    parts: Parts = "full"
    lora_rank: int = 16
    token_noise: float = 0.4
    condition_dropout: float = 0.05
    head_weight: float = 3.0
    limit: int | None = None
    average: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parts not in get_args(Parts):
            raise ValueError(f"parts must be one of {', '.join(get_args(Parts))}, not {self.parts!r}")


@dataclass(kw_only=True)
class DetokenizerConfig(DrawingConfig):
    """Stage 1b.

    Attributes:
        autoencoder: folder of the trained autoencoder.
        split: JSONL to train on; several are joined by "+".
        heldout: JSONL split for the reported PSNR.
        init: folder with `vision_tower/` and `detokenizer/` to go on from.
    """

    autoencoder: str
    split: str = "train"
    heldout: str = "heldout"
    init: str | None = None


class DrawingStage(Stage):
    """A de-tokenizer that learns to draw from visual tokens.

    Args:
        config: what is trained, and how.
        detokenizer: its autoencoder stays as it is.
    """

    config: DrawingConfig

    def __init__(self, config: DrawingConfig, detokenizer: Detokenizer) -> None:
        super().__init__()
        self.config, self.detokenizer = config, detokenizer
        detokenizer.autoencoder.eval().requires_grad_(False)
        self.adapter, self.unet = detokenizer.adapter, detokenizer.unet
        choose_parts(self.unet, config.parts, config.lora_rank)
        self.scale = detokenizer.autoencoder.config.scaling_factor

    def drawing_noise(self, number: int, latents: Tensor, features: tuple[int, int]) -> dict[str, Tensor]:
        """Everything random about a sample: time, noise on latents and tokens, whether tokens are shown, a coin."""
        generator = noise_of(self.config.seed, number)
        level, keep, time, coin = torch.rand(4, generator=generator)
        return {
            "token_noise": self.config.token_noise * level * torch.randn(features, generator=generator),
            "keep": (keep >= self.config.condition_dropout).float(),
            "time": (1 - time**1.5).clamp_min(1e-3),
            "coin": coin,
            "noise": torch.randn(latents.shape, generator=generator),
        }

    def flow_loss(self, batch: dict[str, Any], features: Tensor) -> Tensor:
        """Rectified-flow loss with prediction of the clean latents (velocity weighting, capped), summed over pictures.

        Args:
            batch: unscaled `latents` and `noise` [B, Z, h, w], `time` and `keep` [B], `weights` of regions [B, k, k].
            features: [B, F, D].
        """
        latents = batch["latents"].float() * self.scale
        t = batch["time"][:, None, None, None]
        noisy = (1 - t) * latents + t * batch["noise"]
        shown = features * batch["keep"][:, None, None]
        clean = self.detokenizer.predict_clean(noisy, batch["time"], shown).float()
        region = F.adaptive_avg_pool2d(batch["weights"][:, None], latents.shape[-2:])
        region = region / region.mean((1, 2, 3), keepdim=True)
        return len(latents) * ((clean - latents).square() * region * (1 / t.square()).clamp_max(9.0)).mean()

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        return {"loss": len(batch["latents"])}

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        return {"loss": 1.0}

    def export_detokenizer(self, folder: Path) -> None:
        """Write `detokenizer/`, LoRA merged."""
        unet = self.detokenizer.unet
        if self.config.parts == "lora":
            self.detokenizer.unet = merge_lora(deepcopy(unet))
        self.detokenizer.save_pretrained(folder / "detokenizer")
        self.detokenizer.unet = unet


def choose_parts(unet: nn.Module, parts: Parts, lora_rank: int) -> None:
    """Let only the chosen parts of a U-Net learn."""
    unet.requires_grad_(parts == "full")
    if parts == "kv":
        chosen = [weight for name, weight in unet.named_parameters() if "attn2.to_k" in name or "attn2.to_v" in name]
        if not chosen:
            raise ValueError("parts: kv needs a U-Net with cross-attention (attn2); this one has none")
        for weight in chosen:
            weight.requires_grad_(True)
    elif parts == "lora":
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        inject_adapter_in_model(LoraConfig(r=lora_rank, lora_alpha=lora_rank, target_modules=targets), unet)


@torch.no_grad()
def encode_latents(autoencoder: PictureAutoencoder, pictures: PagePictures, backend: Backend) -> Tensor:
    """Unscaled latents [N, Z, h, w] of all pictures, bf16."""
    parts = []
    for rows in torch.arange(len(pictures)).split(128):
        with backend.autocast():
            parts.append(autoencoder.encoder(pictures.batch(rows)[0].to(backend.device)).to(torch.bfloat16).cpu())
    return torch.cat(parts)


class DetokenizerStage(DrawingStage):
    """Pictures through visual tokens and back, tower and de-tokenizer together."""

    name = "detokenizer"

    def __init__(self, config: DetokenizerConfig, backend: Backend) -> None:
        autoencoder = PictureAutoencoder.from_pretrained(config.autoencoder).to(backend.device)
        self_pictures = PagePictures(config.data, config.split, head_weight=config.head_weight, limit=config.limit)
        if config.init:
            tower = VisionTower.from_pretrained(Path(config.init) / "vision_tower")
            detokenizer = Detokenizer.from_pretrained(Path(config.init) / "detokenizer")
            detokenizer.autoencoder = autoencoder
        else:
            tower = VisionTower(
                latent_channels=autoencoder.config.latent_channels,
                widths=autoencoder.config.widths,
                encoder_depths=autoencoder.config.encoder_depths,
                image_size=self_pictures.pixels.shape[-1],
            )
            detokenizer = Detokenizer.mini(autoencoder, tower.num_features, tower.config.feature_dim)
        tower.stem.load_state_dict(autoencoder.encoder.state_dict())
        super().__init__(config, detokenizer)
        self.tower = tower
        self.to(memory_format=torch.channels_last)
        self.pictures = self_pictures
        self.latents = encode_latents(autoencoder, self.pictures, backend)
        self.heldout = PagePictures(config.data, config.heldout, limit=128)
        self.rows = ShuffledRows(len(self.pictures), config.seed)

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        rows = torch.tensor([row for _, row in samples])
        latents = self.latents[rows]
        shape = (self.tower.num_features, self.tower.config.feature_dim)
        noise = [self.drawing_noise(number, latents[0], shape) for number, _ in samples]
        stacked = {name: torch.stack([one[name] for one in noise]) for name in noise[0]}
        return {"latents": latents, "weights": self.pictures.weights[rows], **stacked}

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        features = self.tower.from_latents(batch["latents"].float()).float()
        return {"loss": self.flow_loss(batch, features + batch["token_noise"])}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        pixels, _ = self.heldout.batch(torch.arange(len(self.heldout)))
        output = reconstruct(self.tower, self.detokenizer, pixels, backend)
        recorder.write(step, heldout_psnr=psnr(2 * output - 1, pixels).mean().item())
        recorder.sheet(step, [pixels[:8] / 2 + 0.5, output[:8]])

    def export(self, folder: Path) -> None:
        """Write `vision_tower/` and `detokenizer/`."""
        self.tower.save_pretrained(folder / "vision_tower")
        self.export_detokenizer(folder)


@torch.no_grad()
def reconstruct(
    tower: VisionTower, detokenizer: Detokenizer, pixels: Tensor, backend: Backend, steps: int = 4
) -> Tensor:
    """Pixels [B, 3, H, W] in [-1, 1] through the visual tokens and back, in [0, 1]."""
    with backend.autocast():
        features = tower(pixels.to(backend.device)).float()
        return draw_pictures(detokenizer, features, steps)


def draw_pictures(detokenizer: Detokenizer, features: Tensor, steps: int = 4) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] from features [B, F, D], always with the same noise."""
    generator = torch.Generator(features.device).manual_seed(0)
    return detokenizer(features, generator, num_inference_steps=steps, output_type="pt").float().cpu()


if __name__ == "__main__":
    run_stage(DetokenizerConfig, DetokenizerStage, __doc__)
