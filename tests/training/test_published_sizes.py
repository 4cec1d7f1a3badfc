"""Stage 2 in the published layout: 64 visual tokens, other features and another language model, at tiny width."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seedstory.modeling.story_model import StoryModel
from seedstory.pipeline import StoryPipeline
from tests.seedstory.tiny_language import tiny_lm, tiny_tokenizer
from tests.tiny import SIDE, tiny_detokenizer, tiny_vision_tower
from tests.training.tiny_data import write_book
from training.assemble import assemble
from training.config import load_config
from training.loop import train
from training.mllm import MllmConfig, MllmStage

CONFIG = Path(__file__).parents[2] / "configs" / "published" / "mllm.yaml"
# What makes the published sizes tiny; the number of visual tokens, depths, LoRA's layers and losses stay.
TINY = {
    "feature_tokens": 9,
    "feature_dim": 8,
    "input_resampler_width": 40,
    "input_resampler_heads": 2,
    "output_resampler_width": 8,
    "output_resampler_heads": 4,
    "lora_rank": 2,
    "steps": 4,
    "save_every": 2,
    "eval_every": 4,
    "batch_size": 2,
    "log_every": 1,
    "device": "cpu",
    "precision": "fp32",
    "heldout": "train",
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    write_book(folder / "data", pages=3, size=(SIDE, SIDE))
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(bos=None)
    tiny_lm(len(tokenizer), "qwen3", hidden_size=40, tie_word_embeddings=False, max_window_layers=2).save_pretrained(
        folder / "base"
    )
    tokenizer.save_pretrained(folder / "base")
    tiny_vision_tower(8).save_pretrained(folder / "stage1" / "vision_tower")
    tiny_detokenizer(8).save_pretrained(folder / "stage1" / "detokenizer")
    return folder


def config_of(parts, out, **settings):
    folders = {"data": parts / "data", "stage1": parts / "stage1", "base_lm": parts / "base", "out": out}
    return load_config(CONFIG, MllmConfig, [f"{key}={value}" for key, value in (TINY | folders | settings).items()])


@pytest.fixture(scope="module")
def trained(parts):
    train(config_of(parts, parts / "stage2"), MllmStage)
    return parts / "stage2"


def test_the_shipped_configuration_has_the_published_sizes():
    config = load_config(CONFIG, MllmConfig)
    assert (config.num_visual_tokens, config.feature_tokens, config.feature_dim) == (64, 256, 4096)
    assert config.input_resampler_heads == config.output_resampler_heads == 32 and config.recipe is None


def test_the_story_model_has_the_configured_sizes(trained, parts):
    config = StoryModel.from_pretrained(trained / "story_model", base_model=parts / "base").config
    for name in ("num_visual_tokens", "feature_tokens", "feature_dim", "lora_rank", "lora_dropout", "mse_weight"):
        assert getattr(config, name) == (TINY | {"num_visual_tokens": 64, "lora_dropout": 0.05, "mse_weight": 0})[name]
    assert (config.input_resampler_width, config.output_resampler_width) == (40, 8)
    assert (config.input_resampler_depth, config.output_resampler_depth) == (1, 1)
    assert config.resampler == "cross_attention"
    assert set(config.lora_targets) >= {"q_proj", "gate_proj"} and config.language_config().model_type == "qwen3"


def test_it_goes_on_to_the_same_bits(trained, parts, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "mllm" / "step-000004")
    torch.manual_seed(5)
    train(config_of(parts, tmp_path), MllmStage)
    one, two = (
        load_file(folder / "checkpoints/mllm/step-000004/weights.safetensors") for folder in (trained, tmp_path)
    )
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_it_writes_and_draws_a_page(trained, parts, tmp_path):
    assemble(parts / "stage1", trained, tmp_path / "model")
    pipeline = StoryPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32, device="cpu")
    story = pipeline("The fox takes a step.", pages=2, max_caption_tokens=4, num_inference_steps=1)
    assert [page.image.size for page in story.pages] == [(SIDE, SIDE)] * 2


def test_sizes_come_from_the_tower_where_they_are_not_given(parts, tmp_path):
    config = config_of(parts, tmp_path / "out", feature_tokens="null", feature_dim="null", steps=1)
    model = train(config, MllmStage).model
    assert (model.config.feature_tokens, model.config.feature_dim) == (9, 8)


def test_a_tower_with_other_features_is_refused(trained, parts, tmp_path):
    message = "vision_tower gives 9 feature tokens of width 8, the configuration wants 9 of width 7"
    with pytest.raises(ValueError, match=message):
        train(config_of(parts, tmp_path, feature_dim=7), MllmStage)
    other = tiny_vision_tower(6)
    shutil.copytree(parts / "stage1" / "detokenizer", tmp_path / "other" / "detokenizer")
    other.save_pretrained(tmp_path / "other" / "vision_tower")
    with pytest.raises(ValueError, match="of width 6, .*story_model wants 9 of width 8"):
        train(config_of(parts, tmp_path, stage1=tmp_path / "other", init=trained / "story_model"), MllmStage)


def test_scene_codes_need_the_number_of_visual_tokens_that_they_were_made_for(parts, tmp_path):
    for name in ("scene_codes.safetensors", "output_resampler.safetensors"):
        (tmp_path / name).touch()
    settings = {"recipe": "theatre", "recipe_settings": f"{{scenes: {tmp_path}}}"}
    with pytest.raises(ValueError, match="scene codes are of 16 visual tokens, the story model has 64"):
        train(config_of(parts, tmp_path / "out", **settings), MllmStage)
