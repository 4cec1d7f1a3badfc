"""The books and the tensors of the cache, for any page lengths, windows and budgets."""

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from seedstory.cache import CachePolicy, Ledger, PageSpan, StoryCache
from seedstory.generation import OpeningPage, SamplingConfig, StoryEngine
from seedstory.modeling import StoryModel
from tests.seedstory.plain_reader import plain_mm_sink
from tests.seedstory.tiny_language import SENTENCES, needs_native, tiny_model, tiny_tokenizer

MODEL = tiny_model()
WORDS = re.sub("[.!?]", "", " ".join(SENTENCES)).split()  # without ends of sentences capitals are names
captions = st.lists(st.integers(1, 12), min_size=3, max_size=9).map(
    lambda sizes: [" ".join(WORDS[(3 * at + word) % len(WORDS)] for word in range(n)) for at, n in enumerate(sizes)]
)
sizes = st.fixed_dictionaries(
    {
        "window_pages": st.integers(1, 4),
        "first_tokens": st.integers(0, 60),
        "introductions": st.integers(0, 5),
        "pictures": st.integers(0, 5),
        "picture_head": st.integers(0, 4),
        "picture_tail": st.integers(0, 4),
    }
)


def told(model, texts, policy, **options):
    engine = StoryEngine(model, policy, **options)
    engine.start([OpeningPage(text) for text in texts], pages=len(texts))
    return list(engine.pages())


@settings(max_examples=25, deadline=None)
@given(captions, sizes, st.integers(0, 90))
def test_mm_sink_equals_a_plain_reader_for_any_sizes(texts, sizes, extra):
    first, head, tail = sizes["first_tokens"], sizes["picture_head"], sizes["picture_tail"]
    budget = first + head + tail + 2 + extra
    pages = told(MODEL, texts, CachePolicy(sink_budget=budget, **sizes))
    expected = plain_mm_sink(
        MODEL,
        texts,
        window=sizes["window_pages"],
        first=first,
        words=sizes["introductions"],
        pictures=sizes["pictures"],
        head=head,
        tail=tail,
        budget=budget,
    )
    for page, (features, _) in zip(pages, expected, strict=True):  # of features as large as two or three
        assert (page.features - features).abs().max() <= 1e-5 * features.abs().max().clamp(min=1), page.index


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), min_size=1, max_size=60),
    sizes,
    st.integers(0, 60),
    st.sampled_from(["window", "sink", "mm_sink", "dense"]),
    st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_the_books_hold_what_the_policy_says_whenever_they_are_closed(pages, sizes, extra, name, evict_now):
    least = sizes["first_tokens"] + sizes["picture_head"] + sizes["picture_tail"] + 2
    policy = CachePolicy(name=name, sink_budget=least + extra, **sizes)
    ledger, spans, position, held = Ledger(), [], 0, []
    for number, (text, picture) in enumerate(pages):
        end = position + text + picture + 2
        spans.append(PageSpan(position, position + text, end - 1))
        ledger.advance(end + 1 - ledger.position)  # the page, and one token of the next
        held = [*held, *range(len(held) and held[-1] + 1, end + 1)]
        ledger.end_page(spans[-1].image_start, spans[-1].image_end)
        if evict_now[number]:
            eviction = ledger.evict(policy)
            if eviction is not None:
                held = [held[place] for place in eviction.kept]
                assert eviction.sinks == len(ledger.sink_positions) <= least + extra
                window = held[eviction.sinks]
                moved = [a + b for a, b in zip(held[: eviction.sinks], eviction.shift, strict=True)]
                assert moved == list(range(window - eviction.sinks, window)), "sinks stand right before the window"
        assert ledger.length == len(held) and ledger.position == end + 1
        position = end
    left = 0 if name == "dense" or not ledger.evicted else max(0, len(spans) - len(ledger.pages))
    asked = set(policy.sinks(spans[:left])) if left else set()
    assert set(range(spans[left].start if left < len(spans) else position, position + 1)) <= set(held)
    assert {place for place in held if left and place < spans[left].start} <= asked


def remembered(names_of_pages: list[str], policy: CachePolicy) -> tuple[Ledger, set[int]]:
    """The books of a story of pages of eleven tokens, five of them words, and the pages whose words are sinks."""
    ledger = Ledger()
    for number, names in enumerate(names_of_pages):
        ledger.advance(11)
        ledger.end_page(11 * number + 5, 11 * number + 9, names.split())
        ledger.advance(1)  # of the next page
        ledger.evict(policy)
        ledger.forget_last(1)
    held = set(ledger.sink_positions)
    return ledger, {page for page in range(len(names_of_pages)) if held >= set(range(11 * page, 11 * page + 5))}


def test_pages_where_somebody_came_in_are_remembered_as_long_as_they_are_among_those_named_last():
    names = ["Mia", "Mia Otto", "Mia", "Ida", "Ida", "Otto", "Uwe", "", "Uwe", "", ""]
    policy = CachePolicy(window_pages=1, introductions=3, first_tokens=0, picture_head=0, picture_tail=0)
    assert remembered(names[:6], policy)[1] == {0, 1, 3}
    # The third guest drives out who was not named for longest, and nobody comes back.
    assert remembered(names, policy)[1] == {0, 1, 6}
    assert remembered([*names, "Ida", "Ida", "Ida", ""], policy)[1] == {0, 1, 6}
    assert remembered(names, replace(policy, introductions=9))[1] == {0, 1, 3, 6}
    assert remembered(names, replace(policy, introductions=0))[1] == set()
    # Words for which there is no room are left out: two pages' words and all pictures' two tokens do not fit.
    assert remembered(names, replace(policy, sink_budget=13))[1] == {0, 6}


def test_the_books_of_a_story_with_ever_new_names_do_not_grow():
    ledger, pages = remembered([f"Name{page}" for page in range(400)], CachePolicy(window_pages=2, sink_budget=90))
    assert len(ledger.evicted) <= 1 + 5 + 12 and 0 in pages and len(pages) > 5 and len(ledger.sink_positions) <= 90


@pytest.mark.parametrize("policy", ["mm_sink", "sink", "window"])
@pytest.mark.parametrize("decoding", ["eager", "static", "native"])
def test_counting_positions_anew_changes_nothing(policy, decoding, monkeypatch):
    model = tiny_model().merge_lora()
    needs_native(model)
    keeping = CachePolicy(name=policy, window_pages=2, first_tokens=5, picture_head=1, picture_tail=1, sink_budget=21)
    opening = [OpeningPage(" ".join(WORDS[page : page + 6])) if page % 3 else OpeningPage() for page in range(14)]
    stories = []
    for rebase_at in (60, 10**9):
        monkeypatch.setattr("seedstory.cache.story_cache._REBASE_AT", rebase_at)
        engine = StoryEngine(model, keeping, SamplingConfig(max_caption_tokens=5), decoding=decoding)
        engine.start(opening, pages=14)
        stories.append(list(engine.pages()))
        assert (engine.cache.position < 110) == (rebase_at == 60)
    for one, other in zip(*stories, strict=True):
        assert one.caption == other.caption
        assert (one.features - other.features).abs().max() <= 1e-5, one.index


def test_memory_stays_as_it_is_to_page_three_hundred(captions):
    engine = StoryEngine(MODEL, CachePolicy(window_pages=2, first_tokens=3, sink_budget=60))
    engine.start([OpeningPage(captions[page % 4]) for page in range(300)], pages=300)
    bytes_held = [engine.cache.nbytes for _ in engine.pages()]
    assert len(set(bytes_held[30:])) == 1


def test_a_stock_generate_runs_on_the_cache():
    model = tiny_model().merge_lora()
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = model.llm.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
    cache = StoryCache(model.llm, CachePolicy(name="dense"))
    ours = model.llm.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None, past_key_values=cache)
    assert torch.equal(plain, ours) and cache.held == 9


def test_settings_that_cannot_work_say_what_to_change():
    with pytest.raises(ValueError, match="window_pages must be at least 1"):
        CachePolicy(window_pages=0)
    with pytest.raises(ValueError, match="sink_budget must be at least 14"):
        CachePolicy(first_tokens=4, sink_budget=13)
    with pytest.raises(ValueError, match="must not be negative"):
        CachePolicy(picture_head=-1)
    tokenizer = tiny_tokenizer()
    without_rope = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4))
    with pytest.raises(ValueError, match="no plain rotary positions"):
        StoryModel.from_base(without_rope, tokenizer=tokenizer)
    for kind, settings_ in [("dynamic", {"factor": 2.0}), ("longrope", {"short_factor": [1.0], "long_factor": [2.0]})]:
        with pytest.raises(ValueError, match="angles change with the length"):
            tiny_model(lm={"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **settings_}})
