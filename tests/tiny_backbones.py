"""Tiny random models of images from text in diffusers' layout, one of each form beside SDXL."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2Transformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
)

from tests.tiny_sdxl import SIDE, tiny_unet, tiny_vae

FORMS = ("sd15", "sd3", "flux2")
BLOCKS = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
    "sample_size": SIDE,
}


def write_backbone(form: str, folder: Path) -> Path:
    """The parts that a de-tokenizer reads, with the scheduler's settings as they are published."""
    torch.manual_seed(0)
    {"sd15": _write_sd15, "sd3": _write_sd3, "flux2": _write_flux2}[form](folder)
    return folder


def _write_sd15(folder: Path) -> None:
    tiny_unet(
        cross_attention_dim=48,
        transformer_layers_per_block=1,
        attention_head_dim=4,
        use_linear_projection=False,
        addition_embed_type=None,
        projection_class_embeddings_input_dim=None,
    ).save_pretrained(folder / "unet")
    tiny_vae().save_pretrained(folder / "vae")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")


def _write_sd3(folder: Path) -> None:
    """As Stable Diffusion 3.5 medium: norms on queries and keys, a second attention in some blocks, a shifted VAE."""
    tiny_sd3().save_pretrained(folder / "transformer")
    AutoencoderKL(
        **BLOCKS,
        latent_channels=6,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")


def tiny_sd3(**changes) -> SD3Transformer2DModel:
    sizes = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 6,
        "out_channels": 6,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": 40,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 24,
        "pos_embed_max_size": 12,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    return SD3Transformer2DModel(**sizes | changes)


def _write_flux2(folder: Path) -> None:
    """As FLUX.2 klein: no guidance embedding; the batch norm of the VAE has seen something."""
    tiny_flux2().save_pretrained(folder / "transformer")
    vae = AutoencoderKLFlux2(**BLOCKS, latent_channels=4)
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    vae.save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True).save_pretrained(folder / "scheduler")


def tiny_flux2(**changes) -> Flux2Transformer2DModel:
    sizes = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 40,
        "timestep_guidance_channels": 32,
        "axes_dims_rope": (4, 4, 4, 4),
        "guidance_embeds": False,
    }
    return Flux2Transformer2DModel(**sizes | changes)
