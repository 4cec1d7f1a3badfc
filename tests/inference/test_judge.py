"""The shipped judge, held against fresh renders of every view and against wrong ground truth."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_tools.paper_theatre.dataset import scene_truth
from data_tools.paper_theatre.loose import single_page
from data_tools.paper_theatre.render import render
from data_tools.paper_theatre.world import PLACES as PLACES_OF_THE_WORLD
from data_tools.paper_theatre.world import SLOTS_OF_VIEW, SPECIES
from inference.judge import ATTRIBUTES, NOBODY, PLACES, Judge, score, train
from tests.data_tools.theatre import run_theatre

FIRST = 900_000  # far from the seeds that the judge was trained on


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


@pytest.fixture(scope="module")
def pages():
    scenes = [single_page(seed, "heldout").scene for seed in range(FIRST, FIRST + 150)]
    pixels = [torch.from_numpy(np.array(render(scene))).permute(2, 0, 1).float() / 127.5 - 1 for scene in scenes]
    return torch.stack(pixels), [scene_truth(scene) for scene in scenes]


def test_the_judge_knows_the_whole_theatre(judge):
    assert judge.config.labels["species"] == [*sorted(SPECIES), NOBODY]
    assert judge.config.labels["place"] == sorted(PLACES_OF_THE_WORLD)
    slots = {view: {slot for names in counts.values() for slot in names} for view, counts in SLOTS_OF_VIEW.items()}
    slots["split"] = slots.pop("first") | slots.pop("second")
    assert {view: set(names) for view, names in judge.config.views.items()} == slots
    assert judge.config.slots.keys() == set().union(*slots.values())


def test_the_shipped_judge_reads_renders(judge, pages):
    result = score(judge, *pages)
    assert result["characters"] == sum(len(truth["actors"]) for truth in pages[1])
    assert result["place"] >= 0.99 and result["character_f1"] >= 0.99
    assert result["species_and_outfit"] >= 0.98 and result["all"] >= 0.95


def test_the_judge_reads_images_that_are_a_little_soft(judge, pages):
    pixels, truths = pages
    soft = F.interpolate(F.avg_pool2d(pixels, 2, 1, 1), pixels.shape[-2:], mode="bilinear", antialias=True)
    result = score(judge, soft, truths)
    assert result["place"] >= 0.98 and result["species_and_outfit"] >= 0.95


def test_the_judge_counts_wrong_images_as_wrong(judge, pages):
    pixels, truths = pages
    result = score(judge, pixels.roll(1, 0), truths)
    assert result["species_and_outfit"] < 0.2 and result["character_f1"] < 0.4 and result["place"] < 0.4


def test_every_box_is_asked_for_what_is_to_be_seen(judge):
    fox = dict(zip(ATTRIBUTES, ("fox", "red coat", "none", "sitting", "sad"), strict=True))
    page = {"place": "beach", "props": [], "actors": [fox | {"slot": "centre", "name": "Pip"}]}
    empty = {"species": NOBODY}
    asked = judge.questions(page)  # a record without a view is of the middle one
    assert asked == {"left": empty, "centre": fox, "right": empty, "page": {"place": "beach"}}
    split = {"view": "split", "meanwhile": {"place": "pond", "props": []}}
    split["actors"] = [fox | {"slot": "first"}, fox | {"slot": "second right"}]
    asked = judge.questions(page | split)
    assert asked["first"] == asked["second right"] == fox and asked["second"] == empty
    assert asked["first half"] == {"place": "beach"} and asked["second half"] == {"place": "pond"}
    assert "page" not in asked


def test_a_missing_and_an_invented_character_cost_f1_alone(judge, pages):
    """Of two characters one is found where it should be: precision and recall are a half each."""
    truths = pages[1]
    row = next(i for i, truth in enumerate(truths) if truth["view"] == "middle" and len(truth["actors"]) == 2)
    truth = truths[row]
    moved = truth | {"actors": [truth["actors"][0], truth["actors"][1] | {"slot": "centre"}]}
    result = score(judge, pages[0][[row]], [moved])
    assert result["characters"] == 2 and result["character_f1"] == 0.5


def test_an_image_of_another_size_is_judged_too(judge, pages):
    pixels, truths = pages
    small = F.interpolate(pixels[:20], (48, 48), mode="bilinear", antialias=True)
    assert set(score(judge, small, truths[:20])) == set(score(judge, pixels[:20], truths[:20]))


def test_empty_slots_are_nobody(judge, pages):
    pixels, truths = pages
    alone = [i for i, t in enumerate(truths) if t["view"] == "middle" and len(t["actors"]) == 1]
    seen = judge.classify(pixels[alone], "left")
    assert sum(found["species"] == NOBODY for found in seen) >= 0.95 * len(alone)
    assert all(found.keys() == {"place"} for part in PLACES for found in judge.classify(pixels[:2], part))


def test_a_judge_is_trained_on_renders(tmp_path, capsys):
    data = ("--out", tmp_path / "data", "--size", "128", "--loose-pages", "6", "--split")
    run_theatre("generate", *data, "train")
    run_theatre("generate", *data, "heldout")
    train(tmp_path / "data", out=tmp_path / "judge", steps=2, boxes=2, batch_size=2, width=8)
    assert Judge.load(tmp_path / "judge").config.slots
    assert "character_f1" in capsys.readouterr().out
