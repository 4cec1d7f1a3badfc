"""The loop: exact resumption, steps that do not depend on how they are cut, and runs that end before their time."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.toy_stage import PowerCut, StopsAtEighthStep, ToyStage, toy_config
from training.checkpoint import CheckpointError
from training.loop import Interrupted, train

ROOT = Path(__file__).parents[2]


def losses(folder, key="loss"):
    lines = (json.loads(line) for line in next(Path(folder).glob("*.jsonl")).read_text().splitlines())
    return {line["step"]: line[key] for line in lines if key in line}


def last_checkpoint(folder):
    folder = max((Path(folder) / "checkpoints" / "toy").glob("step-*"))
    groups = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
    return {group: {name: t.clone() for name, t in tensors.items()} for group, tensors in groups.items()}


def assert_same_bits(one, two):
    one, two = last_checkpoint(one), last_checkpoint(two)
    assert one.keys() == two.keys()
    for group in one:
        assert one[group].keys() == two[group].keys()
        for name in one[group]:
            assert torch.equal(one[group][name], two[group][name]), (group, name)


def script(settings, **environment):
    command = [sys.executable, "-m", "tests.training.toy_stage", json.dumps(settings)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


SETTINGS = {
    "adamw": {"optimizer": "adamw"},
    "muon": {"optimizer": "muon"},
    "averaged": {"optimizer": "muon", "average": 0.9},
    "dropout": {"seed": 30},  # the one thing here that draws from the global generator
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_ten_steps_are_five_and_five_more_to_the_bit(tmp_path, settings):
    train(toy_config(tmp_path / "whole", **settings), ToyStage)

    with pytest.raises(PowerCut):
        train(toy_config(tmp_path / "halves", **settings), StopsAtEighthStep)
    torch.manual_seed(12345)
    train(toy_config(tmp_path / "halves", **settings), ToyStage)
    assert_same_bits(tmp_path / "whole", tmp_path / "halves")
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")
    assert losses(tmp_path / "whole", "heldout") == losses(tmp_path / "halves", "heldout")
    assert (tmp_path / "whole/exported.json").read_text() == (tmp_path / "halves/exported.json").read_text()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_does_not_depend_on_how_it_is_cut(tmp_path, optimizer):
    for size in (8, 4, 1):
        train(toy_config(tmp_path / str(size), micro_batch_size=size, optimizer=optimizer), ToyStage)
    whole = losses(tmp_path / "8")
    assert len(whole) == 10 and whole[9] != whole[0]
    tolerance = 1e-5 if optimizer == "adamw" else 1e-3  # Muon works in bfloat16
    for size in (4, 1):
        assert losses(tmp_path / str(size)) == pytest.approx(whole, abs=tolerance)


def test_going_on_needs_the_same_settings_but_not_the_same_machine(tmp_path):
    train(toy_config(tmp_path, steps=5, adam_lr=1e-2), ToyStage)
    with pytest.raises(ValueError, match=re.escape("(adam_lr, steps; adam_lr was 0.01, is 0.02)")):
        train(toy_config(tmp_path, steps=10, adam_lr=2e-2), ToyStage)
    train(toy_config(tmp_path, steps=5, micro_batch_size=2, keep_checkpoints=5), ToyStage)
    train(toy_config(tmp_path, steps=10, adam_lr=2e-2, resume="never"), ToyStage)
    assert len(losses(tmp_path)) == 10


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train(toy_config(tmp_path), ToyStage)

    class Other(ToyStage):
        def __init__(self, config, backend):
            super().__init__(config, backend)
            self.extra = torch.nn.Linear(2, 2)

    with pytest.raises(ValueError, match="of another model: 2 weights differ, extra.bias is one"):
        train(toy_config(tmp_path), Other)


def test_the_last_checkpoints_stay_and_a_damaged_one_is_passed_over(tmp_path, capsys):
    settings = {"save_every": 2, "keep_checkpoints": 3}
    train(toy_config(tmp_path, **settings), ToyStage)
    folder = tmp_path / "checkpoints" / "toy"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000006", "step-000008", "step-000010"]
    final = last_checkpoint(tmp_path)["weights"]
    damaged = folder / "step-000010" / "weights.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    capsys.readouterr()
    train(toy_config(tmp_path, **settings), ToyStage)
    said = capsys.readouterr().out
    assert "weights.safetensors is damaged" in said and "going on after 8 of 10 steps" in said
    again = last_checkpoint(tmp_path)["weights"]
    assert all(torch.equal(final[name], again[name]) for name in final)
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        train(toy_config(tmp_path, resume=str(tmp_path / "nothing")), ToyStage)


KILLED_WHILE_SAVING = """
import os, signal, sys
from training import checkpoint
seal, seen = checkpoint._seal, []
def die(path):
    seen.append(path)
    if len(seen) == {files}:  # in the middle of the second checkpoint
        os.kill(os.getpid(), signal.SIGKILL)
    return seal(path)
checkpoint._seal = die
sys.argv[1:] = [{settings!r}]
import runpy; runpy.run_module("tests.training.toy_stage", run_name="__main__")
"""


def test_killed_while_saving_it_goes_on_from_the_checkpoint_before(tmp_path, capsys):
    train(toy_config(tmp_path / "whole"), ToyStage)
    settings = json.dumps({"out": str(tmp_path / "killed")})
    code = KILLED_WHILE_SAVING.format(files=8, settings=settings)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = tmp_path / "killed" / "checkpoints" / "toy"
    assert sorted(path.name.split(".")[0] for path in folder.iterdir()) == ["", "step-000005"]
    capsys.readouterr()
    train(toy_config(tmp_path / "killed"), ToyStage)
    assert "going on after 5 of 10" in capsys.readouterr().out
    assert_same_bits(tmp_path / "whole", tmp_path / "killed")
    assert not list(folder.glob(".step-*"))


def test_a_future_that_was_given_up_goes_with_the_next_checkpoint(tmp_path):
    train(toy_config(tmp_path, save_every=2, keep_checkpoints=9), ToyStage)
    folder = tmp_path / "checkpoints" / "toy"
    before = last_checkpoint(tmp_path)["weights"]

    with pytest.raises(PowerCut):
        train(
            toy_config(tmp_path, save_every=2, keep_checkpoints=9, resume=str(folder / "step-000004")),
            StopsAtEighthStep,
        )
    assert sorted(path.name for path in folder.iterdir()) == ["step-000002", "step-000004", "step-000006"]
    train(toy_config(tmp_path, save_every=2, keep_checkpoints=9), ToyStage)
    assert all(torch.equal(before[name], weight) for name, weight in last_checkpoint(tmp_path)["weights"].items())


def test_weights_of_another_shape_are_refused(tmp_path):
    train(toy_config(tmp_path), ToyStage)

    class Wider(ToyStage):
        def __init__(self, config, backend):
            super().__init__(config, backend)
            self.net[3] = torch.nn.Linear(16, 1)

    with pytest.raises(ValueError, match="of another model: 2 weights differ, net.3.bias"):
        train(toy_config(tmp_path), Wider)


def test_a_finished_run_writes_its_weights_again(tmp_path, capsys):
    train(toy_config(tmp_path), ToyStage)
    weights = (tmp_path / "exported.json").read_text()
    (tmp_path / "exported.json").unlink()  # as if it had been killed right after its last checkpoint
    train(toy_config(tmp_path), ToyStage)
    assert (tmp_path / "exported.json").read_text() == weights and "no step is left" in capsys.readouterr().out


FULL_DISK = """
import resource, sys, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from training import loop
save = loop.Checkpoints.save
def full(self, checkpoint):
    if checkpoint.state["step"] == 10:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    return save(self, checkpoint)
loop.Checkpoints.save = full
sys.argv[1:] = [{settings!r}]
import runpy; runpy.run_module("tests.training.toy_stage", run_name="__main__")
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files by setrlimit")
def test_a_full_disk_is_named_and_loses_nothing(tmp_path):
    settings = json.dumps({"out": str(tmp_path)})
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK.format(settings=settings)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "could not write the checkpoint" in done.stderr and "Checkpoints kept: 5" in done.stderr
    assert [path.name for path in (tmp_path / "checkpoints" / "toy").iterdir()] == ["step-000005"]


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ToyStage, "poisoned", {3, 6})
    train(toy_config(tmp_path), ToyStage)
    said = capsys.readouterr().out
    assert "not finite at step 3, process 0 of 1: skipped (1 so far)" in said and "step 6" in said
    assert sorted(losses(tmp_path)) == [0, 1, 2, 4, 5, 7, 8, 9]
    state = json.loads((tmp_path / "checkpoints/toy/step-000010/state.json").read_text())
    assert state["bad_steps"] == 2
    assert all(torch.isfinite(weight).all() for weight in last_checkpoint(tmp_path)["weights"].values())


def test_too_many_steps_that_are_not_finite_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyStage, "poisoned", set(range(4, 10)))
    with pytest.raises(ValueError, match="3 steps were not finite, the last at step 6, process 0 of 1"):
        train(toy_config(tmp_path, max_bad_steps=2, save_every=2), ToyStage)


def test_a_signal_ends_the_run_with_a_checkpoint(tmp_path):
    train(toy_config(tmp_path / "whole", steps=400, save_every=400, log_every=400), ToyStage)
    settings = {"out": str(tmp_path / "stopped"), "steps": 400, "save_every": 400, "log_every": 1}
    process = script(settings)
    for line in process.stdout:
        if "step=20 " in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait() == 1 and "Interrupted: stopped by SIGTERM after" in rest
    assert len(list((tmp_path / "stopped/checkpoints/toy").iterdir())) == 1
    train(toy_config(tmp_path / "stopped", steps=400, save_every=400, log_every=400), ToyStage)
    assert_same_bits(tmp_path / "whole", tmp_path / "stopped")


def test_minutes_end_the_run_with_a_checkpoint(tmp_path):
    for step in (1, 2):
        with pytest.raises(Interrupted, match=f"by max_minutes after {step} of 10 steps; the same command") as stopped:
            train(toy_config(tmp_path, max_minutes=1e-9), ToyStage)
        assert stopped.value.on_time
    train(toy_config(tmp_path), ToyStage)
    assert sorted(losses(tmp_path)) == list(range(10))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 9, "micro_batch_size": 2}, "micro_batch_size 2 does not divide a process's share of 9"),
        ({"zero_stage": 2, "optimizer": "muon"}, "ZeRO cuts matrices into pieces"),
        ({"zero_stage": 4}, "zero_stage must be 0, 1, 2 or 3"),
        ({"offload": "cpu"}, "offload needs DeepSpeed"),
        ({"zero_stage": 3, "average": 0.9}, "averaged weights need whole weights"),
        ({"precision": "fp8"}, "precision must be one of auto, bf16, fp32"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda"),
        ({"micro_batch_size": -4}, "micro_batch_size must be 0 or more"),
        ({"average": 1.5}, "average must be at least 0 and below 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_to_do(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train(toy_config(tmp_path, **settings), ToyStage)
