"""A tiny random Stable Diffusion 1.5 in diffusers' layout, text encoder and tokenizer included."""

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel

from tests.tiny_sdxl import tiny_unet, tiny_vae
from training.clip_tokenizer import make_tokenizer


def tiny_stable_diffusion() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    tokenizer = make_tokenizer(["Mia finds a key", "a fox in a red coat", "a cat"], 560, 24)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=24, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    unet = tiny_unet(
        addition_embed_type=None, attention_head_dim=4, transformer_layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=tiny_vae(), text_encoder=text_encoder.eval(), tokenizer=tokenizer, unet=unet.eval(),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe
