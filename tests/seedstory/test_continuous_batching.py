"""Stories that join and leave a running batch are those that are written alone."""

from dataclasses import replace

import pytest
import torch

from seedstory.cache import CachePolicy, StoryCache
from seedstory.errors import RequestError
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine, StoryRequest
from seedstory.settings import POLICIES
from seedstory.story_state import StoryState
from tests.seedstory.tiny_language import needs_native, tiny_model

SMALL_SINK = {"window_pages": 2, "first_tokens": 3, "image_head": 1, "image_tail": 1, "max_sink_tokens": 15}
WORDS = SamplingConfig(temperature=1.0, max_caption_tokens=6, min_caption_tokens=2)
FIRST = StoryRequest([GivenPage("The fox found a lantern.")], pages=4, seed=3)
LATER = StoryRequest([GivenPage("Was it a star?"), GivenPage(), GivenPage("No, said the owl.")], pages=4, seed=5)
STATES = StoryRequest(
    [GivenPage("A fox!")], 4, 4, (1, 2), {2: StoryState((("Mia", "fox"),))}, fixed_states=(2,), state_in_opening=True
)


@pytest.fixture(scope="module")
def merged():
    return tiny_model().merge_lora()


@pytest.fixture(autouse=True)
def _short_lines(monkeypatch):
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_LINE_TOKENS", 4)
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_CAST", 2)


def engine_of(model, policy="mm_sink", decoding="eager", sampling=WORDS):
    return StoryEngine(model, CachePolicy(name=policy, **SMALL_SINK), sampling, decoding=decoding)


def alone(engine, story):
    engine.start_batch([story], score=True)
    return list(engine.pages())


def write_steps(engine, plan):
    """Pages by story; `plan` holds, by step, the stories that join before it and the numbers that leave."""
    pages, step = {}, 0
    while True:
        joining, leaving = plan.get(step, ([], []))
        for story in joining:
            pages[engine.add(story, score=True)] = []
        for number in leaving:
            engine.remove(number)
        drafts = engine.next_pages()
        if not drafts and step > max(plan):
            return pages
        for draft in drafts:
            pages[draft.story].append(draft)
        step += 1


def assert_same(pages, expected, atol=2e-5):
    assert [page.index for page in pages] == list(range(len(expected)))
    assert [page.caption for page in pages] == [page.caption for page in expected]
    assert [page.next_state for page in pages] == [page.next_state for page in expected]
    for one, other in zip(pages, expected, strict=True):
        assert (one.features - other.features).abs().max() <= atol, one.index
        assert one.cached_tokens == other.cached_tokens
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-3)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_story_that_joins_at_any_page_is_the_one_written_alone(merged, policy):
    engine = engine_of(merged, policy)
    first, later = alone(engine, FIRST), alone(engine, LATER)
    for step in range(FIRST.pages + 2):  # also after the last page, and a step later
        pages = write_steps(
            engine_of(merged, policy), {0: ([FIRST], []), step: ([LATER], [])} if step else {0: ([FIRST, LATER], [])}
        )
        assert_same(pages[0], first)
        assert_same(pages[1], later)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_story_that_leaves_changes_no_other(merged, policy):
    engine = engine_of(merged, policy)
    first, later, states = (alone(engine, story) for story in (FIRST, LATER, STATES))
    engine = engine_of(merged, policy)
    pages = write_steps(engine, {0: ([FIRST, LATER], []), 1: ([STATES], []), 2: ([FIRST], [0]), 3: ([], [3])})
    assert_same(pages[0], first[:2])
    assert_same(pages[1], later)
    assert_same(pages[2], states)
    assert_same(pages[3], first[:1])
    assert engine.add(FIRST) == 4


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("decoding", ["native", "static"])
def test_every_decoding_lets_stories_join_and_leave(merged, decoding, guidance):
    if decoding == "native":
        needs_native(merged)
    sampling = replace(WORDS, text_guidance_scale=guidance)
    engine = engine_of(merged, decoding=decoding, sampling=sampling)
    long = StoryRequest([GivenPage("The bear laughed, and the light danced on his coat! " * 3)], pages=5, seed=7)
    expected = [alone(engine, story) for story in (FIRST, LATER, STATES, long)]
    plan = {0: ([FIRST], []), 1: ([LATER], []), 2: ([STATES, long], []), 3: ([FIRST], []), 4: ([], [4])}
    engine = engine_of(merged, decoding=decoding, sampling=sampling)
    pages = write_steps(engine, plan)
    for number, whole in enumerate(expected):
        assert_same(pages[number], whole)
    assert_same(pages[4], expected[0][:1])


def test_the_static_cache_grows_for_a_story_that_needs_more_room(merged):
    engine = engine_of(merged, decoding="static")
    engine.start_batch([FIRST])
    before = engine.cache.capacity
    next(engine.pages())
    engine.add(StoryRequest([GivenPage("The bear laughed. " * 20)], pages=2))
    assert len(list(engine.pages())) == 5 and engine.cache.capacity > before


def test_pages_go_on_as_long_as_there_is_a_story(merged):
    engine = engine_of(merged)
    first = alone(engine, FIRST)
    engine = engine_of(merged)
    with pytest.raises(RequestError, match="No story was started"):
        next(engine.pages())
    assert engine.add(FIRST) == 0
    pages = []
    for page in engine.pages():
        pages.append(page)
        if page.index == 0 and page.story < 2:
            assert engine.add(FIRST) == page.story + 1
    for number in range(3):
        assert_same_words([page for page in pages if page.story == number], first)
    assert list(engine.pages()) == [] and engine.next_pages() == []
    assert engine.add(FIRST) == 3
    assert_same_words(list(engine.pages()), first)


def assert_same_words(pages, expected):
    assert [page.caption for page in pages] == [page.caption for page in expected]


def test_pages_that_are_written_but_not_asked_for_are_not_lost(merged):
    engine = engine_of(merged)
    engine.start_batch([FIRST, LATER])
    assert next(engine.pages()).story == 0
    assert [draft.story for draft in engine.next_pages()] == [1]
    assert [draft.index for draft in engine.next_pages()] == [1, 1]
    next(engine.pages())
    engine.remove(1)  # its page is written, and left out
    assert {page.story for page in engine.pages()} == {0}


def test_who_is_not_there_cannot_leave(merged):
    engine = engine_of(merged)
    engine.start_batch([FIRST, LATER])
    engine.remove(1)
    for number in (1, 7):
        with pytest.raises(RequestError, match=f"Story {number} is not under way"):
            engine.remove(number)
    assert len(list(engine.pages())) == FIRST.pages
    with pytest.raises(RequestError, match="Story 0 is not under way"):
        engine.remove(0)
    with pytest.raises(RequestError, match="opening has 3 pages"):
        engine.add(replace(LATER, pages=2))
    assert engine.add(FIRST) == 2, "a story that was refused has no number"
    engine.remove(2)
    assert list(engine.pages()) == []


def test_a_callback_may_add_and_remove(merged):
    engine = engine_of(merged)
    first, later = alone(engine, FIRST), alone(engine, LATER)
    engine.start_batch([FIRST, LATER], score=True)
    heard = []

    def listen(story, index, _text):
        if not heard:
            engine.remove(1)
            engine.add(LATER, score=True)
            heard.append((story, index))
            raise KeyboardInterrupt

    pages = []
    with pytest.raises(KeyboardInterrupt):
        for page in engine.pages(listen):
            pages.append(page)
    pages += engine.pages(listen)
    assert heard == [(0, 1)]
    assert_same([page for page in pages if page.story == 0], first)
    assert_same([page for page in pages if page.story == 1], later[:1])
    assert_same([page for page in pages if page.story == 2], later)


def test_rows_of_a_cache_come_and_go(merged):
    cache = StoryCache(merged.llm, CachePolicy(name="dense"), stories=2)
    embeds = merged.embed_tokens(torch.arange(10).reshape(2, 5))
    with torch.no_grad():
        merged.hidden_states(embeds, cache.position_ids(5), cache.causal_mask(5), cache)
    held = [layer.keys.clone() for layer in cache.layers]
    cache.select([1, None, 0])
    assert [row.length for row in cache.rows] == [5, 0, 5] and cache.rows[1].position == 0
    for layer, before in zip(cache.layers, held, strict=True):
        assert torch.equal(layer.keys[0], before[1]) and torch.equal(layer.keys[2], before[0])
        assert not layer.keys[1].any()
