"""Tiny random language models of every family that the guide "Which backbones" names."""

import torch

from seedstory.modeling import StoryModel
from tests.seedstory.tiny_language import tiny_model

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


def family_model(name: str, **settings) -> StoryModel:
    """The tiny model of a family, with norms that are not all ones."""
    model = tiny_model(**FAMILIES[name], **settings)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight_name, weight in model.llm.named_parameters():
            if "norm" in weight_name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model
