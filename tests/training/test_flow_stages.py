"""The flow head goes through stages 2a and 2: learned, cut into micro-batches, gone on with, exported."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from seedstory.modeling import StoryModel
from tests.training.test_loop import losses
from tests.training.tiny_data import write_parts
from training.loop import train
from training.mllm import MllmConfig, MllmStage
from training.theatre.scenes import ScenesConfig, ScenesStage


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("parts"), stories=2, loose=20)


def run(parts, out, kind, stage, **settings):
    common = {"data": parts / "data", "stage1": parts / "stage1", "out": parts / out, "resume": "never"}
    common = {name: str(value) for name, value in common.items()}
    common |= {"steps": 4, "batch_size": 2, "precision": "fp32", "optimizer": "adamw", "device": "cpu", "log_every": 1}
    torch.manual_seed(0)
    return train(kind(**common, **({"feature_head": "flow"} | settings)), stage)


def assert_same_batches_in_threads(stage):
    """Batches are functions of their samples alone, also when the loop asks for several at once."""
    draws = [stage.draw(step, progress=step / 24) for step in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda step: stage.batch(stage.draw(step, step / 24).samples, "story"), range(24)))
    for batch, draw in zip(found, draws, strict=True):
        expected = stage.batch(draw.samples, "story")
        assert batch.keys() == expected.keys() and batch["counts"] == expected["counts"]
        tensors = (name for name, value in expected.items() if isinstance(value, torch.Tensor))
        assert all(torch.equal(batch[name], expected[name]) for name in tensors)


def test_stages_2a_and_2_train_a_flow_whose_steps_may_be_cut(parts):
    run(parts, "scenes", ScenesConfig, ScenesStage, split="train", heldout="train")
    assert len(losses(parts / "scenes", "flow")) == len(losses(parts / "scenes", "cosine")) == 4
    story = {"base_lm": str(parts / "base"), "recipe": "theatre"}
    story |= {"recipe_settings": {"scenes": str(parts / "scenes"), "train_head_from": 0.0}}
    story |= {"own_features_from": 0.5, "loose_split": None, "heldout": "train"}
    whole = run(parts, "whole", MllmConfig, MllmStage, **story)
    cut = run(parts, "cut", MllmConfig, MllmStage, micro_batch_size=1, **story)
    for key in ("story_visual", "own_visual"):
        found = losses(parts / "cut", key)
        assert found and found == pytest.approx(losses(parts / "whole", key), abs=1e-4)
    for name, weight in whole.model.output_resampler.state_dict().items():
        torch.testing.assert_close(cut.model.output_resampler.state_dict()[name], weight, atol=1e-4, rtol=1e-3)
    assert_same_batches_in_threads(whole)
    config = StoryModel.from_pretrained(parts / "whole" / "story_model", base_model=parts / "base").config
    assert config.feature_head == "flow"
    with pytest.raises(ValueError, match="stage 2a trained another output resampler"):
        run(parts, "other", MllmConfig, MllmStage, **story, feature_head="regression")
