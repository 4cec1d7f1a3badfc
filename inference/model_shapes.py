"""Models to be measured: the embedded one, any model folder, and language models of known shapes with random weights.

A random model speaks made-up words of one token each. So every system writes captions of exactly the same length,
whichever words its rounding errors make it choose, and a caption comes back from its text as the same tokens.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from seedstory.identity import ModelIdentity
from seedstory.layout import LONGEST_CHAPTER, StoryLayout
from seedstory.model_folder import find_model
from seedstory.modeling import StoryModel
from seedstory.modeling.base_lm import model_identity
from seedstory.precision import fast_dtype

# The original's proportions: 64 visual tokens, 256 feature tokens as wide as the language model, shallow resamplers.
SHAPES: dict[str, dict[str, int | bool]] = {
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "llama2-7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "tie_word_embeddings": False,
    },
    "tiny": {  # for trying a measurement, not for measuring
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
# Stable Diffusion XL's networks by their published configurations.
_UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
_TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (2, 4),
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 24,
}
_TINY_VAE = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
}
SDXL_SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "sdxl": {"unet": _UNET, "vae": _VAE},
    "tiny": {"unet": _UNET | _TINY_UNET, "vae": _VAE | _TINY_VAE},
}
WORDS = (
    "One sunny morning a small fox in a red coat found an old key near the mill and showed it to her friend the bear "
    "who smiled and said that it must open the little door behind the tall tree by the river so they ran there at once"
).split()


def load(name: str, device: torch.device) -> StoryModel:
    """A model in evaluation mode, in the type that the device multiplies fastest; captions are decoded in bfloat16.

    Args:
        name: "mini", the folder of a model, or a key of `SHAPES` for random weights.
        device: Where it is put.

    Raises:
        ValueError: There is no such model.
    """
    if name not in SHAPES:
        model = StoryModel.from_pretrained(find_model(name) / "story_model", dtype=fast_dtype(device), device=device)
        model.decode_dtype = torch.bfloat16
        return model
    config = LlamaConfig(**SHAPES[name], max_position_embeddings=131072)
    torch.manual_seed(0)
    with torch.device(device):
        llm = AutoModelForCausalLM.from_config(config, dtype=fast_dtype(device))
        width = config.hidden_size
        resampler = {"width": width, "depth": 1, "heads": config.num_attention_heads}
        sizes: dict[str, Any] = {
            f"{side}_resampler_{key}": n for side in ("input", "output") for key, n in resampler.items()
        }
        model = StoryModel.from_base(
            llm,
            tokenizer=word_tokenizer(config.vocab_size),
            num_visual_tokens=64,
            feature_tokens=256,
            feature_dim=width,
            lora_rank=0,
            **sizes,
        )
    model.decode_dtype = torch.bfloat16
    return model.to(fast_dtype(device)).eval().requires_grad_(False)


def identity_of(name: str) -> ModelIdentity | None:
    """Which weights a model has; None for random ones."""
    return None if name in SHAPES else model_identity(find_model(name), name=name)


def word_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose every token is a word, as many as `vocab_size`."""
    tokens = ["<unk>", "<s>", "</s>", ":", *map(str, range(LONGEST_CHAPTER + 1)), *dict.fromkeys(WORDS)]
    tokens += [f"word{number}" for number in range(vocab_size - len(tokens))]
    tokenizer = Tokenizer(models.WordLevel({token: id for id, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def script(layout: StoryLayout, pages: int, tokens: int) -> list[str]:
    """Captions of exactly so many tokens, one for each page."""

    def size(words: list[str]) -> int:
        return len(layout.caption_ids(" ".join(words)))

    captions = []
    for page in range(pages):
        words: list[str] = []
        for number in count(page):
            word = WORDS[number % len(WORDS)]
            if size([*words, word]) > tokens:
                break
            words.append(word)
        words += ["a"] * (tokens - size(words))
        assert size(words) == tokens, "a tokenizer without a word of one token"
        captions.append(" ".join(words))
    return captions
