"""The books and the tensors of the cache, for any page lengths, windows and budgets."""

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from seedstory.cache import CachePolicy, KeptTokens, PageSpan, StoryCache
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine
from seedstory.modeling import StoryModel
from seedstory.salience import by_capitals
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
        "salient_pages": st.integers(0, 5),
        "kept_images": st.integers(0, 5),
        "image_head": st.integers(0, 4),
        "image_tail": st.integers(0, 4),
    }
)


def generated(model, texts, policy, **options):
    engine = StoryEngine(model, policy, **options)
    engine.start([GivenPage(text) for text in texts], pages=len(texts))
    return list(engine.pages())


@settings(max_examples=25, deadline=None)
@given(captions, sizes, st.integers(0, 90))
def test_mm_sink_equals_a_plain_reader_for_any_sizes(texts, sizes, extra):
    first, head, tail = sizes["first_tokens"], sizes["image_head"], sizes["image_tail"]
    budget = first + head + tail + 2 + extra
    pages = generated(MODEL, texts, CachePolicy(max_sink_tokens=budget, **sizes))
    expected = plain_mm_sink(
        MODEL,
        texts,
        window=sizes["window_pages"],
        first=first,
        words=sizes["salient_pages"],
        images=sizes["kept_images"],
        head=head,
        tail=tail,
        budget=budget,
    )
    # Features are as large as two or three; the largest difference that any sizes gave was 1.03e-5 of that.
    for page, (features, _) in zip(pages, expected, strict=True):
        assert (page.features - features).abs().max() <= 2e-5 * features.abs().max().clamp(min=1), page.index


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), min_size=1, max_size=60),
    sizes,
    st.integers(0, 60),
    st.sampled_from(["window", "sink", "mm_sink", "dense"]),
    st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_the_kept_tokens_are_what_the_policy_says_whenever_they_are_closed(pages, sizes, extra, name, evict_now):
    least = sizes["first_tokens"] + sizes["image_head"] + sizes["image_tail"] + 2
    policy = CachePolicy(name=name, max_sink_tokens=least + extra, **sizes)
    kept_tokens, spans, position, num_kept = KeptTokens(), [], 0, []
    for number, (text, image) in enumerate(pages):
        end = position + text + image + 2
        spans.append(PageSpan(position, position + text, end - 1))
        kept_tokens.advance(end + 1 - kept_tokens.position)  # the page, and one token of the next
        num_kept = [*num_kept, *range(len(num_kept) and num_kept[-1] + 1, end + 1)]
        kept_tokens.end_page(spans[-1].image_start, spans[-1].image_end)
        if evict_now[number]:
            eviction = kept_tokens.evict(policy)
            if eviction is not None:
                num_kept = [num_kept[place] for place in eviction.kept]
                assert eviction.sinks == len(kept_tokens.sink_positions) <= least + extra
                window = num_kept[eviction.sinks]
                shifted = [a + b for a, b in zip(num_kept[: eviction.sinks], eviction.shift, strict=True)]
                assert shifted == list(range(window - eviction.sinks, window)), "sinks stand right before the window"
        assert kept_tokens.length == len(num_kept) and kept_tokens.position == end + 1
        position = end
    left = 0 if name == "dense" or not kept_tokens.evicted else max(0, len(spans) - len(kept_tokens.pages))
    asked = set(policy.sinks(spans[:left])) if left else set()
    assert set(range(spans[left].start if left < len(spans) else position, position + 1)) <= set(num_kept)
    assert {place for place in num_kept if left and place < spans[left].start} <= asked


def remembered(captions: list[str], policy: CachePolicy) -> tuple[KeptTokens, set[int]]:
    """The books of a story of pages of eleven tokens, five of them words, and the pages whose words are sinks."""
    kept_tokens = KeptTokens()
    for number, caption in enumerate(captions):
        kept_tokens.advance(11)
        kept_tokens.end_page(11 * number + 5, 11 * number + 9, by_capitals(caption))
        kept_tokens.advance(1)  # of the next page
        kept_tokens.evict(policy)
        kept_tokens.drop_last(1)
    num_kept = set(kept_tokens.sink_positions)
    return kept_tokens, {page for page in range(len(captions)) if num_kept >= set(range(11 * page, 11 * page + 5))}


WORDS_ALONE = CachePolicy(window_pages=1, salient_pages=3, first_tokens=0, image_head=0, image_tail=0)


def test_pages_where_somebody_came_in_are_remembered_as_long_as_they_are_among_those_named_last():
    nobody = "Then they slept."
    story = ["So Mia ran.", "Then Mia met Otto.", nobody, "So Ida came.", "Then Ida sang.", "Otto sang."]
    assert remembered([*story, nobody], WORDS_ALONE)[1] == {0, 1, 3}
    # The third guest drives out who was not named for longest, who is new when he comes again.
    story += ["They met Uwe.", "Uwe sat.", nobody]
    assert remembered([*story, nobody], WORDS_ALONE)[1] == {0, 1, 6}
    story += ["Then Ida was back.", "Ida sat.", nobody]
    assert remembered([*story, nobody], WORDS_ALONE)[1] == {0, 6, 9}
    assert remembered(story, replace(WORDS_ALONE, salient_pages=9))[1] == {0, 1, 3, 6}
    assert remembered(story, replace(WORDS_ALONE, salient_pages=0))[1] == set()


def test_names_that_were_used_once_give_way_to_those_that_come_again():
    story = [
        "Mia ran.",
        "They met Otto.",
        "It was Monday.",
        "Otto sat.",
        "Then they slept.",
        "It was June.",
        "They sat.",
    ]
    assert remembered(story, WORDS_ALONE)[1] == {0, 1, 2}
    assert remembered([*story[:2], *story[4:], *story[2:]], WORDS_ALONE)[1] == {0, 1, 3}


def test_who_stood_at_a_sentences_start_first_was_introduced_there():
    story = ["It rained.", "Otto was a bear.", '"Sit down," said Otto.', "They sat.", "They slept."]
    assert remembered(story, WORDS_ALONE)[1] == {0, 1}
    assert remembered(["It rained.", "Boom!", "Otto was a bear.", "They sat.", "They slept."], WORDS_ALONE)[1] == {0}


@pytest.mark.parametrize("caption", ["一只狐狸。", "a fox ran.", "A FOX RAN."])
def test_without_capitals_the_first_pages_are_remembered(caption):
    assert remembered([f"{caption} {page}" for page in range(9)], WORDS_ALONE)[1] == {0, 1, 2}


def test_words_for_which_there_is_no_room_leave_it_to_others():
    story = ["It was Mia.", "They met Otto.", "Then Ida came.", "Ida sat.", "They slept."]
    assert remembered(story, replace(WORDS_ALONE, max_sink_tokens=14))[1] == {0, 2}
    kept_tokens = KeptTokens()
    for start, words, caption in ((0, 90, story[0]), (92, 5, story[1]), (99, 5, "They slept.")):
        kept_tokens.advance(words + 2)
        kept_tokens.end_page(start + words, start + words + 1, by_capitals(caption))
    kept_tokens.advance(1)
    kept_tokens.evict(replace(WORDS_ALONE, max_sink_tokens=20))
    assert set(range(92, 97)) <= set(kept_tokens.sink_positions) and 50 not in kept_tokens.sink_positions


def test_the_kept_tokens_of_a_story_with_ever_new_names_do_not_grow():
    story = [f"Then Name{page} came." for page in range(400)]
    kept_tokens, pages = remembered(story, CachePolicy(window_pages=2, max_sink_tokens=90))
    assert 0 in pages and len(pages) > 5 and len(kept_tokens.sink_positions) <= 90
    assert len(kept_tokens.evicted) <= 1 + 5 + 12 and len(kept_tokens.last_used) <= 20


@pytest.mark.parametrize("policy", ["mm_sink", "sink", "window"])
@pytest.mark.parametrize("decoding", ["eager", "static", "native"])
def test_counting_positions_anew_changes_nothing(policy, decoding, monkeypatch):
    model = tiny_model().merge_lora()
    needs_native(model)
    ends = {"image_head": 1, "image_tail": 1}
    keeping = CachePolicy(name=policy, window_pages=2, first_tokens=5, salient_pages=3, **ends, max_sink_tokens=60)
    opening = [GivenPage(" ".join(WORDS[page : page + 6])) if page % 3 else GivenPage() for page in range(14)]
    stories = []
    for rebase_at in (60, 10**9):
        monkeypatch.setattr("seedstory.cache.story_cache._REBASE_AT", rebase_at)
        engine = StoryEngine(model, keeping, SamplingConfig(max_caption_tokens=5), decoding=decoding)
        engine.start(opening, pages=14)
        stories.append(list(engine.pages()))
        assert (engine.cache.positions[0] < 110) == (rebase_at == 60)
    # An angle is position x frequency rounded to float32, so at position P it is off by up to P * eps / 2 radians: the
    # two ways of counting turn keys by that much, and no kernel can agree better.
    bound = engine.cache.positions[0] * torch.finfo(torch.float32).eps / 2
    assert bound < 4e-5
    for one, other in zip(*stories, strict=True):
        assert one.caption == other.caption
        assert (one.features - other.features).abs().max() <= bound * other.features.abs().max(), one.index


def test_memory_stays_as_it_is_to_page_three_hundred(captions):
    engine = StoryEngine(MODEL, CachePolicy(window_pages=2, first_tokens=3, max_sink_tokens=60))
    engine.start([GivenPage(captions[page % 4]) for page in range(300)], pages=300)
    bytes_held = [engine.cache.nbytes for _ in engine.pages()]
    assert len(set(bytes_held[30:])) == 1


def test_a_stock_generate_runs_on_the_cache():
    model = tiny_model().merge_lora()
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = model.llm.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
    cache = StoryCache(model.llm, CachePolicy(name="dense"))
    ours = model.llm.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None, past_key_values=cache)
    assert torch.equal(plain, ours) and cache.num_kept == 9


def test_settings_that_cannot_work_say_what_to_change():
    with pytest.raises(ValueError, match="window_pages must be at least 1"):
        CachePolicy(window_pages=0)
    with pytest.raises(ValueError, match="max_sink_tokens must be at least 14"):
        CachePolicy(first_tokens=4, max_sink_tokens=13)
    with pytest.raises(ValueError, match="must not be negative"):
        CachePolicy(image_head=-1)
    tokenizer = tiny_tokenizer()
    without_rope = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4))
    with pytest.raises(ValueError, match="no plain rotary positions"):
        StoryModel.from_base(without_rope, tokenizer=tokenizer)
    for kind, settings_ in [("dynamic", {"factor": 2.0}), ("longrope", {"short_factor": [1.0], "long_factor": [2.0]})]:
        with pytest.raises(ValueError, match="angles change with the length"):
            tiny_model(lm={"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **settings_}})
