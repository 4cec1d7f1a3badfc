"""Every stage repeats itself: the same losses as ever, the same bits when it goes on, the same step however cut.

The golden losses of twenty steps are in golden.json; after a change that means to alter them, write them anew with
`WRITE_GOLDEN=1 pytest tests/training/test_exactness.py`, and say in the commit why they changed.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_loop import losses
from tests.training.tiny_data import write_model, write_parts
from training.adapt import AdaptConfig, AdaptStage
from training.autoencoder import AutoencoderConfig, AutoencoderStage
from training.detokenizer import DetokenizerConfig, DetokenizerStage
from training.loop import train
from training.mllm import MllmConfig, MllmStage
from training.theatre.scenes import ScenesConfig, ScenesStage

GOLDEN = Path(__file__).parent / "golden.json"
STAGES = {
    "autoencoder": (AutoencoderConfig, AutoencoderStage, "loss"),
    "detokenizer": (DetokenizerConfig, DetokenizerStage, "loss"),
    "scenes": (ScenesConfig, ScenesStage, "cosine"),
    "mllm": (MllmConfig, MllmStage, "story_visual"),
    "adapt": (AdaptConfig, AdaptStage, "loss"),
}
# Features of stage 3 are kept in bf16, where what another CPU rounds otherwise may be a whole bit.
TOLERANCES = dict.fromkeys(STAGES, 1e-3) | {"adapt": 2e-2}
KINDS = "mllm of all kinds"  # loose pages, stories, parts of long ones, the model's own pictures, with scene codes
RUNS = STAGES | {KINDS: (MllmConfig, MllmStage, "story_code")}


@pytest.fixture(scope="module", autouse=True)
def one_kind_of_machine():
    """Features of the golden losses were computed in bfloat16, which every machine can, if not fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEDSTORY_PRECISION", "bf16")
        yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Data and untrained parts that the stages start from."""
    parts = write_parts(tmp_path_factory.mktemp("parts"), stories=4, loose=60, long=2)
    # For `adapt`. A trained one would bring along what another CPU rounds otherwise in twenty steps.
    write_model(parts / "model")
    return parts


def settings_of(name, parts, **settings):
    common = {
        "data": str(parts / "data"),
        "steps": 20,
        "save_every": 10,
        "eval_every": 20,
        "log_every": 1,
        "keep_checkpoints": 9,
        "precision": "fp32",
        "optimizer": "adamw",
        "device": "cpu",
        "batch_size": 2,
    }
    theatre = {"recipe": "theatre"}
    pages = {"split": "loose-train", "heldout": "loose-heldout"}
    stories = {"stage1": str(parts / "stage1"), "base_lm": str(parts / "base")}
    own = {
        "autoencoder": pages | theatre | {"recipe_settings": {"head_weight": 4.0}},
        "detokenizer": pages | theatre | {"autoencoder": str(parts / "stage1" / "autoencoder")},
        "scenes": {"stage1": str(parts / "stage1"), "split": "loose-train+train", "heldout": "loose-heldout"},
        "mllm": stories | theatre | {"loose_split": None, "own_features_from": 1.0, "skipped": 0.5},
        "adapt": stories | theatre | {"story_model": str(parts / "model" / "story_model"), "stories": 2},
        KINDS: stories
        | theatre
        | {"recipe_settings": {"scenes": str(parts / "scenes"), "train_head_from": 0.6}}
        | {"loose_split": "loose-train", "loose_until": 0.8, "own_features_from": 0.2}
        | {
            "steps": 10,
            "save_every": 5,
            "eval_every": 10,
            "seed": 213,
            "long_split": "long-train",
        },
    }
    return common | own[name] | settings


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory):
    """Twenty steps of every stage in one go, ten with all kinds of them; made when first asked for."""
    made = {}

    def of(name):
        if name not in made:
            if name == KINDS:
                shutil.copytree(of("scenes"), parts / "scenes")
            out = tmp_path_factory.mktemp(name)
            config, stage, _ = RUNS[name]
            torch.manual_seed(0)
            sources = train(config(out=str(out), **settings_of(name, parts)), stage).sources
            assert {Path(source).exists() for source in sources} == {True}
            made[name] = out
        return made[name]

    return of


def last_step(folder):
    return max(folder.glob("checkpoints/*/step-*"))


def tensors(folder):
    return {path.stem: load_file(path) for path in last_step(folder).glob("*.safetensors")}


@pytest.mark.parametrize("name", STAGES)
def test_the_losses_of_twenty_steps_are_what_they_always_were(name, whole):
    found = list(losses(whole(name), STAGES[name][2]).values())
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("WRITE_GOLDEN"):
        golden[name] = [round(value, 5) for value in found]
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
    assert len(found) == 20 and found == pytest.approx(golden[name], rel=TOLERANCES[name], abs=1e-4)
    assert sum(found[-4:]) < sum(found[:4])


@pytest.mark.parametrize("name", RUNS)
def test_a_stage_that_goes_on_ends_with_the_same_bits(name, whole, parts, tmp_path):
    for file in whole(name).iterdir():
        copy = shutil.copytree if file.is_dir() else shutil.copy
        copy(file, tmp_path / file.name)
    shutil.rmtree(last_step(tmp_path))
    config, stage, key = RUNS[name]
    torch.manual_seed(99)
    train(config(out=str(tmp_path), **settings_of(name, parts)), stage)
    one, two = tensors(whole(name)), tensors(tmp_path)
    assert one.keys() == two.keys() and {"weights", "optimizer"} <= one.keys()
    for group in one:
        for weight in one[group]:
            assert torch.equal(one[group][weight], two[group][weight]), (group, weight)
    assert losses(whole(name), key) == losses(tmp_path, key)


def test_steps_of_all_kinds_come_before_and_after_the_checkpoint(whole):
    kinds = ("loose", "story", "own", "long", "own_long")
    steps = {kind: list(losses(whole(KINDS), f"{kind}_words")) for kind in kinds}
    assert all(steps.values()) and sorted(sum(steps.values(), [])) == list(range(10))
    for kind in ("loose", "story", "own", "long"):
        some = [step for name, which in steps.items() if kind in name for step in which]
        assert min(some) < 5 <= max(some), steps


@pytest.mark.parametrize("name", ["detokenizer", "mllm"])
def test_a_real_step_does_not_depend_on_how_it_is_cut(name, parts, tmp_path):
    config, stage, key = STAGES[name]
    found = []
    for micro in (4, 1):
        out = tmp_path / str(micro)
        settings = settings_of(name, parts, batch_size=4, micro_batch_size=micro, steps=4, save_every=4, eval_every=4)
        train(config(out=str(out), **settings), stage)
        found.append(losses(out, key))
    assert found[0] == pytest.approx(found[1], abs=1e-5) and len(found[0]) == 4


def test_weights_are_drawn_from_the_seed(parts, tmp_path):
    config, stage, key = STAGES["autoencoder"]
    found = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)
        settings = settings_of("autoencoder", parts, steps=1, save_every=1, seed=seed)
        train(config(out=str(tmp_path / str(number)), **settings), stage)
        found.append(losses(tmp_path / str(number), key))
    assert found[0] == found[1] != found[2]
