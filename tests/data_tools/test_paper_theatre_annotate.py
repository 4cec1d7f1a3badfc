"""What told stories should show: read from their own words, as the scripts meant them."""

import json

import pytest

from data_tools.paper_theatre.annotate import annotate
from data_tools.paper_theatre.dataset import scene_truth
from data_tools.paper_theatre.language import INTRODUCE, NEWCOMER, THERE
from data_tools.paper_theatre.loose import single_page
from data_tools.paper_theatre.stories import SPLITS, generate_story
from tests.data_tools.theatre import run_theatre

OPENING = "One sunny day in the meadow, there was Pip, a shy fox in a red coat."


@pytest.mark.parametrize("split", SPLITS)
def test_generated_stories_are_read_as_they_were_written(split):
    views = set()
    for seed in range(120):
        pages = generate_story(seed, split, appearances="said").pages
        truths = [scene_truth(page.scene) for page in pages]
        views |= {truth["view"] for truth in truths}
        assert annotate([page.caption for page in pages]) == truths
    assert {"middle", "near", "wide"} <= views and ("split" in views or split == "heldout-plots")


def test_loose_pages_are_read_as_they_were_written():
    for seed in range(600):
        page = single_page(seed, "heldout")
        assert annotate([page.caption]) == [scene_truth(page.scene)]


@pytest.mark.parametrize("pattern", [*INTRODUCE, *THERE, *NEWCOMER])
def test_a_page_with_an_invented_name_is_not_judged(pattern):
    words = {"SPECIES": "frog", "WEAR": "a green vest", "ADJ": "kind", "NAME": "Zoltrix"}
    for word, value in words.items():
        pattern = pattern.replace(word, value)
    sentence = pattern if "wor" in pattern or "was" in pattern else f"he met {pattern}"
    captions = [
        OPENING,
        f"Pip waved. {sentence[0].upper()}{sentence[1:]}.",
        "Pip and Zoltrix sat down.",
        "Pip laughed.",
    ]
    assert [truth is None for truth in annotate(captions)] == [False, True, True, False]


def test_a_page_of_two_places_is_read_from_both_halves(tmp_path):
    captions = [
        OPENING + " Lily was a kind frog in blue overalls.",
        "At dusk Pip sat down with a kite. Meanwhile, by the pond, Lily waved and looked sad. Look, a boat!",
        "Nose to nose, Lily and Pip laughed.",
    ]
    pages = [{"caption": caption} for caption in captions]
    (tmp_path / "story.json").write_text(json.dumps({"pages": pages}))
    run_theatre("annotate", tmp_path)
    _, split, near = (page["scene"] for page in json.loads((tmp_path / "truth.json").read_text()))
    assert (split["view"], split["place"], split["time"], split["props"]) == ("split", "meadow", "dusk", ["kite"])
    assert split["meanwhile"] == {"place": "pond", "props": ["boat"]}
    assert [(a["slot"], a["place"], a["pose"]) for a in split["actors"]] == [
        ("first", "meadow", "sitting"),
        ("second", "pond", "waving"),
    ]
    assert (near["view"], near["place"]) == ("near", "pond")
    assert [actor["slot"] for actor in near["actors"]] == ["near left", "near right"]
