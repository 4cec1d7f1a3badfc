"""What samples show of a story's cast and plan, and what is learned where."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from data_tools.paper_theatre.chapters import generate_long_story
from data_tools.paper_theatre.language import describe_appearance
from data_tools.paper_theatre.stories import generate_story
from seedstory.layout import IGNORE, StoryLayout, chapters, countdown, pack_story
from seedstory.storystream import StoryRecord
from tests.seedstory.tiny_language import tiny_tokenizer
from training.recipes import make_recipe
from training.samples import SampleDropout, appearances_known
from training.states import SampleStates, StateSettings, draw_states, shortened, story_parts, unsaid_newcomers

ALWAYS = StateSettings(state_share=1, state_in_opening=0, later_state=0, cast_only=0, plan_only=0, short_plan=0)


def record_of(story) -> StoryRecord:
    actors = [[{"name": actor.name} for actor in page.scene.everyone] for page in story.pages]
    return StoryRecord(
        id="story",
        images=["page.png"] * len(story.pages),
        captions=[page.caption for page in story.pages],
        orders=list(range(len(story.pages))),
        pages=[{"actors": some} for some in actors],
        extra={
            "cast": {member.name: describe_appearance(member.appearance) for member in story.cast},
            "plan": list(story.plan),
            "unsaid": [name for name, level in story.said.items() if level != "look"],
        },
    )


def known(record, drop):
    return appearances_known(record, drop, make_recipe("theatre"))


@pytest.fixture(scope="module")
def story() -> StoryRecord:
    return record_of(next(s for s in (generate_story(n, "train") for n in range(99)) if len(s.pages) == 10))


@pytest.fixture(scope="module")
def long_story() -> StoryRecord:
    return record_of(generate_long_story(3, "train", chapters(30)))


def draw(record, pages=None, settings=ALWAYS, seed=0, first_caption=True):
    pages = list(range(len(record.captions))) if pages is None else pages
    return draw_states(record, pages, first_caption, settings, random.Random(seed))


def test_a_whole_story_shows_its_state_before_page_two(story):
    found = draw(story)
    state, label = found.states[1]
    assert list(found.states) == [1] and found.learned == {1} and label == 9
    assert state.plan == tuple(story.extra["plan"][1:]) and dict(state.cast) == story.extra["cast"]
    assert found.cast_shown_from == 1


def test_a_state_in_the_opening_comes_before_its_picture(story):
    early = replace(ALWAYS, state_in_opening=1)
    assert draw(story, settings=early).in_opening and draw(story, settings=early).cast_shown_from == 0
    assert not draw(story, settings=early, first_caption=False).in_opening


def test_every_chapter_has_the_state_that_begins_with_it(long_story):
    assert countdown(30)[9:12] == [1, 10, 9]
    found = draw(long_story)
    assert list(found.states) == [1, 10, 20] and found.learned == {1, 10, 20}
    for place, (state, label) in found.states.items():
        assert state.plan == tuple(long_story.extra["plan"][place : place + label])
    # A part of the second chapter, with introductions of the first: its state has moved up, and is not learned.
    part = draw(long_story, [0, 3, 14, 15, 16])
    ((state, label),) = part.states.values()
    assert list(part.states) == [2] and part.learned == set() and label == 10
    assert state.plan == tuple(long_story.extra["plan"][10:20])
    across = draw(long_story, [0, 17, 18, 19, 20, 21])
    assert list(across.states) == [1, 4] and across.learned == {4}
    assert across.states[4][0].plan == tuple(long_story.extra["plan"][20:30])


def test_a_later_state_has_the_rest_of_the_plan(story):
    later = replace(ALWAYS, later_state=1)
    seen = Counter()
    for seed in range(50):
        found = draw(story, settings=later, seed=seed)
        ((place, (state, label)),) = found.states.items()
        assert state.plan == tuple(story.extra["plan"][place:]) and label == 10 - place and found.learned == {place}
        seen[place] += 1
    assert set(seen) == {2, 3, 4}


def test_shares(story):
    settings = StateSettings()
    drawn = [draw(story, settings=settings, seed=seed) for seed in range(1000)]
    shown = [found for found in drawn if found.states]
    assert 0.65 < len(shown) / 1000 < 0.75
    kinds = Counter((bool(state.cast), bool(state.plan)) for f in shown for state, _ in f.states.values())
    assert 0.75 < kinds[True, True] / len(shown) < 0.85 and set(kinds) == {(True, True), (True, False), (False, True)}
    assert 0.5 < sum(found.in_opening for found in shown) / len(shown) < 0.7
    assert 0.05 < sum(not found.learned for found in shown) / len(shown) < 0.2


def test_records_without_cast_and_plan_show_no_state(story):
    assert draw(replace(story, extra={})) == SampleStates()
    only_cast = draw(replace(story, extra={"cast": story.extra["cast"]}))
    assert only_cast.states[1][0].plan == () and only_cast.states[1][0].cast
    for extra in ({"plan": ["too short"]}, {"cast": ["Mia"]}, {"plan": "text"}, {"cast": {"Mia": ""}}):
        with pytest.raises(ValueError, match="story story"):
            story_parts(replace(story, extra=extra))


def test_shortened_lines():
    assert shortened("Mia hides the letter in a bottle on the beach") == "Mia hides the letter in a bottle"
    assert shortened("Mia is in bed") == "Mia is in bed"


def test_pictures_of_unknown_looks_are_given_and_not_learned(story):
    hidden = replace(
        story,
        pages=[{"actors": [{"name": "Mia"}]}] * 2 + [{"actors": [{"name": "Mia"}, {"name": "Tom"}]}] * 3,
        captions=story.captions[:5],
        images=story.images[:5],
        orders=story.orders[:5],
        extra={"unsaid": ["Mia"], "cast": {"Mia": "fox, red coat"}},
    )
    names = [{actor["name"] for actor in page["actors"]} for page in hidden.pages]
    assert unsaid_newcomers(hidden, names) == {0: {"Mia"}}
    everything = [0, 1, 2, 3, 4]
    assert known(hidden, SampleDropout(everything)) == [False, True, True, True, True]
    both = replace(hidden, extra={"unsaid": ["Mia", "Tom"], "cast": {"Mia": "fox", "Tom": "frog"}})
    assert known(both, SampleDropout(everything)) == [False, True, False, True, True]
    assert known(both, SampleDropout([0, 3, 4])) == [False, False, True]
    cast = draw(both)
    assert cast.cast_shown_from == 1
    assert known(both, SampleDropout(everything, states=cast)) == [False, True, True, True, True]
    early = draw(both, settings=replace(ALWAYS, state_in_opening=1))
    assert all(known(both, SampleDropout(everything, states=early)))


def test_packed_states_are_where_they_belong(long_story):
    layout = StoryLayout.extend(tiny_tokenizer(), 4)
    found = draw(long_story, [0, 17, 18, 19, 20, 21])
    ids = {place: layout.state_ids(*state) for place, state in found.states.items()}
    labels = countdown(30)
    pages = [0, 17, 18, 19, 20, 21]
    packed = pack_story(
        [layout.caption_ids(long_story.captions[page]) for page in pages],
        layout,
        pages_left=[labels[page] for page in pages],
        state_ids=ids,
        supervise_state=found.learned,
    )
    text = layout.tokenizer.decode(packed.input_ids[packed.branch < 0])
    old, new = (f"{state.lines(label)[-1]}\n{labels[pages[place]]}:" for place, (state, label) in found.states.items())
    assert text.index(old) < text.index(new)
    context = packed.branch < 0
    learned = (packed.labels[context] != IGNORE).tolist()
    at = [layout.tokenizer.decode(packed.input_ids[context][: n + 1]).endswith(new[:-3]) for n in range(len(learned))]
    assert learned[at.index(True) - 3]


def test_settings_are_shares():
    with pytest.raises(ValueError, match="state_share is a share"):
        StateSettings(state_share=1.5)
