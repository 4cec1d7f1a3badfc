"""Several processes and DeepSpeed ZeRO do what one plain process does, on CPUs over gloo."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_loop import last_checkpoint, losses, script
from tests.training.tiny_data import write_base, write_stage1, write_theatre
from tests.training.toy_stage import ToyStage, toy_config
from training.loop import train

ROOT = Path(__file__).parents[2]
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed: pip install 'seedstory[deepspeed]'",
)


def launch(processes, module, *arguments):
    """Run a module as its user would on several processes; the output, with the exit code asserted."""
    # Standalone, the launcher takes a port that is free: two tests at once would else meet on one.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", module, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


def toy(processes, **settings):
    launch(
        processes,
        "tests.training.toy_stage",
        json.dumps({key: str(v) if key == "out" else v for key, v in settings.items()}),
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Ten steps of one plain process on whole batches."""
    out = tmp_path_factory.mktemp("alone")
    train(toy_config(out), ToyStage)
    return out


def assert_agree(out, alone):
    assert losses(out) == pytest.approx(losses(alone), abs=1e-5)
    assert losses(out, "grad_norm") == pytest.approx(losses(alone, "grad_norm"), abs=1e-4)
    assert losses(out, "heldout") == pytest.approx(losses(alone, "heldout"), abs=1e-5)
    weights, expected = last_checkpoint(out)["weights"], last_checkpoint(alone)["weights"]
    assert weights.keys() == expected.keys()
    for name in expected:
        assert (weights[name] - expected[name]).abs().max() < 1e-5
    exported, whole = (json.loads((folder / "exported.json").read_text()) for folder in (out, alone))
    assert exported.keys() == whole.keys() and exported["0.bias"] == pytest.approx(whole["0.bias"], abs=1e-5)


def test_two_processes_are_one(tmp_path, alone):
    toy(2, out=tmp_path, micro_batch_size=2)
    assert_agree(tmp_path, alone)


@needs_deepspeed
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_processes_of_every_zero_stage_are_one_plain_process(tmp_path, alone, stage):
    toy(2, out=tmp_path, micro_batch_size=2, zero_stage=stage)
    assert_agree(tmp_path, alone)


@needs_deepspeed
def test_zero_without_a_launcher_needs_nothing_of_the_environment(tmp_path, alone):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = script({"out": str(tmp_path), "zero_stage": 2}, MASTER_PORT=port, ACCELERATE_MIXED_PRECISION="bf16")
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert_agree(tmp_path, alone)


@needs_deepspeed
@pytest.mark.parametrize(("stage", "processes"), [(1, 1), (2, 2), (3, 2)])
def test_offloading_changes_nothing(tmp_path, alone, stage, processes):
    toy(processes, out=tmp_path, zero_stage=stage, offload="cpu", micro_batch_size=4)
    assert_agree(tmp_path, alone)


@needs_deepspeed
@pytest.mark.parametrize(("stage", "processes"), [(0, 1), (2, 1), (3, 2)])
def test_a_checkpoint_of_zero_2_goes_on_anywhere(tmp_path, alone, zero_checkpoint, stage, processes):
    shutil.copytree(zero_checkpoint, tmp_path, dirs_exist_ok=True)
    toy(processes, out=tmp_path, zero_stage=stage)
    assert_agree(tmp_path, alone)


@pytest.fixture(scope="module")
def zero_checkpoint(tmp_path_factory):
    """The first five of ten steps on two ZeRO-2 processes."""
    out = tmp_path_factory.mktemp("zero")
    toy(2, out=out, zero_stage=2, micro_batch_size=2)
    shutil.rmtree(out / "checkpoints" / "toy" / "step-000010")
    return out


@needs_deepspeed
@pytest.mark.parametrize("stage", [2, 3])
def test_zero_skips_a_step_that_is_not_finite(tmp_path, monkeypatch, stage):
    monkeypatch.setenv("TOY", '{"poisoned": [3]}')
    toy(2, out=tmp_path / "zero", zero_stage=stage)
    monkeypatch.setattr(ToyStage, "poisoned", {3})
    train(toy_config(tmp_path / "plain"), ToyStage)
    assert sorted(losses(tmp_path / "zero")) == [0, 1, 2, *range(4, 10)]
    assert losses(tmp_path / "zero") == pytest.approx(losses(tmp_path / "plain"), abs=1e-5)


IDLE = [0, 1, 2, 5, 6]  # steps of which a part of the weights has no gradient


@pytest.fixture(scope="module")
def idle_part(tmp_path_factory):
    """Ten steps of one plain process, some of them without a part of the weights."""
    out = tmp_path_factory.mktemp("idle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyStage, "idle", set(IDLE))
        train(toy_config(out), ToyStage)
    return out


@pytest.mark.parametrize("stage", [0, pytest.param(2, marks=needs_deepspeed), pytest.param(3, marks=needs_deepspeed)])
def test_weights_without_a_gradient_fare_alike_everywhere(tmp_path, monkeypatch, idle_part, stage):
    monkeypatch.setenv("TOY", json.dumps({"idle": IDLE}))
    toy(2, out=tmp_path, micro_batch_size=2, zero_stage=stage)
    assert_agree(tmp_path, idle_part)
    assert last_checkpoint(tmp_path)["optimizer"]["late.weight/step"] == 10


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """A configuration of stage 2 on real pages, and the losses of one plain process."""
    folder = tmp_path_factory.mktemp("stories")
    lines = {
        "data": write_theatre(folder / "data", stories=4),
        "stage1": write_stage1(folder / "stage1"),
        "base_lm": write_base(folder / "base"),
        "out": folder / "alone",
        "steps": 3,
        "batch_size": 2,
        "precision": "fp32",
        "optimizer": "adamw",
        "log_every": 1,
        "save_every": 3,
        "own_features_from": 0.0,  # two of the three steps show the model its own pictures
        "device": "cpu",
    }
    config = folder / "mllm.yaml"
    config.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    launch(1, "training.mllm", "--config", str(config))
    return config


@needs_deepspeed
@pytest.mark.parametrize("stage", [2, 3])
def test_the_story_model_under_zero_is_the_story_model(stories, stage):
    alone, out = stories.parent / "alone", stories.parent / f"zero-{stage}"
    launch(2, "training.mllm", "--config", str(stories), f"zero_stage={stage}", f"out={out}")
    for key in ("story_lm", "story_visual", "own_lm", "own_visual", "heldout_lm", "heldout_cosine"):
        expected = losses(alone, key)
        assert expected and losses(out, key) == pytest.approx(expected, abs=1e-5), key
    name = "story_model/model.safetensors"
    one, two = load_file(alone / name), load_file(out / name)
    assert one.keys() == two.keys()
    # Weights that agree to 1e-5 may be stored as neighbours in bfloat16, whose steps are at most 2**-7 of a value.
    for key in one:
        torch.testing.assert_close(two[key].float(), one[key].float(), rtol=2**-7, atol=1e-5, msg=key)


@needs_deepspeed
def test_two_machines_of_the_guide_are_one_process(stories):
    """The command of the guide, once for each machine; each has one process."""
    page = (ROOT / "docs" / "guides" / "train.md").read_text("utf-8")
    (command,) = re.findall(r"^torchrun (--nnodes 2 .*)$", page, re.M)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    out = stories.parent / "machines"
    small = {"8": "1", "HOST:29500": host, "configs/mini/mllm.yaml": str(stories), "batch_size=16": "batch_size=2"}
    small["steps=250"] = "steps=3"
    words = command.split()
    assert small.keys() <= set(words)
    call = [sys.executable, "-m", "torch.distributed.run", *[small.get(word, word) for word in words], f"out={out}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    machines = [subprocess.Popen(call, cwd=ROOT, env=environment, **pipes) for _ in range(2)]
    try:
        said = [machine.communicate(timeout=600)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    for key in ("story_lm", "story_visual", "heldout_lm"):
        expected = losses(stories.parent / "alone", key)
        assert expected and losses(out, key) == pytest.approx(expected, abs=1e-5), key
