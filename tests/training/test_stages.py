"""The three stages one after the other at toy length, on real pages, up to a model that tells a story."""

import json

import pytest
import torch
from safetensors.torch import load_file

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.story_model import StoryModel
from seedstory.modeling.vision_tower import VisionTower
from seedstory.pipeline import StoryPipeline
from tests.training.tiny_data import write_base, write_theatre
from training.adapt import AdaptConfig, AdaptStage
from training.autoencoder import AutoencoderConfig, AutoencoderStage
from training.detokenizer import DetokenizerConfig, DetokenizerStage
from training.loop import train
from training.mllm import MllmConfig, MllmStage
from training.pages import PageImages, ShuffledSampler
from training.recipes import make_recipe
from training.theatre.scene_codes import ROLES, SceneCodes
from training.theatre.scenes import ScenesConfig, ScenesStage, page_truths


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    # Enough loose pages for every word to occur in training.
    return write_theatre(tmp_path_factory.mktemp("theatre"), stories=2, loose=150)


@pytest.fixture(scope="module")
def trained(theatre, tmp_path_factory):
    """Folder with stage1/, stage2/ and stage3/ after a few steps each."""
    out = tmp_path_factory.mktemp("runs")
    base = write_base(out / "base")
    common = {"data": str(theatre), "log_every": 1, "save_every": 30, "device": "cpu"}
    pages = common | {"split": "loose-train", "heldout": "loose-heldout", "batch_size": 4}
    stage1, stage2 = str(out / "stage1"), str(out / "stage2")
    train(AutoencoderConfig(**pages, out=stage1, steps=30), AutoencoderStage)
    train(
        DetokenizerConfig(**pages, out=stage1, steps=3, autoencoder=f"{stage1}/autoencoder"),
        DetokenizerStage,
    )
    stories = common | {"stage1": stage1, "base_lm": str(base), "batch_size": 1}
    train(
        ScenesConfig(**common | {"heldout": "loose-heldout"}, stage1=stage1, out=stage2, batch_size=8, steps=12),
        ScenesStage,
    )
    train(
        MllmConfig(
            **stories,
            recipe="theatre",
            recipe_settings={"scenes": stage2},
            out=stage2,
            steps=12,
            loose_split="loose-train",
            own_features_from=0.7,
            skipped=0.5,
        ),
        MllmStage,
    )
    train(
        AdaptConfig(
            **stories | {"batch_size": 4}, out=str(out / "stage3"), steps=2, story_model=f"{stage2}/story_model"
        ),
        AdaptStage,
    )
    return out


def test_a_stage_says_before_its_first_step_what_an_earlier_one_has_left_out(tmp_path):
    base = str(write_base(tmp_path / "base"))
    common = {
        "data": "none",
        "out": str(tmp_path / "out"),
        "stage1": str(tmp_path / "one"),
        "steps": 1,
        "device": "cpu",
    }
    theatre = {"recipe": "theatre", "recipe_settings": {"scenes": str(tmp_path / "two")}}
    runs = (
        (ScenesConfig(**common), ScenesStage),
        (
            MllmConfig(**common, base_lm=base, **theatre),
            MllmStage,
        ),
        (AdaptConfig(**common, story_model="none"), AdaptStage),
    )
    VisionTower().save_pretrained(tmp_path / "one" / "vision_tower")
    for config, stage in runs:
        with pytest.raises(ValueError, match=r"has no detokenizer: run python -m training.detokenizer first, or set"):
            train(config, stage)
    drawing = DetokenizerConfig(data="none", out="none", steps=1, device="cpu", autoencoder=str(tmp_path / "ae"))
    with pytest.raises(ValueError, match=r"ae has no config.json: run python -m training.autoencoder first, or set"):
        train(drawing, DetokenizerStage)
    (tmp_path / "one" / "detokenizer").mkdir()
    with pytest.raises(ValueError, match=r"two has no scene_codes.safetensors: run python -m training.theatre.scenes"):
        train(*runs[1])


def test_losses_are_logged_and_fall(trained):
    lines = [json.loads(line) for line in (trained / "stage1" / "autoencoder.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 30 and sum(losses[-8:]) < 0.9 * sum(losses[:8])
    kinds = {key for line in (trained / "stage2" / "mllm.jsonl").read_text().splitlines() for key in json.loads(line)}
    assert {"story_lm", "story_cosine", "story_code", "own_cosine", "heldout_cosine", "heldout_perplexity"} <= kinds
    assert list((trained / "stage2" / "samples").glob("mllm-*.png"))
    assert list((trained / "stage1" / "tensorboard").rglob("events.*"))


def test_scene_codes_come_back_from_disk_and_distinguish_scenes(theatre, trained):
    codes = SceneCodes.load(trained / "stage2" / "scene_codes.safetensors")
    truths = page_truths(theatre, "loose-train")
    rows = codes(torch.tensor([codes.indices(truth) for truth in truths]))
    assert rows.shape == (150, 16, 256)
    torch.testing.assert_close(rows.square().mean(-1), torch.ones(150, 16), atol=1e-3, rtol=0)
    bare = {"place": "beach", "time": "day", "actors": [], "props": []}
    dusk = codes(torch.tensor([codes.indices(bare), codes.indices(bare | {"time": "dusk"})]))
    differs = (dusk[0] != dusk[1]).any(-1)
    assert [role for role, different in zip(ROLES, differs, strict=True) if different] == [("page", "time")]


def test_the_story_model_draws_as_stage_2a_learned_it(trained):
    drawn = load_file(trained / "stage2" / "output_resampler.safetensors")
    story_model = load_file(trained / "stage2" / "story_model" / "model.safetensors")
    for name, weight in drawn.items():
        torch.testing.assert_close(story_model[f"output_resampler.{name}"], weight.bfloat16(), atol=0, rtol=0)
    assert "output_resampler.to_width.weight" in story_model.keys() - drawn.keys()


def test_the_stages_make_a_model_that_generates_a_story(trained):
    model = StoryModel.from_pretrained(trained / "stage2" / "story_model", dtype=torch.float32)
    tower = VisionTower.from_pretrained(trained / "stage1" / "vision_tower").eval()
    pipeline = StoryPipeline(model, tower, Detokenizer.from_pretrained(trained / "stage3" / "detokenizer"))
    story = pipeline("The fox found a lantern.", pages=2, num_inference_steps=1)
    assert len(story.pages) == 2 and story.pages[1].image.size == (128, 128)


def test_the_tower_reads_what_the_autoencoder_encodes(trained):
    tower = VisionTower.from_pretrained(trained / "stage1" / "vision_tower").eval()
    autoencoder_ = Detokenizer.from_pretrained(trained / "stage1" / "detokenizer").autoencoder
    pixels = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels), tower.from_latents(autoencoder_.encoder(pixels)))
        features = tower(pixels)
    assert features.shape == (2, 64, 64)
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, 64), atol=1e-5, rtol=0)


def test_heads_weigh_more_than_the_rest(theatre):
    images = PageImages(theatre, "loose-train", recipe=make_recipe("theatre", {"head_weight": 4.0}))
    truth, weights = images.truths[0], images.weights[0]
    x0, y0, x1, _ = (edge // 4 for edge in truth["actors"][0]["box"])
    assert weights[y0 + 2, (x0 + x1) // 2] == 4 and weights[-1, 0] == 1


def test_rows_are_a_stream_of_epochs_that_repeats_with_the_seed_from_any_place():
    rows = ShuffledSampler(10, seed=3)
    stream = rows.take(0, 25)
    assert sorted(stream[:10]) == sorted(stream[10:20]) == list(range(10)) and stream[:10] != stream[10:20]
    assert ShuffledSampler(10, seed=3).take(7, 9) == stream[7:16]
    assert ShuffledSampler(10, seed=4).take(0, 10) != stream[:10]
