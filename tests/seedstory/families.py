"""Tiny random language models and vision networks of every family that the guide "Which backbones" names."""

from pathlib import Path

import torch
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    Siglip2ImageProcessorPil,
    Siglip2VisionConfig,
    SiglipConfig,
    SiglipVisionConfig,
)

from seedstory.modeling import StoryModel
from tests.seedstory.tiny_language import tiny_lm, tiny_model

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_EVEN = {"initializer_range": 0.1}  # narrow heads make more of rounding
WINDOW = 12  # fewer tokens than two pages of the tests hold
FAMILIES = {
    "llama2": {"lm": {"num_key_value_heads": 4, "tie_word_embeddings": False}},
    "llama3": {"lm": {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False}},
    "qwen2.5": {"family": "qwen2"},
    "qwen3": {"family": "qwen3", "lm": {"head_dim": 12}},
    "mistral": {"family": "mistral", "lm": {"sliding_window": WINDOW, "tie_word_embeddings": False}},
    "gemma3": {
        "family": "gemma3",
        "lm": {
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": WINDOW,
            "head_dim": 12,
            "query_pre_attn_scalar": 20,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    },
    "smollm2": {"lm": {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 4} | _EVEN},
    "smollm3": {"family": "smollm3", "lm": {"no_rope_layers": [1, 0], "pad_token_id": None}},
}


SIZE, PATCH = 32, 8
_SIZES = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_VIT = {**_SIZES, "image_size": SIZE, "patch_size": PATCH}
_TEXT = {**_SIZES, "vocab_size": 40, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
NETWORKS = {
    "clip": CLIPVisionConfig(**_VIT),
    "clip with its text model": CLIPConfig(text_config=_TEXT, vision_config=_VIT, projection_dim=8),
    "siglip": SiglipVisionConfig(**_VIT),
    "siglip with its text model": SiglipConfig(text_config=_TEXT, vision_config=_VIT),
    "siglip2": Siglip2VisionConfig(**_SIZES, patch_size=PATCH, num_patches=16),
    "dinov2": Dinov2Config(**_VIT, mlp_ratio=2),
    "dinov2 with registers": Dinov2WithRegistersConfig(**_VIT, mlp_ratio=2, num_register_tokens=3),
    "dinov3": DINOv3ViTConfig(**_VIT, num_register_tokens=3),
}
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]


def write_network(folder: Path, name: str) -> Path:
    """A vision network with its image processor, as transformers writes them."""
    torch.manual_seed(len(name))
    network = AutoModel.from_config(NETWORKS[name])
    with torch.no_grad():
        for weight_name, weight in network.named_parameters():
            if "layer_scale" not in weight_name:
                weight.add_(0.05 * torch.randn_like(weight))
    network.save_pretrained(folder)
    size = {"height": SIZE, "width": SIZE}
    if name == "siglip2":
        processor = Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=16, image_mean=MEAN, image_std=STD)
    else:
        processor = CLIPImageProcessorPil(size=size, crop_size=size, image_mean=MEAN, image_std=STD)
    processor.save_pretrained(folder)
    return folder


def family_lm(name: str, vocab_size: int, **settings):
    """The tiny language model of a family alone."""
    torch.manual_seed(0)
    return tiny_lm(vocab_size, FAMILIES[name].get("family", "llama"), **FAMILIES[name].get("lm", {}) | settings)


def family_model(name: str, **settings) -> StoryModel:
    """The tiny model of a family, with norms that are not all ones."""
    model = tiny_model(**FAMILIES[name], **settings)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight_name, weight in model.llm.named_parameters():
            if "norm" in weight_name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model
