"""Two processes end together: after the fault of one, a signal to one, or when their minutes are over."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_loop import ROOT, assert_same_bits, losses
from tests.training.toy_stage import ToyStage, toy_config
from training.loop import train

LONG = {"steps": 200, "save_every": 200, "log_every": 1}


def start(folders=(ROOT, ROOT), toy=None, **settings) -> list[subprocess.Popen]:
    """Two processes of the toy stage, without a launcher that would end one when the other ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    compute_on_all = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    compute_on_all |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.toy_stage", json.dumps(settings)],
            cwd=folder,
            env={
                **os.environ,
                **compute_on_all,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "TOY": json.dumps(toy or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]


def end(processes) -> list[str]:
    """What the processes said, when both have ended."""
    try:
        return [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints" / "toy").iterdir())


def test_a_fault_of_one_process_ends_both(tmp_path):
    processes = start(out=str(tmp_path), toy={"faulty": [7]})
    said = end(processes)
    assert all(process.returncode != 0 for process in processes), said
    assert "ValueError: a fault of one process" in said[1]
    assert checkpoints(tmp_path) == ["step-000005"]


@pytest.mark.parametrize(("where", "rank"), [("unready", 0), ("unready", 1), ("unwritten", 0)])
def test_a_fault_of_any_kind_while_others_wait_ends_both(tmp_path, where, rank):
    processes = start(out=str(tmp_path), toy={where: [rank]})
    said = end(processes)
    assert all(process.returncode != 0 for process in processes), said
    assert "KeyError: 'a " in said[rank]
    if (where, rank) != ("unready", 1):  # the first one had gone ahead, and met the end of the other later
        assert "RuntimeError: another process failed with KeyError: 'a " in said[1 - rank]


def test_a_signal_to_one_process_stops_both_and_they_go_on_to_the_same_bits(tmp_path):
    whole, stopped = ({"out": str(tmp_path / name), **LONG} for name in ("whole", "stopped"))
    end(start(**whole))
    processes = start(**stopped)
    for line in processes[0].stdout:
        if "step=20 " in line:
            processes[1].send_signal(signal.SIGTERM)
            break
    said = end(processes)
    assert all("Interrupted: stopped by" in text for text in said), said
    assert checkpoints(tmp_path / "stopped") != ["step-000200"]
    end(start(**stopped))
    assert_same_bits(tmp_path / "whole", tmp_path / "stopped")
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")


def test_minutes_stop_both(tmp_path):
    said = end(start(out=str(tmp_path), max_minutes=1e-9))
    assert all("stopped by max_minutes after 1 of 10 steps" in text for text in said), said
    assert checkpoints(tmp_path) == ["step-000001"]


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_go_on_from_one_checkpoint_or_not_at_all(tmp_path, rank):
    """Each process has its own disk, and on one of them the last checkpoint is damaged."""
    train(toy_config(tmp_path / "0" / "run"), ToyStage)
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    damaged = tmp_path / str(rank) / "run/checkpoints/toy/step-000010/weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    processes = start(folders=(tmp_path / "0", tmp_path / "1"), out="run")
    said = end(processes)
    if rank == 0:
        assert "going on after 5 of 10 steps" in said[0]
        assert [process.returncode for process in processes] == [0, 0], said
    else:
        assert all("weights.safetensors is damaged" in text for text in said), said
