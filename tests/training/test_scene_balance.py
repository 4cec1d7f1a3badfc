"""Stage 2a shows rare layouts more often, and goes on from an earlier run."""

from collections import Counter

import pytest
import torch

from seedstory.storystream import read_jsonl, write_jsonl
from tests.training.tiny_data import write_stage1, write_theatre
from training.loop import train
from training.theatre.scene_codes import SceneCodes
from training.theatre.scenes import ScenesConfig, ScenesStage, balanced


def truth(view: str, actors: int) -> dict:
    actor = dict.fromkeys(("species", "outfit", "hat", "pose", "expression"), "any")
    return {"place": "attic", "time": "day", "view": view, "actors": [actor] * actors, "props": []}


def test_rare_layouts_come_up_more_often_but_each_page_comes_up():
    truths = [truth("middle", 2)] * 64 + [truth("near", 2)] * 16 + [truth("near", 1)]
    assert balanced(truths, 0) == list(range(81))
    seen = Counter(balanced(truths, 0.5))
    assert [seen[page] for page in (0, 63, 64, 79, 80)] == [1, 1, 2, 2, 8]
    assert Counter(balanced(truths, 1))[80] == 64


def test_it_goes_on_from_an_earlier_run_of_the_same_words(tmp_path):
    write_theatre(tmp_path / "data", stories=2)
    write_stage1(tmp_path / "stage1")

    def run(out: str, **settings) -> ScenesStage:
        folders = {name: str(tmp_path / name) for name in ("data", "stage1")}
        common = {"split": "train", "heldout": "train", "batch_size": 2, "average": 0.0, "device": "cpu"}
        return train(ScenesConfig(**folders, out=str(tmp_path / out), **common | settings), ScenesStage)

    first = run("first", steps=2)
    earlier = SceneCodes.load(tmp_path / "first" / "scene_codes.safetensors").state_dict()
    again = run("again", steps=1, init=str(tmp_path / "first"), muon_lr=0.0, adam_lr=0.0)
    assert all(torch.equal(weight, earlier[name]) for name, weight in again.codes.state_dict().items())
    drawing = again.resampler.state_dict()
    blocks = first.resampler.blocks.state_dict(prefix="blocks.")
    assert all(torch.equal(weight, drawing[name]) for name, weight in blocks.items())

    records = list(read_jsonl(tmp_path / "data" / "train.jsonl"))
    records[0].pages[0]["place"] = "submarine"
    write_jsonl(tmp_path / "data" / "train.jsonl", records)
    with pytest.raises(ValueError, match="scenes of other words"):
        run("other", steps=1, init=str(tmp_path / "first"))
