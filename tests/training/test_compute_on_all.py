"""What is computed before the first step is shared out among the processes, and each gets the bytes of one process."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.test_backend import launch
from tests.training.tiny_data import write_model, write_theatre
from training import detokenizer
from training.adapt import AdaptConfig, AdaptStage
from training.backend import Backend
from training.pages import ShuffledSampler, compute_on_all

PIXELS = 4 * 128**2  # that several batches of pictures are encoded


def write_share(parts: Path) -> None:
    """Start stage 3 in this process, and write what it computed."""
    config = AdaptConfig(
        data=str(parts / "data"),
        out=str(parts / "out"),
        stage1=str(parts / "model"),
        story_model=str(parts / "model" / "story_model"),
        base_lm=str(parts / "model-base"),
        steps=1,
        batch_size=2,
        device="cpu",
    )
    backend = Backend(config)
    stage = AdaptStage(config, backend)
    names = ("latents", "regions", "own_features", "heldout_features")
    found = {name: getattr(stage, name).clone() for name in names}
    save_file(found, parts / f"{backend.rank}-of-{backend.processes}.safetensors")
    assert compute_on_all(str, range(5), backend) == ["0", "1", "2", "3", "4"]
    assert compute_on_all(str, range(1), backend) == ["0"]  # fewer than there are processes
    backend.close()


@pytest.mark.parametrize("head", ["regression", "flow"])
def test_two_processes_share_the_work_and_get_the_bytes_of_one(tmp_path, head, monkeypatch):
    monkeypatch.setattr(detokenizer, "PIXELS", PIXELS)
    write_theatre(tmp_path / "data", stories=3)
    write_model(tmp_path / "model", feature_head=head)
    write_share(tmp_path)
    alone = load_file(tmp_path / "0-of-1.safetensors")
    launch(2, "tests.training.test_compute_on_all", str(tmp_path))
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}-of-2.safetensors")
        assert found.keys() == alone.keys()
        assert all(torch.equal(found[name], alone[name]) for name in alone)


def test_rows_may_be_asked_for_by_several_threads():
    rows = ShuffledSampler(4, seed=0)
    stream, starts = rows.take(0, 400), [number * 37 % 396 for number in range(4000)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda start: rows.take(start, 4), starts))
    finally:
        sys.setswitchinterval(interval)
    assert found == [stream[start : start + 4] for start in starts]


if __name__ == "__main__":
    detokenizer.PIXELS = PIXELS
    write_share(Path(sys.argv[1]))
