"""Which pages of a story a sample shows, and what it asks for."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from data_tools.paper_theatre.chapters import generate_long_story
from seedstory.layout import IGNORE, StoryLayout, chapters
from seedstory.storystream import StoryRecord
from tests.seedstory.tiny_language import tiny_tokenizer
from training.mllm import MllmConfig, MllmStage
from training.pages import ShuffledSampler
from training.recipes import make_recipe
from training.samples import draw_dropout, follows_previous, later_window, names_on

THEATRE = make_recipe("theatre")


def record_of(names: list[str]) -> StoryRecord:
    """A story with one character a page, by the ground truth alone."""
    count = len(names)
    return StoryRecord(
        id="story",
        images=["page.png"] * count,
        captions=[f"Here is {name}." for name in names],
        orders=list(range(count)),
        pages=[{"actors": [{"name": name}]} for name in names],
    )


@pytest.fixture(scope="module")
def long_story() -> StoryRecord:
    story = generate_long_story(5, "train", chapters(40))
    return record_of([page.scene.everyone[0].name for page in story.pages])


def test_a_later_part_goes_on_in_a_row_and_knows_who_is_there(long_story):
    count, gaps, lengths, ends = len(long_story.captions), 0, set(), set()
    for seed in range(300):
        pages = later_window(long_story, 10, random.Random(seed), THEATRE)
        assert 3 <= len(pages) <= 10 and pages == sorted(set(pages)) and pages[0] == 0 and pages[-1] < count
        assert all(follows_previous(pages)[-2:]) or len(pages) == 3
        for name in {name for page in pages for name in names_on(long_story, page, THEATRE)}:
            assert next(page for page in range(count) if name in names_on(long_story, page, THEATRE)) in pages
        gaps += not all(follows_previous(pages))
        lengths.add(len(pages))
        ends.add(pages[-1])
    assert gaps > 200 and lengths >= set(range(4, 11)) and min(ends) < 12 and max(ends) == count - 1


def test_a_later_part_without_ground_truth_knows_names_by_their_capitals():
    captions = ["There was Mia."] + ["Then Mia ran."] * 5 + ["There was Otto."] + ["Then Otto sat."] * 40
    story = replace(record_of(["Mia"] * len(captions)), captions=captions, pages=None)
    met = 0
    for seed in range(100):
        pages = later_window(story, 5, random.Random(seed))
        assert len(pages) <= 5 and pages[0] == 0
        met += pages[-1] > 10
        assert pages[-1] < 6 or 6 in pages
    assert met > 50


def test_more_characters_than_pages_shorten_the_row():
    story = record_of([f"Name{number}" for number in range(10)] + ["Name3"] * 10 + [f"Name{n}" for n in range(10)])
    for seed in range(200):
        pages = later_window(story, 7, random.Random(seed), THEATRE)
        assert len(pages) <= 7 and pages[0] == 0
        shown = set().union(*(names_on(story, page, THEATRE) for page in pages))
        assert {f"Name{page}" for page in pages if page < 10} >= shown
        assert any(page >= 10 for page in pages) or pages[-1] < 10


def test_more_names_than_pages_leave_the_row_whole():
    captions = ["Es war einmal ein Tag."] + [f"Da kam N{n}a mit dem Ding{n} im Korb{n}." for n in range(30)]
    story = replace(record_of(["x"] * 31), captions=captions, pages=None)
    for seed in range(100):
        pages = later_window(story, 8, random.Random(seed))
        assert pages[0] == 0 and 3 <= len(pages) <= 8 and all(follows_previous(pages)[-2:])


def test_names_are_those_of_the_ground_truth_or_of_the_words():
    story = record_of(["Mia"])
    for truth, names in [
        ({"actors": [{"name": "Otto"}]}, {"Otto"}),
        ({"characters": [{"name": "Ida"}, {"box": [0, 0, 1, 1]}]}, {"Ida"}),
        ({"actors": []}, set()),
        ({"description": "a fox"}, {"Mia"}),
        (None, {"Mia"}),
    ]:
        assert names_on(replace(story, pages=[truth]), 0, THEATRE) == names
    assert names_on(replace(story, pages=None), 0, THEATRE) == {"Mia"}


def test_without_a_recipe_only_the_format_s_own_ground_truth_names_anybody():
    story = record_of(["Mia"])
    assert names_on(replace(story, pages=[{"actors": [{"name": "Otto"}]}]), 0) == {"Mia"}
    assert names_on(replace(story, pages=[{"characters": [{"name": "Ida"}]}]), 0) == {"Ida"}


def test_drops_keep_to_the_number_of_pages(long_story):
    config = MllmConfig(data="none", out="none", steps=1, stage1="none", skipped=0.5)
    short = record_of(["Mia", "Otto"] * 4)
    shown = [draw_dropout(short, config, random.Random(seed), THEATRE).pages for seed in range(200)]
    assert {tuple(pages) for pages in shown} >= {tuple(range(8))} and all(pages[-1] == 7 for pages in shown)
    assert any(not all(follows_previous(pages)) for pages in shown)
    assert all(len(draw_dropout(long_story, config, random.Random(seed)).pages) <= 10 for seed in range(100))
    windowed = MllmConfig(data="none", out="none", steps=1, stage1="none", window=16)
    for seed in range(50):
        pages = draw_dropout(long_story, windowed, random.Random(seed)).pages
        assert pages == list(range(pages[0], pages[0] + 16))


def test_what_is_behind_a_gap_is_not_asked_for():
    assert follows_previous([0, 1, 4, 5, 9]) == [True, True, False, True, False]
    tokenizer = tiny_tokenizer()
    layout = StoryLayout.extend(tokenizer, 2)
    captions = ["Mia ran.", "Otto sat.", "Mia slept."]
    packed = layout.pack_story(captions, pages_left=[3, 2, 1], supervise_caption=follows_previous([0, 1, 7]))
    everything = layout.pack_story(captions, pages_left=[3, 2, 1])
    missing = int((everything.labels != IGNORE).sum() - (packed.labels != IGNORE).sum())
    assert missing >= len(layout.caption_ids(captions[2]))


@pytest.mark.parametrize("seed", [0, 5])
def test_every_row_of_every_stream_comes_once_an_epoch_however_they_mix(seed):
    stage = MllmStage.__new__(MllmStage)
    torch.nn.Module.__init__(stage)
    stage.config = MllmConfig(
        data="none", out="none", stage1="none", batch_size=2, steps=400, seed=seed, long_share=0.4, device="cpu"
    )
    stage.rows, stage.loose_rows, stage.long_rows = (
        ShuffledSampler(30, 1),
        ShuffledSampler(200, 2),
        ShuffledSampler(14, 3),
    )
    stage._drawn = 0, Counter()
    draws = [stage.draw(step, step / 400) for step in range(400)]
    for stream, count in (("story", 30), ("loose", 200), ("long", 14)):
        kinds = {"story": ("story", "own"), "loose": ("loose",), "long": ("long", "own_long")}[stream]
        rows = [row for draw in draws if draw.kind in kinds for _, row in draw.samples]
        assert len(rows) >= 2 * count, "the test sees two epochs"
        for epoch in range(len(rows) // count):
            assert sorted(rows[epoch * count : (epoch + 1) * count]) == list(range(count))
    numbers = [number for draw in draws if draw.kind != "loose" for number, _ in draw.samples]
    assert len(set(numbers)) == len(numbers)
    assert stage.draw(17, 17 / 400) == draws[17] and stage.draw(399, 399 / 400) == draws[399], "in any order of asking"
