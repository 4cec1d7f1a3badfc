"""At full size, built without memory, our networks have the names and shapes of SEED-Story's released checkpoints."""

import functools
import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import LlamaConfig, LlamaForCausalLM

from seedstory.convert.key_map import KeyMap
from seedstory.convert.seed_story_keys import ADAPTER, LANGUAGE_MODEL, LORA, RESAMPLERS, UNET, UNUSED, VISION_TOWER
from seedstory.detokenizers.perceiver_adapter import PerceiverAdapter
from seedstory.modeling.checkpoint import trained_state
from seedstory.modeling.configuration import StoryConfig
from seedstory.modeling.qwen_vision_tower import QwenVisionTower
from seedstory.modeling.story_model import StoryModel
from tests.seedstory import seed_story_table as released


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def under_our_names(table, keys):
    return {ours: spec.shape for name, spec in table.items() if (ours := keys.ours(name)) is not None}


@functools.cache
def llama():
    config = LlamaConfig(vocab_size=32066, num_key_value_heads=32, tie_word_embeddings=False)
    with torch.device("meta"):
        return LlamaForCausalLM(config)


@functools.cache
def story_model():
    config = StoryConfig(
        base_lm_config=llama().config.to_dict(),
        image_start_id=32000,
        num_visual_tokens=64,
        feature_tokens=256,
        feature_dim=4096,
        resampler="cross_attention",
        input_resampler_width=4096,
        input_resampler_depth=1,
        input_resampler_heads=32,
        output_resampler_width=4096,
        output_resampler_depth=1,
        output_resampler_heads=32,
        lora_targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    with torch.device("meta"):
        return StoryModel(config)


@functools.cache
def sdxl_unet():
    """That of stabilityai/stable-diffusion-xl-base-1.0."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )


def test_the_table_has_the_published_totals():
    totals = {
        (len(table), released.parameters(table), released.size_in_bytes(table))
        for table in (released.agent(), released.vision_tower(), released.detokenizer())
    }
    assert totals == {
        (856, 6_916_106_240, 14_709_260_288),
        (594, 1_935_610_624, 3_871_221_248),
        (342, 606_832_896, 2_427_331_584),
    }
    assert released.parameters(released.adapter()) == 61_245_696
    assert released.parameters(released.unet_keys_and_values()) == 545_587_200


def test_the_vision_tower_has_these_weights_and_no_others():
    with torch.device("meta"):
        tower = QwenVisionTower()
    assert shapes(tower.state_dict()) == under_our_names(released.vision_tower(), VISION_TOWER)
    assert sum(tensor.numel() for tensor in tower.state_dict().values()) == 1_935_610_624
    assert tower.num_features == 256 and tower.config.feature_dim == 4096


def test_the_resamplers_have_these_weights_and_no_others():
    own = {name: shape for name, shape in shapes(story_model().state_dict()).items() if "resampler." in name}
    assert own == under_our_names(released.agent(), RESAMPLERS)
    sizes = {
        side: sum(weight.numel() for weight in getattr(story_model(), f"{side}_resampler").parameters())
        for side in ("input", "output")
    }
    assert sizes == {"input": 67_403_776, "output": 68_190_208}  # their positions are not trained


def test_the_language_model_has_these_weights_and_no_others():
    assert shapes(llama().state_dict()) == under_our_names(released.agent(), LANGUAGE_MODEL)
    lora = {name: shape for name, shape in shapes(trained_state(story_model())).items() if ".lora_" in name}
    assert lora == under_our_names(released.agent(), LORA) and len(lora) == 2 * 7 * 32
    assert sum(torch.Size(shape).numel() for shape in lora.values()) == 39_976_960
    assert shapes({"token_rows": story_model().token_rows}) == {"token_rows": (66, 4096)}


def test_the_adapter_has_these_weights_and_keeps_blank_features_beside():
    with torch.device("meta"):
        adapter = PerceiverAdapter()
    own = shapes(adapter.state_dict())
    assert own.pop("blank_features") == (256, 4096)
    assert own == under_our_names(released.detokenizer(), ADAPTER)
    assert sum(weight.numel() for weight in adapter.parameters()) == 61_245_696


def test_keys_and_values_are_those_of_sdxls_unet():
    unet = shapes(sdxl_unet().state_dict())
    assert sum(torch.Size(shape).numel() for shape in unet.values()) == 2_567_463_684  # as published
    chosen = {name: shape for name, shape in unet.items() if re.search(r"attn[12]\.to_[kv]\.", name)}
    assert chosen == under_our_names(released.unet_keys_and_values(), UNET) and len(chosen) == 280


PARTS = {
    released.vision_tower: (VISION_TOWER,),
    released.agent: (LANGUAGE_MODEL, LORA, RESAMPLERS),
    released.detokenizer: (ADAPTER, UNET),
}


@pytest.mark.parametrize("table", PARTS, ids=lambda table: table.__name__)
def test_every_weight_has_one_name_of_ours_and_it_leads_back(table):
    left = [name for name in table() if not any(re.fullmatch(pattern, name) for pattern in UNUSED)]
    found = {name: [(keys, ours) for keys in PARTS[table] if (ours := keys.ours(name))] for name in left}
    assert {name: len(places) for name, places in found.items() if len(places) != 1} == {}
    assert all(keys.released(ours) == name for name, ((keys, ours),) in found.items())
    assert len(table()) - len(left) == (32 + 65 if table is released.agent else 0)


def test_names_that_are_not_in_a_map_have_no_other():
    keys = KeyMap(("a.{}.b.", "x.{}."), ("c", "y.z"))
    assert keys.ours("a.12.b.weight") == "x.12.weight" and keys.released("x.12.weight") == "a.12.b.weight"
    assert keys.ours("c") == "y.z" and keys.released("y.z") == "c"
    assert [keys.ours(name) for name in ("a.1.b.", "a.b.c", "cc", "c.weight", "aa.1.b.w", "")] == [None] * 6
