"""Tiny checkpoints in the form of SEED-Story's release, made by the rules of `seed_story_table`."""

import json
from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler

from seedstory.convert.seed_story import SeedStoryFiles
from seedstory.convert.seed_story_form import SeedStoryForm
from tests.seedstory import seed_story_table as released
from tests.seedstory.tiny_language import tiny_tokenizer
from tests.tiny_sdxl import tiny_unet, tiny_vae

TEXT_TOKENS = len(tiny_tokenizer())
SIZES = released.Sizes.tiny(vocabulary=TEXT_TOKENS)
UNET_BLOCKS = {"down_blocks.1": (1, 2, 64), "mid_block": (1, 2, 64), "up_blocks.0": (2, 2, 64)}
# Released ids: the query tokens first, then <img> and </img>.
IMAGE_TOKENS = [f"<img_{index:05d}>" for index in range(SIZES.visual_tokens)] + ["<img>", "</img>"]


def tiny_form(sizes=SIZES):
    s = sizes
    return SeedStoryForm(
        tower={
            "width": s.tower_width,
            "depth": s.tower_depth,
            "heads": s.tower_heads,
            "patch_size": s.patch,
            "position_side": 4,
            "feature_side": 4,
            "feature_dim": s.feature_dim,
            "pool_heads": s.resampler_heads,
            "image_size": s.image_size,
        },
        llama={
            "vocab_size": s.vocabulary + s.visual_tokens + 2,
            "hidden_size": s.hidden,
            "intermediate_size": s.mlp,
            "num_hidden_layers": s.layers,
            "num_attention_heads": s.heads,
            "num_key_value_heads": s.heads,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
        },
        story={
            **SeedStoryForm().story,
            "num_visual_tokens": s.visual_tokens,
            "feature_tokens": s.features,
            "feature_dim": s.feature_dim,
            "input_resampler_width": s.hidden,
            "output_resampler_width": s.feature_dim,
            "input_resampler_heads": s.resampler_heads,
            "output_resampler_heads": s.resampler_heads,
            "lora_rank": s.lora_rank,
            "lora_alpha": 2.0 * s.lora_rank,
        },
        adapter={"context_tokens": s.context_tokens, "width": s.adapter_width, "depth": s.adapter_depth, "heads": 4},
    )


def random_weights(table, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, (shape, dtype) in table.items():
        values = torch.randn(shape, generator=generator) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.2)
        if len(shape) == 1 and name.endswith("weight"):
            values = 1 + values
        weights[name] = values.to(dtype)
    return weights


def write_tokenizer(folder: Path) -> Path:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(IMAGE_TOKENS, special_tokens=True)
    tokenizer.save_pretrained(folder)
    (folder / "added_tokens.json").write_text(
        json.dumps({name: TEXT_TOKENS + place for place, name in enumerate(IMAGE_TOKENS)})
    )
    return folder


def write_released(folder: Path, sizes=SIZES, write_tokenizer=write_tokenizer) -> tuple[SeedStoryFiles, dict]:
    """Writes all files, and gives their weights by file."""
    adapter = released.adapter(sizes)
    weights = {
        "agent": random_weights(released.agent(sizes), 1),
        "vision_tower": random_weights(released.vision_tower(sizes), 2),
        "detokenizer": random_weights(adapter | released.unet_keys_and_values(64, UNET_BLOCKS), 3),
    }
    for name, tensors in weights.items():
        torch.save(tensors, folder / f"{name}.bin")
    torch.manual_seed(0)
    tiny_unet().save_pretrained(folder / "sdxl" / "unet")
    tiny_unet().half().save_pretrained(folder / "sdxl" / "unet", variant="fp16")  # as in the published folder
    tiny_vae().save_pretrained(folder / "sdxl" / "vae")
    EulerDiscreteScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "sdxl" / "scheduler")
    files = SeedStoryFiles(
        folder / "agent.bin",
        folder / "vision_tower.bin",
        folder / "detokenizer.bin",
        write_tokenizer(folder / "tokenizer"),
        str(folder / "sdxl"),
    )
    return files, weights
