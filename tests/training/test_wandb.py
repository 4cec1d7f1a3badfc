"""Runs that also report to Weights & Biases, which is optional: here to its files on disk, without an account."""

import sys

import pytest
import torch

from tests.training.toy_stage import ToyStage, toy_config
from training.loop import train
from training.recorder import Recorder


def test_without_the_library_a_run_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        train(toy_config(tmp_path, wandb_project="stories"), ToyStage)


def test_a_run_that_goes_on_reports_under_the_id_it_began_with(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is optional: pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = toy_config(tmp_path, wandb_project="stories")
    train(config, ToyStage)
    (name,) = (path.name for path in (tmp_path / "wandb").glob("offline-run-*"))
    recorder = Recorder(config, "toy")
    assert name.endswith(wandb.run.id)
    recorder.sheet(10, [torch.rand(2, 3, 8, 8)])
    recorder.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/files/media/images/samples_*.png"))
