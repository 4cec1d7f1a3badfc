"""Batches that worker processes build: the same run to the bit, and no process that outlives it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training.test_loop import assert_same_bits, losses
from tests.training.toy_stage import PowerCut, StopsAtEighthStep, ToyStage, toy_config
from training.loop import train
from training.workers import Workers

FORKS = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
pytestmark = FORKS


class Named(ToyStage):
    """Says which process built each batch."""

    def batch(self, samples, kind):
        return super().batch(samples, kind) | {"process": os.getpid()}

    def forward(self, batch, progress):
        Path(self.config.out, f"built-{batch['step']}").write_text(str(batch["process"]))
        return super().forward(batch, progress)


def builders(folder):
    return [int(path.read_text()) for path in folder.glob("built-*")]


@pytest.mark.parametrize("settings", [{"seed": 30}, {"micro_batch_size": 2}], ids=["dropout", "micro-batches"])
def test_any_number_of_workers_gives_the_same_bits(tmp_path, settings):
    for workers in (0, 1, 3):
        train(toy_config(tmp_path / str(workers), workers=workers, **settings), Named)
    for workers in (1, 3):
        assert_same_bits(tmp_path / "0", tmp_path / str(workers))
        assert losses(tmp_path / "0") == losses(tmp_path / str(workers))
    assert set(builders(tmp_path / "0")) == {os.getpid()}
    assert len(builders(tmp_path / "3")) == 10 and os.getpid() not in builders(tmp_path / "3")
    assert not multiprocessing.active_children()


def test_a_run_goes_on_with_another_number_of_workers(tmp_path):
    train(toy_config(tmp_path / "whole"), ToyStage)
    with pytest.raises(PowerCut):
        train(toy_config(tmp_path / "halves", workers=2), StopsAtEighthStep)
    assert len(losses(tmp_path / "halves")) == 7, "the fault belongs to the step whose batch it is"
    assert not multiprocessing.active_children()
    torch.manual_seed(12345)
    train(toy_config(tmp_path / "halves", workers=1), ToyStage)
    assert_same_bits(tmp_path / "whole", tmp_path / "halves")
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")


class Stubborn(Exception):
    """Can be written, but not read again."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("a damaged picture"), ValueError, "a damaged picture"),
        (OSError("no room"), OSError, "no room"),
        (Stubborn("a", "b"), RuntimeError, "Stubborn: a and b"),
    ],
)
def test_a_workers_error_ends_the_run_as_it_would_without_workers(tmp_path, error, kind, message):
    class Fails(ToyStage):
        def batch(self, samples, kind):
            if samples[0][0] >= 3 * self.config.batch_size:
                raise error
            return super().batch(samples, kind)

    with pytest.raises(kind) as caught:
        train(toy_config(tmp_path, workers=2), Fails)
    assert str(caught.value) == message
    if kind is not RuntimeError:
        assert "in batch" in caught.value.__notes__[0], "where it was"
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_ends_the_run_in_one_line(tmp_path):
    class Killed(ToyStage):
        def batch(self, samples, kind):
            if samples[0][0] >= 3 * self.config.batch_size:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().batch(samples, kind)

    with pytest.raises(ValueError, match=r"^a process that builds batches ended at step \d or soon after.*workers: 0$"):
        train(toy_config(tmp_path, workers=2), Killed)
    assert not multiprocessing.active_children()


def test_values_are_taken_in_any_pace():
    workers = Workers(lambda step: {"step": torch.arange(step)}, 3, 9, 2)
    for step in range(3, 9):
        assert torch.equal(workers.take(step)["step"], torch.arange(step))
        time.sleep(0.01 * (step % 2))
    workers.close()


SLOW = "from tests.training import toy_stage as toy, test_workers; test_workers.run_slowly()"


def run_slowly():
    """A run that is always at its batches; in a script, since it is ended by signals."""

    class Slow(ToyStage):
        def batch(self, samples, kind):
            time.sleep(0.05)
            return super().batch(samples, kind)

    train(toy_config(sys.argv[1], steps=2000, save_every=2000, workers=2), Slow)


def start_slowly(folder):
    command = [sys.executable, "-c", SLOW, str(folder)]
    root = Path(__file__).parents[2]
    run = subprocess.Popen(command, cwd=root, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while not (folder / "toy.jsonl").exists() or len(losses(folder)) < 3:
        assert run.poll() is None and time.monotonic() < deadline, run.stdout.read()
        time.sleep(0.1)
    return run


def nobody_left(group):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


def test_ctrl_c_reaches_all_processes_and_ends_with_a_checkpoint(tmp_path):
    run = start_slowly(tmp_path)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    output = run.communicate(timeout=60)[0].decode()
    assert run.returncode == 1 and "training.loop.Interrupted: stopped by SIGINT after" in output, output
    assert list((tmp_path / "checkpoints" / "toy").glob("step-*")) and nobody_left(run.pid)


def test_workers_end_with_a_run_that_is_killed(tmp_path):
    run = start_slowly(tmp_path)
    run.kill()
    run.communicate(timeout=60)
    assert nobody_left(run.pid)
