"""A tiny random Stable Diffusion XL in diffusers' layout."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel

from seedstory.detokenizers.adapters import ResamplerAdapter
from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.kl_autoencoder import KLAutoencoder

SIDE = 16  # px; latents of 8 x 8


def tiny_unet(**changes) -> UNet2DConditionModel:
    sizes = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "cross_attention_dim": 64,
        "norm_num_groups": 8,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 24,
    }
    return UNet2DConditionModel(**sizes | changes)


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=0.5,
    )


def write_sdxl(folder: Path, prediction_type: str = "epsilon") -> Path:
    """The parts of an SDXL that a de-tokenizer reads, with the scheduler's settings as they are published."""
    torch.manual_seed(0)
    tiny_unet().save_pretrained(folder / "unet")
    tiny_vae().save_pretrained(folder / "vae")
    published_scheduler(prediction_type).save_pretrained(folder / "scheduler")
    return folder


def published_scheduler(prediction_type: str = "epsilon") -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        timestep_spacing="leading",
        steps_offset=1,
    )


def tiny_sdxl_detokenizer() -> Detokenizer:
    """A random SDXL form for 9 features of width 6, made in memory."""
    torch.manual_seed(1)
    adapter = ResamplerAdapter(6, 9, 5, 64, 24, image_size=SIDE, width=32, depth=1, heads=1)
    return Detokenizer(tiny_unet().eval(), adapter.eval(), KLAutoencoder(tiny_vae()).eval(), published_scheduler())
