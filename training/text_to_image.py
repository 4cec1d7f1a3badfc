"""Train a small Stable Diffusion, images from prompts, in diffusers' layout: a laboratory for illustrators.

python -m training.text_to_image --config configs/lab/text_to_image.yaml
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from seedstory.detokenizers.autoencoder import ImageAutoencoder
from seedstory.detokenizers.diffusers_autoencoder import DiffusersAutoencoder
from seedstory.detokenizers.objectives import Diffusion
from seedstory.image import resize_pixels
from training.backend import Backend
from training.clip_tokenizer import make_tokenizer
from training.command import run_stage
from training.detokenizer import encode_pages
from training.loop import Stage
from training.pages import PageImages, ShuffledSampler, check_image_size, noise_of
from training.recipes import RecipeConfig, make_recipe
from training.recorder import Recorder
from training.splits import files_of

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

SHOWN = 8  # held-out prompts of a sheet


@dataclass(kw_only=True)
class TextToImageConfig(RecipeConfig):
    """A small Stable Diffusion of one's own.

    Attributes:
        autoencoder: folder of the picture autoencoder whose latents are drawn.
        split: JSONL to train on; several are joined by "+".
        heldout: JSONL split for the reported loss and the sheets.
        limit, heldout_limit: at most so many pictures.
        image_size: side of the images in px, a multiple of 16.
        widths: channels of the U-Net's levels, the finest first; each has self-attention.
        depth: residual blocks of a level.
        head_dim: width of a head of attention.
        text_width, text_depth: of the text encoder.
        vocabulary: tokens of the tokenizer, which is made from the captions.
        max_tokens: of a prompt.
        condition_dropout: share of pictures trained without their prompt, for classifier-free guidance.
        heldout_steps: diffusion steps of the sheets.
        guidance_scale: of the sheets.
    """

    autoencoder: str
    split: str = "train"
    heldout: str = "heldout"
    limit: int | None = None
    heldout_limit: int = 256
    image_size: int = 128
    widths: tuple[int, ...] = (96, 192)
    depth: int = 1
    head_dim: int = 32
    text_width: int = 192
    text_depth: int = 3
    vocabulary: int = 3000
    max_tokens: int = 96
    condition_dropout: float = 0.1
    heldout_steps: int = 20
    guidance_scale: float = 3.0
    average: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size)
        if not self.widths or any(width % self.head_dim or width % 32 for width in self.widths):
            raise ValueError(f"widths must be multiples of 32 and of head_dim, {self.head_dim}, not {self.widths}")
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"condition_dropout must be at least 0 and below 1, not {self.condition_dropout}")


class TextToImageStage(Stage):
    """A U-Net and its text encoder learn together to draw pages from prompts, by the velocity of their latents."""

    name = "text_to_image"
    adam_names = ("token_embedding", "position_embedding", "conv_in", "conv_out")
    config: TextToImageConfig

    def __init__(self, config: TextToImageConfig, backend: Backend) -> None:
        super().__init__()
        self.config = config
        self.recipe = make_recipe(config.recipe, config.recipe_settings)
        images = PageImages(config.data, config.split, config.image_size, self.recipe, limit=config.limit, keep=False)
        self.sources = [*files_of(config.data, config.split, config.heldout), config.autoencoder]
        autoencoder = ImageAutoencoder.from_pretrained(config.autoencoder).eval().requires_grad_(False)
        self.vae = DiffusersAutoencoder.of(autoencoder).requires_grad_(False)
        autoencoder.to(backend.device)
        self.scale = autoencoder.config.scaling_factor
        self.latents, self.regions = encode_pages(autoencoder, images, backend)
        self.captions, self.truths = images.captions, images.truths
        self.rows = ShuffledSampler(len(images), config.seed)
        heldout = PageImages(config.data, config.heldout, config.image_size, limit=config.heldout_limit, keep=False)
        self.heldout = encode_pages(autoencoder, heldout, backend)[0]
        self.shown = heldout.batch(torch.arange(min(SHOWN, len(heldout))))[0]
        self.heldout_prompts = [
            self.recipe.prompt(caption, truth, random.Random(number))
            for number, (caption, truth) in enumerate(zip(heldout.captions, heldout.truths, strict=True))
        ]
        self.tokenizer = make_tokenizer(self._prompts_to_read(), config.vocabulary, config.max_tokens)
        self.text_encoder = make_text_encoder(self.tokenizer, config)
        self.unet = make_unet(config, self.latents.shape[1], self.latents.shape[-1])
        self.unet.to(memory_format=torch.channels_last)
        self.objective = Diffusion(make_scheduler())
        self.empty = self.ids([""])

    def _prompts_to_read(self) -> list[str]:
        """A prompt of every page, from which the tokenizer learns its words."""
        return [
            self.recipe.prompt(caption, truth, random.Random(f"tokenizer {number}"))
            for number, (caption, truth) in enumerate(zip(self.captions, self.truths, strict=True))
        ]

    def ids(self, prompts: list[str]) -> Tensor:
        """Prompts as ids, `[B, T]`; longer ones are cut, as diffusers does."""
        read = self.tokenizer(
            prompts, padding="max_length", max_length=self.config.max_tokens, truncation=True, return_tensors="pt"
        )
        return read.input_ids

    def batch(self, samples: Sequence[tuple[int, int]], kind: str) -> dict[str, Any]:
        rows = [row for _, row in samples]
        latents = self.latents[torch.tensor(rows)]
        prompts, noise, times, keep = [], [], [], []
        for number, row in samples:
            generator = noise_of(self.config.seed, number)
            time, kept = torch.rand(2, generator=generator)
            prompts.append(self.recipe.prompt(self.captions[row], self.truths[row], random.Random(number)))
            noise.append(torch.randn(latents[0].shape, generator=generator))
            times.append(self.objective.time(time))
            keep.append(kept >= self.config.condition_dropout)
        ids = torch.where(torch.stack(keep)[:, None], self.ids(prompts), self.empty)
        return {"latents": latents, "ids": ids, "noise": torch.stack(noise), "time": torch.stack(times),
                "weights": self.regions[torch.tensor(rows)]}  # fmt: skip

    def counts(self, batch: dict[str, Any]) -> dict[str, float]:
        return {"loss": len(batch["latents"])}

    def forward(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        latents = batch["latents"].float() * self.scale
        noisy = self.objective.noisy(latents, batch["noise"], batch["time"])
        words = self.text_encoder(batch["ids"]).last_hidden_state
        predicted = self.unet(noisy, batch["time"], words).sample.float()
        target, _ = self.objective.target(latents, batch["noise"], batch["time"])
        region = batch["weights"][:, None]
        error = (predicted - target).square() * region / region.mean((1, 2, 3), keepdim=True)
        return {"loss": len(latents) * error.mean()}

    def weights(self, kind: str, progress: float) -> dict[str, float]:
        return {"loss": 1.0}

    def evaluate(self, step: int, recorder: Recorder, backend: Backend) -> None:
        total = 0.0
        for part in torch.arange(len(self.heldout)).split(32):
            noise = torch.stack([torch.randn(self.heldout[0].shape, generator=noise_of(1, int(row))) for row in part])
            time = self.objective.time((part.float() + 0.5) / len(self.heldout))
            batch = {"latents": self.heldout[part], "ids": self.ids([self.heldout_prompts[int(row)] for row in part]),
                     "noise": noise, "time": time, "weights": torch.ones(len(part), *noise.shape[-2:])}  # fmt: skip
            with backend.autocast():
                total += float(self({key: value.to(backend.device) for key, value in batch.items()}, 1.0)["loss"])
        recorder.write(step, heldout_loss=total / len(self.heldout))
        pipeline = self.pipeline().to(backend.device)
        pipeline.set_progress_bar_config(disable=True)
        ids = self.ids(self.heldout_prompts[: len(self.shown)]).to(backend.device)
        words, empty = (self.text_encoder(some).last_hidden_state for some in (ids, self.empty.to(backend.device)))
        drawn = pipeline(
            prompt_embeds=words, negative_prompt_embeds=empty.expand_as(words), output_type="pt",
            num_inference_steps=self.config.heldout_steps, guidance_scale=self.config.guidance_scale,
            generator=[torch.Generator().manual_seed(row) for row in range(len(self.shown))],
        ).images  # fmt: skip
        recorder.sheet(step, [self.shown / 2 + 0.5, resize_pixels(drawn, self.config.image_size)])

    def pipeline(self) -> StableDiffusionPipeline:
        """The weights as a pipeline of diffusers."""
        from diffusers import StableDiffusionPipeline  # which is slow to import, and warns of what is not installed

        return StableDiffusionPipeline(
            vae=self.vae, text_encoder=self.text_encoder, tokenizer=self.tokenizer, unet=self.unet,
            scheduler=make_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip

    def export(self, folder: Path) -> None:
        """Write `pipeline/`, which `StableDiffusionPipeline.from_pretrained` reads."""
        self.pipeline().save_pretrained(folder / "pipeline")


def make_scheduler() -> DDIMScheduler:
    """The scheduler: the velocity is predicted, and the last step knows nothing (arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True,
        steps_offset=1,
    )  # fmt: skip


def make_text_encoder(tokenizer: CLIPTokenizer, config: TextToImageConfig) -> CLIPTextModel:
    """A small text encoder of CLIP's kind, with new weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=config.text_width, intermediate_size=4 * config.text_width,
            num_hidden_layers=config.text_depth, num_attention_heads=max(1, config.text_width // 64),
            max_position_embeddings=config.max_tokens, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


def make_unet(config: TextToImageConfig, channels: int, side: int) -> UNet2DConditionModel:
    """A small U-Net of Stable Diffusion's kind, with new weights."""
    levels = len(config.widths)
    return UNet2DConditionModel(
        sample_size=side, in_channels=channels, out_channels=channels, block_out_channels=config.widths,
        down_block_types=("CrossAttnDownBlock2D",) * levels, up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=config.depth, cross_attention_dim=config.text_width, norm_num_groups=32,
        attention_head_dim=tuple(width // config.head_dim for width in config.widths), use_linear_projection=True,
    )  # fmt: skip


def main() -> None:
    """Command line."""
    run_stage(TextToImageConfig, TextToImageStage, __doc__)


if __name__ == "__main__":
    main()
