"""A tiny random language half that runs in milliseconds: nothing is read from disk or from the network."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from seedstory.generation.native import native_unsupported_reason
from seedstory.modeling import StoryModel

SENTENCES = [
    "The fox found a lantern near the mill.",
    "Bruno the bear laughed, and the light danced on his coat!",
    "Was it a star? No, said the owl, it is only the moon.",
]

CONFIGS = {
    "llama": "LlamaConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "mistral": "MistralConfig",
    "gemma3": "Gemma3TextConfig",
    "smollm3": "SmolLM3Config",
    "phi3": "Phi3Config",
}


def tiny_tokenizer(bos: str | None = "<s>") -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about 330 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[token for token in (bos, "</s>") if token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token="</s>")


def tiny_lm(vocab_size: int, family: str = "llama", **settings):
    """A random two-layer language model whose attention is not nearly uniform."""
    config = getattr(transformers, CONFIGS[family])(
        **{
            "vocab_size": vocab_size,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 8192,
            "initializer_range": 0.2,
            "tie_word_embeddings": True,
        }
        | settings
    )
    lm = transformers.AutoModelForCausalLM.from_config(config)
    for name, weight in lm.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.2)
    return lm


def tiny_model(tokenizer=None, family: str = "llama", lm: dict | None = None, **settings) -> StoryModel:
    """A random `StoryModel` in float32 whose LoRA matrices are not zero."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer() if tokenizer is None else tokenizer
    sizes = {"num_visual_tokens": 4, "feature_tokens": 9, "feature_dim": 6, "lora_rank": 2, "lora_alpha": 4.0}
    for side in ("input", "output"):
        sizes |= {f"{side}_resampler_width": 16, f"{side}_resampler_depth": 1, f"{side}_resampler_heads": 2}
    base = tiny_lm(**{"vocab_size": len(tokenizer), "family": family} | (lm or {}))
    model = StoryModel.from_base(base, tokenizer=tokenizer, **(sizes | settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    return model.eval()


def needs_native(model: StoryModel) -> None:
    """Skip a test where there is no C compiler; a model that does not fit fails it."""
    reason = native_unsupported_reason(model)
    if "compiler" in reason:
        pytest.skip(reason)
    assert reason == ""
