"""Peaks of memory are measured beside what was foretold."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from inference import fast_images, memory_peaks
from inference.memory_peaks import STATUS, HostPeak, measure
from tests.tiny import tiny_model_folder


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux says what a process has of its own")
def test_a_peak_is_seen_after_it_has_passed():
    with HostPeak() as small:
        pass
    with HostPeak() as peak:
        for _ in range(3):
            block = torch.ones(50_000_000)
            del block
    assert peak.bytes >= small.bytes + 150_000_000


@pytest.mark.skipif(not Path(STATUS).exists(), reason="only Linux says what a process has of its own")
def test_a_mode_is_measured_beside_its_estimate(tmp_path):
    found = measure(str(tiny_model_folder(tmp_path)), "resident", 2, 4, 1)
    assert found["mode"] == "resident" and found["host_gb"] > 0.1 and found["host_estimated_gb"] > 0.3
    assert found["gpu_gb"] == found["gpu_estimated_gb"] == 0 or torch.cuda.is_available()


@pytest.mark.parametrize(
    ("app", "arguments", "words"),
    [
        (memory_peaks.app, ["--alone", "--modes", "nothing"], "nothing: there is no memory mode"),
        (fast_images.app, ["--dtype", "nothing"], "choose one of float32"),
        (fast_images.app, ["--model", "nowhere"], "there is no model nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(app, arguments, words):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and words in done.output and "Traceback" not in done.output
