"""The stages with picture networks under DeepSpeed ZeRO, in two processes: one plain process's losses and exports."""

import dataclasses
import shutil

import pytest
import yaml
from safetensors.torch import load_file

from tests.training.test_backend import launch, needs_deepspeed
from tests.training.test_loop import losses
from tests.training.tiny_data import write_model, write_theatre
from training.adapt import AdaptConfig, AdaptStage
from training.autoencoder import AutoencoderConfig, AutoencoderStage
from training.detokenizer import DetokenizerConfig, DetokenizerStage
from training.loop import train

STAGES = {
    "autoencoder": (AutoencoderConfig, AutoencoderStage),
    "detokenizer": (DetokenizerConfig, DetokenizerStage),
    "adapt": (AdaptConfig, AdaptStage),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_theatre(folder / "data", stories=2, loose=12)
    write_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def alone(parts):
    """The configuration of a stage and its run in one plain process, made when first asked for."""
    made = {}

    def of(name):
        if name not in made:
            kind, stage = STAGES[name]
            config = kind(**settings_of(name, parts))
            train(config, stage)
            path = parts / f"{name}.yaml"
            path.write_text(yaml.safe_dump(dataclasses.asdict(config)))
            made[name] = path, parts / name
        return made[name]

    return of


def settings_of(name, parts):
    model = str(parts / "model")
    common = {
        "data": str(parts / "data"),
        "out": str(parts / name),
        "steps": 4,
        "batch_size": 4,
        "precision": "fp32",
        "optimizer": "adamw",
        "average": 0.0,
        "log_every": 1,
        "save_every": 2,
        "device": "cpu",
    }
    drawing = {"heldout_limit": 4, "heldout_steps": 1}
    pages = {"split": "loose-train", "heldout": "loose-heldout"}
    own = {
        "autoencoder": pages,
        "detokenizer": pages | drawing | {"autoencoder": f"{model}/autoencoder"},
        "adapt": drawing | {"stage1": model, "story_model": f"{model}/story_model", "base_lm": f"{model}-base"},
    }
    return common | own[name]


def assert_agree(out, alone):
    for key in ("loss", "heldout_psnr"):
        expected = losses(alone, key)
        assert expected and losses(out, key) == pytest.approx(expected, abs=1e-5 if key == "loss" else 1e-3)
    exported = [path.relative_to(alone) for path in alone.rglob("*.safetensors") if "checkpoints" not in path.parts]
    assert exported
    for path in exported:
        one, two = load_file(alone / path), load_file(out / path)
        assert one.keys() == two.keys()
        # Where a gradient is all but zero, AdamW takes a step of its rounding.
        apart = {key: (one[key].float() - two[key].float()).abs().mean().item() for key in one}
        assert max(apart.values()) < 1e-5, (path, max(apart.items(), key=lambda item: item[1]))
    for path in alone.rglob("config.json"):
        assert (out / path.relative_to(alone)).read_text() == path.read_text()


@needs_deepspeed
@pytest.mark.parametrize("name", STAGES)
def test_two_processes_of_zero_2_are_one_plain_process_and_go_on(name, alone, tmp_path):
    config, one = alone(name)
    command = [f"training.{name}", "--config", str(config), "zero_stage=2", "micro_batch_size=1", f"out={tmp_path}"]
    launch(2, *command)
    assert_agree(tmp_path, one)
    shutil.rmtree(tmp_path / "checkpoints" / name / "step-000004")
    launch(2, *command)
    assert_agree(tmp_path, one)


@needs_deepspeed
@pytest.mark.parametrize("name", STAGES)
def test_two_processes_of_zero_3_are_one_plain_process(name, alone, tmp_path):
    config, one = alone(name)
    launch(2, f"training.{name}", "--config", str(config), "zero_stage=3", f"out={tmp_path}")
    assert_agree(tmp_path, one)
