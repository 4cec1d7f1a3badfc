"""The shipped judge, held against fresh renders and against wrong ground truth."""

from itertools import islice

import numpy as np
import pytest
import torch

from data_tools.paper_theatre.loose import loose_page
from data_tools.paper_theatre.render import render
from data_tools.paper_theatre.world import FIRST_SPECIES
from inference.judge import Judge, score

FIRST = 900_000  # far from the seeds that the judge was trained on


@pytest.fixture(scope="module")
def pages():
    pixels, truths = [], []
    scenes = (loose_page(seed, "heldout").scene for seed in range(FIRST, FIRST + 5000))
    # What the shipped judge knows: the first species in a middle view.
    known = (s for s in scenes if s.layout == "middle" and all(a.look.species in FIRST_SPECIES for a in s.actors))
    for scene in islice(known, 60):
        pixels.append(torch.from_numpy(np.array(render(scene))).permute(2, 0, 1).float() / 127.5 - 1)
        looks = [{"species": a.look.species, "outfit": a.look.outfit, "hat": a.look.hat} for a in scene.actors]
        poses = [{"pose": a.pose, "expression": a.expression} for a in scene.actors]
        truths.append({"actors": [a | b | {"slot": s} for a, b, s in zip(looks, poses, scene.slots, strict=True)]})
    return torch.stack(pixels), truths


def test_the_shipped_judge_reads_renders(pages):
    result = score(Judge.load(), *pages)
    assert result["characters"] > 60
    assert result["species_and_outfit"] >= 0.98 and result["all"] >= 0.9


def test_the_judge_counts_wrong_characters_as_wrong(pages):
    pixels, truths = pages
    result = score(Judge.load(), pixels.roll(1, 0), truths)
    assert result["species_and_outfit"] < 0.3


def test_empty_slots_are_nobody(pages):
    pixels, truths = pages
    judge = Judge.load()
    alone = [i for i, truth in enumerate(truths) if len(truth["actors"]) == 1]
    seen = judge.look(pixels[alone], "left")
    assert sum(found["species"] == "nobody" for found in seen) >= 0.9 * len(alone)
