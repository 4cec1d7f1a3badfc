"""What SEED-Story's released networks are, in settings of ours, and which weights their files must hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from seedstory.convert.checkpoints import Shapes
from seedstory.convert.key_map import KeyMap
from seedstory.convert.seed_story_keys import ADAPTER, LANGUAGE_MODEL, LORA, RESAMPLERS, UNET, VISION_TOWER
from seedstory.detokenizers.perceiver_adapter import PerceiverAdapter
from seedstory.modeling.checkpoint import trained_state
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.qwen_vision_tower import QwenVisionTower
from seedstory.modeling.story_model import StoryModel

KEYS_AND_VALUES = re.compile(r".*\.attn[12]\.to_[kv]\.weight")
_LLAMA = {
    "vocab_size": 32066,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_STORY = {
    "num_visual_tokens": 64,
    "feature_tokens": 256,
    "feature_dim": 4096,
    "resampler": "cross_attention",
    "input_resampler_width": 4096,
    "input_resampler_depth": 1,
    "input_resampler_heads": 32,
    "output_resampler_width": 4096,
    "output_resampler_depth": 1,
    "output_resampler_heads": 32,
    "lora_rank": 16,
    "lora_alpha": 32.0,
    "lora_dropout": 0.05,
    "lora_targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "mse_weight": 0.0,
    "layout": "seed_story",
}


@dataclass(frozen=True)
class SeedStoryForm:
    """Sizes of the networks; by default the released ones.

    Attributes:
        tower: Settings of `QwenVisionTower`.
        llama: Settings of transformers' `LlamaConfig`, the image tokens in its vocabulary.
        story: Settings of `StoryConfig`.
        adapter: Settings of `PerceiverAdapter` that its U-Net does not decide.
    """

    tower: Mapping[str, Any] = field(default_factory=dict)
    llama: Mapping[str, Any] = field(default_factory=lambda: dict(_LLAMA))
    story: Mapping[str, Any] = field(default_factory=lambda: dict(_STORY))
    adapter: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_start_id(self) -> int:
        """Id of `<img>` in our order, after the vocabulary of Llama."""
        return int(self.llama["vocab_size"]) - 2 - int(self.story["num_visual_tokens"])

    def llama_config(self, dtype: torch.dtype) -> LlamaConfig:
        """The base language model's configuration."""
        return LlamaConfig(**self.llama, architectures=["LlamaForCausalLM"], dtype=dtype)

    def story_config(self, llama: LlamaConfig, lora: bool) -> StoryConfig:
        """The story model's configuration, with its base language model in a folder beside it."""
        settings = dict(self.story) | ({} if lora else {"lora_rank": 0})
        base = {key: value for key, value in llama.to_dict().items() if key != "_name_or_path"}
        return StoryConfig(base_lm="base_lm", base_lm_config=base, image_start_id=self.image_start_id, **settings)

    def tower_weights(self) -> Shapes:
        """Shapes by released name in the vision tower's file."""
        with torch.device("meta"):
            return _released(QwenVisionTower(**self.tower), VISION_TOWER)

    def agent_weights(self) -> Shapes:
        """Shapes by released name in the agent's file, without what is not used."""
        llama = self.llama_config(torch.float32)
        with torch.device("meta"):
            language = AutoModelForCausalLM.from_config(llama)
            wanted = _released(language, LANGUAGE_MODEL)
            own = trained_state(StoryModel(self.story_config(llama, lora=True), language))
        for keys in (RESAMPLERS, LORA):
            wanted |= {released: tuple(own[name].shape) for name in own if (released := keys.released(name))}
        return wanted

    def adapter_for(self, unet: Mapping[str, Any], image_size: int) -> PerceiverAdapter:
        """The adapter of a U-Net of SDXL, by its configuration; random."""
        return PerceiverAdapter(
            feature_dim=self.story["feature_dim"],
            num_features=self.story["feature_tokens"],
            cross_attention_dim=unet["cross_attention_dim"],
            pooled_dim=unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"],
            image_size=image_size,
            **self.adapter,
        )

    def detokenizer_weights(self, unet: Mapping[str, Any], whole: bool) -> Shapes:
        """Shapes by released name in the de-tokenizer's file.

        Args:
            unet: Configuration of SDXL's U-Net.
            whole: Whether the file has the whole U-Net, or keys and values alone.
        """
        with torch.device("meta"):
            wanted = _released(self.adapter_for(unet, 8), ADAPTER)
            network = _released(UNet2DConditionModel.from_config(dict(unet)), UNET)
        return wanted | {name: shape for name, shape in network.items() if whole or KEYS_AND_VALUES.fullmatch(name)}


def _released(network: nn.Module, keys: KeyMap) -> Shapes:
    state = network.state_dict()
    return {released: tuple(state[name].shape) for name in state if (released := keys.released(name))}
