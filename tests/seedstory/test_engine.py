"""The page loop and its cache: every shortcut equals the slow way, in float32 and to 1e-5."""

from dataclasses import replace

import pytest
import torch

from seedstory.cache import CachePolicy, KeyRotation, StoryCache
from seedstory.cache.policy import PageSpan
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine, StoryRequest
from seedstory.layout import StoryLayout
from tests.seedstory.plain_reader import plain_mm_sink
from tests.seedstory.tiny_language import tiny_model, tiny_tokenizer

_CHOOSE = "seedstory.generation.caption_writer.CaptionSampler.__call__"
SHORT = SamplingConfig(temperature=1.0, max_caption_tokens=8)
SMALL_SINK = {
    "window_pages": 2,
    "first_tokens": 3,
    "salient_pages": 0,
    "image_head": 1,
    "image_tail": 1,
    "max_sink_tokens": 15,
}
NOTHING_LEAVES = {"window_pages": 99, "max_sink_tokens": 9999}


def write(model, opening=(), pages=6, seed=5, policy="dense", sampling=SHORT, **settings):
    engine = StoryEngine(model, CachePolicy(name=policy, **settings), sampling)
    engine.start(opening, pages=pages, seed=seed)
    return list(engine.pages())


def script(captions, pages):
    return [GivenPage(captions[page % len(captions)]) for page in range(pages)]


def assert_same(left, right, atol=1e-5):
    assert [page.caption for page in left] == [page.caption for page in right]
    for one, other in zip(left, right, strict=True):
        assert (one.features - other.features).abs().max() <= atol, one.index


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_queries_in_one_pass_equal_queries_forced_one_by_one(family, captions):
    model = tiny_model(family=family)
    layout = model.layout
    page = write(model, [GivenPage(captions[0])], pages=1)[0]
    ids = [*layout.opening_ids, *layout.page_label_ids(1), *layout.caption_ids(captions[0]), layout.image_start_id]
    cache = StoryCache(model.llm, CachePolicy(name="dense"))
    states = []
    with torch.no_grad():
        for token in [*ids, *layout.query_ids]:
            embeds = model.embed_tokens(torch.tensor([[token]]))
            states.append(model.hidden_states(embeds, cache.position_ids(1), None, cache))
        features = model.decode_features(torch.cat(states[-4:], dim=1))[0]
    assert (page.features - features).abs().max() <= 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_dense_equals_full_recomputation(family):
    model = tiny_model(family=family)
    assert_same(write(model), write(model, policy="recompute", window_pages=99))


@pytest.mark.parametrize("policy", ["mm_sink", "sink", "window"])
def test_a_bounded_policy_equals_dense_as_long_as_nothing_leaves(model, policy):
    assert_same(write(model), write(model, policy=policy, **NOTHING_LEAVES))


@pytest.mark.parametrize("policy", ["mm_sink", "window"])
def test_a_bounded_policy_differs_from_dense_once_pages_leave(model, captions, policy):
    dense, bounded = (
        write(model, script(captions, 6), policy=name, **settings)
        for name, settings in [("dense", {}), (policy, SMALL_SINK)]
    )
    assert_same(dense[:3], bounded[:3])
    assert (dense[5].features - bounded[5].features).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("first", "words", "head", "tail", "images"), [(3, 0, 1, 1, 3), (4, 3, 2, 0, 1), (0, 9, 4, 4, 2)]
)
def test_mm_sink_equals_a_plain_reader_of_unrotated_keys(model, captions, first, words, head, tail, images):
    sizes = {"window_pages": 2, "first_tokens": first, "image_head": head, "image_tail": tail}
    budget = max(first + head + tail + 2, first + images * (min(4, head + tail) + 2)) + 40 * words
    said_by = ["Bruno", "Mia", "Bruno", "Ida", "Otto", "Mia"]
    texts = [f"{captions[page % 4][:20]}, {said_by[page % 6]}." for page in range(11)]
    got = write(
        model, script(texts, 11), pages=11, policy="mm_sink", salient_pages=words, max_sink_tokens=budget, **sizes
    )
    expected = plain_mm_sink(
        model, texts, window=2, first=first, words=words, images=5, head=head, tail=tail, budget=budget
    )
    for page, (_, held) in zip(got[:-1], expected[1:], strict=True):
        # The plain reader counts before the picture, the engine after the next label.
        caption = model.layout.caption_ids(texts[page.index + 1])
        assert page.cached_tokens == held - len(caption) - 1
    for page, (features, _) in zip(got, expected, strict=True):
        assert (page.features - features).abs().max() <= 1e-5, page.index


@pytest.mark.parametrize(("policy", "first"), [("sink", 4), ("sink", 40), ("window", 0)])
def test_sink_and_window_equal_the_plain_reader_too(model, captions, policy, first):
    texts = [captions[page % 4] for page in range(8)]
    got = write(model, script(captions, 8), pages=8, policy=policy, window_pages=2, first_tokens=first)
    expected = plain_mm_sink(model, texts, window=2, first=first, words=0, images=0, head=0, tail=0, budget=0)
    for page, (features, _) in zip(got, expected, strict=True):
        assert (page.features - features).abs().max() <= 1e-5, page.index


def test_which_sinks_stay_of_many_pages():
    policy = CachePolicy(first_tokens=4, salient_pages=0, image_head=1, image_tail=2, max_sink_tokens=16)
    pages = [PageSpan(20 * page, 20 * page + 9, 20 * page + 19) for page in range(30)]
    first, own = [0, 1, 2, 3], [9, 10, 17, 18, 19]
    names = {0: ["Mia"], 3: ["Otto"], 12: ["Ida"]}
    assert policy.sinks([]) == []
    assert policy.sinks(pages[:1]) == [*first, *own]
    # The budget of 16 holds the first tokens, page 1's picture and one more: the one evicted last.
    assert policy.sinks(pages[:2]) == [*first, *own, *(20 + place for place in own)]
    assert policy.sinks(pages) == [*first, *own, *(580 + place for place in own)]
    assert (
        CachePolicy(name="sink", first_tokens=4).sinks(pages) == first and CachePolicy(name="window").sinks(pages) == []
    )
    # Introductions come before recent pictures, as far as they fit: page 0's words, and those where Otto came in.
    generated = [replace(page, names=frozenset(names.get(number, ()))) for number, page in enumerate(pages)]
    words = CachePolicy(first_tokens=4, salient_pages=9, image_head=1, image_tail=2, max_sink_tokens=24)
    assert words.sinks(generated, {"Mia": 0, "Otto": 28, "Ida": 12}) == [*range(11), 17, 18, 19, *range(60, 69)]
    assert words.sinks(generated, {"Mia": 0, "Otto": 12, "Ida": 28}) == [*range(11), 17, 18, 19, *range(240, 249)]
    images = [20 * page + place for page in range(3) for place in own]
    assert words.sinks(generated[:3], {"Mia": 0}) == sorted({*range(9), *images})
    # A picture shorter than head and tail is kept whole, once.
    whole = CachePolicy(first_tokens=0, salient_pages=0, image_head=9, image_tail=9, max_sink_tokens=20).sinks(
        pages[:1]
    )
    assert whole == list(range(9, 20))


def test_memory_is_fixed_over_forty_pages(model, captions):
    engine = StoryEngine(model, CachePolicy(**SMALL_SINK), SHORT)
    engine.start(script(captions[:1], 40), pages=40)
    sizes = [(page.cached_tokens, engine.cache.nbytes, engine.cache.positions[0]) for page in engine.pages()]
    tokens, nbytes, positions = zip(*sizes, strict=True)
    assert len(set(nbytes[6:])) == 1 and max(tokens[6:-1]) - min(tokens[6:-1]) <= 2
    assert max(tokens) < positions[-1] / 8 and len(engine.cache.rows[0].sink_positions) <= 15
    assert len(engine.cache.rows[0].evicted) <= 17


def test_a_corrupted_cache_changes_the_output(model, captions):
    for part in ("keys", "values"):
        engine = StoryEngine(model, CachePolicy(**SMALL_SINK), SHORT)
        engine.start(script(captions, 6), pages=6)
        pages = [next(iter(engine.pages())) for _ in range(5)]
        with torch.inference_mode():
            getattr(engine.cache.layers[0], part)[:, :, 3:6] += 1.0
        pages += engine.pages()
        clean = write(model, script(captions, 6), policy="mm_sink", **SMALL_SINK)
        assert_same(pages[:5], clean[:5], atol=0)
        assert (pages[5].features - clean[5].features).abs().max() > 1e-4


@pytest.mark.parametrize(("policy", "settings"), [("mm_sink", SMALL_SINK), ("dense", {}), ("recompute", {})])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(policy, settings, dtype):
    model = tiny_model().merge_lora().to(dtype)
    whole = write(model, pages=7, policy=policy, **settings)
    for stop in (1, 4):
        resumed = write(model, [page.as_opening() for page in whole[:stop]], 7, policy=policy, **settings)
        assert_same(whole, resumed, atol=0)
    # Another seed leaves the given pages alone and writes others after them.
    redone = write(model, [page.as_opening() for page in whole[:4]], 7, seed=6, policy=policy, **settings)
    assert_same(whole[:4], redone[:4], atol=0)
    assert [page.caption for page in redone[4:]] != [page.caption for page in whole[4:]]


def test_a_story_can_be_stopped_between_pages_and_taken_up_again(model):
    engine = StoryEngine(model, sampling=SHORT)
    engine.start(pages=5, seed=5)
    pages = [next(iter(engine.pages())), next(iter(engine.pages()))]
    pages += engine.pages()
    assert [page.index for page in pages] == [0, 1, 2, 3, 4] and list(engine.pages()) == []
    assert_same(pages, write(model, pages=5, policy="mm_sink"), atol=0)


@pytest.mark.parametrize("decoding", ["eager", "static"])
@pytest.mark.parametrize("policy", ["dense", "mm_sink", "recompute"])
def test_a_page_that_a_callback_broke_off_is_written_again(model, captions, policy, decoding):
    opening = [GivenPage(captions[0])]
    whole = write(model, opening, pages=5, policy=policy)
    engine = StoryEngine(model, CachePolicy(name=policy), SHORT, decoding=decoding)
    engine.start(opening, pages=5, seed=5)
    heard, pages = 0, []

    def tired(_story: int, index: int, _text: str) -> None:
        nonlocal heard
        heard += 1
        if heard in (3, 12):
            raise KeyboardInterrupt

    while len(pages) < 5:
        try:
            for page in engine.pages(tired):
                pages.append(page)
        except KeyboardInterrupt:
            continue
    assert heard > 12
    assert_same(pages, whole)


def test_a_page_that_broke_off_in_the_middle_ends_the_story(model, captions, monkeypatch):
    engine = StoryEngine(model, CachePolicy(name="mm_sink"), SHORT)
    engine.start([GivenPage(captions[0])], pages=3)
    next(engine.pages())
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(type(model), "decode_features", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
        next(engine.pages())
    with pytest.raises(ValueError, match="No story was started"):
        next(engine.pages())


def test_what_is_given_is_kept_and_what_is_missing_is_made(model, captions):
    image = torch.nn.functional.layer_norm(torch.randn(9, 6), (6,))
    opening = [GivenPage(captions[0]), GivenPage(features=image), GivenPage(captions[2], image)]
    pages = write(model, [*opening, GivenPage(), GivenPage(captions[3])], pages=6)
    assert [page.caption for page in pages][:3] == [captions[0], "", captions[2]] and pages[4].caption == captions[3]
    assert pages[3].caption and pages[5].caption
    assert torch.equal(pages[1].features, image) and torch.equal(pages[2].features, image)
    for page in pages:
        assert page.features.shape == (9, 6) and page.features.dtype == torch.float32
        assert not page.features.is_inference() and page.seconds >= 0
    # The given picture is read: another one leads to other features after it.
    other = write(model, [opening[0], GivenPage(features=-image), *opening[2:]], pages=6)
    assert (other[2].features - pages[2].features).abs().max() == 0
    assert (other[3].features - pages[3].features).abs().max() > 1e-4 or other[3].caption != pages[3].caption


@pytest.mark.parametrize("policy", ["mm_sink", "recompute"])
def test_a_page_in_the_middle_is_written_anew_with_a_seed_of_its_own(model, policy):
    whole = write(model, pages=6, policy=policy)
    given = [page.as_opening() for page in whole]
    with_other_seed = write(model, given[:3], pages=6, seed=9, policy=policy)
    engine = StoryEngine(model, CachePolicy(name=policy), SHORT)
    engine.start_batch([StoryRequest([*given[:3], GivenPage(), *given[4:]], 6, 5, page_seeds={3: 9})])
    redone = list(engine.pages())
    assert_same([redone[3]], [with_other_seed[3]], atol=0)
    assert redone[3].caption != whole[3].caption
    assert_same(redone[:3] + redone[4:], whole[:3] + whole[4:], atol=0)
    # The hole is filled with the same page where its seed is the story's.
    engine.start_batch([StoryRequest([*given[:3], GivenPage(), *given[4:]], 6, 5)])
    assert_same(list(engine.pages()), whole, atol=0)
    # What follows a page reads it, and draws from the story's seed again.
    engine.start_batch([StoryRequest(given[:3], 6, 5, page_seeds={3: 9})])
    assert_same(list(engine.pages()), write(model, [*given[:3], redone[3].as_opening()], policy=policy), atol=0)
    with pytest.raises(ValueError, match=r"page that the story does not have: \[6\]"):
        engine.start_batch([StoryRequest(pages=6, page_seeds={6: 1})])


def test_generation_and_packed_training_see_the_same_story(model, captions):
    from seedstory.layout import collate

    pages = write(model, script(captions, 4), pages=4)
    features = torch.stack([page.features for page in pages])
    with torch.no_grad():
        packed = model(**collate([model.layout.pack_story(captions)]), context_features=features)
    assert (packed.features - features).abs().max() <= 1e-5


def test_lora_apart_and_merged_write_the_same(captions):
    apart, merged = tiny_model(), tiny_model().merge_lora()
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    assert_same(write(apart, script(captions, 4), pages=4), write(merged, script(captions, 4), pages=4))
    # LoRA in float32 on a bfloat16 base runs too.
    apart.llm.to(torch.bfloat16)
    for name, weight in apart.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
    assert len(write(apart, pages=2)) == 2


def test_long_captions_are_cut_after_their_last_sentence(model, monkeypatch):
    words = model.layout.caption_ids("Oh. It was a star! And then it")
    monkeypatch.setattr(
        "seedstory.generation.caption_writer.CaptionSampler.__call__", lambda self, logits, ids: words[len(ids)]
    )
    limit = SamplingConfig(max_caption_tokens=len(words))
    assert write(model, pages=1, sampling=limit)[0].caption == "Oh. It was a star!"
    seen = []
    engine = StoryEngine(model, sampling=limit)
    engine.start(pages=1)
    list(engine.pages(callback_on_text=lambda story, index, text: seen.append((story, index, text))))
    assert seen[-1] == (0, 0, "Oh. It was a star! And then it") and len(seen) == len(words)


def test_captions_never_hold_special_tokens_even_if_spelled_out(model, monkeypatch):
    words = model.layout.tokenizer.encode(" A ", add_special_tokens=False)
    spelled = [id for letter in "<img>" for id in model.layout.tokenizer.encode(letter, add_special_tokens=False)]
    words = [*words, *spelled, *words]
    monkeypatch.setattr(
        "seedstory.generation.caption_writer.CaptionSampler.__call__", lambda self, logits, ids: words[len(ids)]
    )
    page = write(model, pages=1, sampling=SamplingConfig(max_caption_tokens=len(words)))[0]
    assert page.caption == "A A"


def test_chapters_count_down_again(model, captions):
    engine = StoryEngine(model, sampling=SHORT)
    engine.start(script(captions[:1], 14), pages=14)
    story = engine._rows.stories[0]
    labels = [model.layout.tokenizer.decode(engine._rows.label_ids(story, page)) for page in range(14)]
    assert labels == [f"\n{left}:" for left in [7, 6, 5, 4, 3, 2, 1] * 2]


def test_bad_requests_are_refused(model, captions):
    engine = StoryEngine(model)
    with pytest.raises(ValueError, match="No story was started"):
        next(engine.pages())
    with pytest.raises(ValueError, match="at least one page"):
        engine.start(pages=0)
    with pytest.raises(ValueError, match="opening has 3 pages"):
        engine.start(script(captions, 3), pages=2)
    with pytest.raises(ValueError, match=r"Opening page 0 has features \(9, 5\)"):
        engine.start([GivenPage(features=torch.zeros(9, 5))], pages=2)
    with pytest.raises(ValueError, match="special tokens"):
        engine.start([GivenPage("<img>")], pages=2)
    with pytest.raises(ValueError, match="training mode"):
        StoryEngine(tiny_model().train())
    with pytest.raises(ValueError, match="Unknown cache policy"):
        CachePolicy(name="fast")
    with pytest.raises(ValueError, match="max_sink_tokens must be at least 14"):
        CachePolicy(first_tokens=4, max_sink_tokens=10)
    with pytest.raises(ValueError, match="window_pages"):
        CachePolicy(window_pages=0)


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64, "nan"])
def test_features_that_are_no_numbers_are_refused(model, captions, kind):
    features = torch.zeros(model.config.feature_tokens, model.config.feature_dim)
    features = features * float("nan") if kind == "nan" else features.to(kind)
    engine = StoryEngine(model, CachePolicy(name="mm_sink"), SHORT)
    with pytest.raises(ValueError, match="not finite floats"):
        engine.start([GivenPage(captions[0], features)], pages=2)


def test_damaged_weights_are_reported():
    model = tiny_model()
    with torch.no_grad():
        model.llm.base_model.norm.weight[0] = torch.nan
    engine = StoryEngine(model)
    engine.start(pages=2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        list(engine.pages())


def test_keys_move_exactly_and_strange_rotations_are_refused(model):
    rotation = KeyRotation.of_layers(model.llm)[0]
    keys = torch.randn(1, 2, 3, 8)
    there = rotation.shift(keys, torch.tensor([5, 0, 3000]))
    assert torch.equal(there[:, :, 1], keys[:, :, 1])
    assert (rotation.shift(there, torch.tensor([-5, 0, -3000])) - keys).abs().max() <= 1e-5
    strange = tiny_model()
    strange.llm.base_model.rotary_emb.inv_freq[1] *= 1.5
    KeyRotation.of_layers(strange.llm)  # reads the frequencies that the model really has
    broken = tiny_model()
    broken.llm.config.rope_parameters = {"rope_type": "longrope", "rope_theta": 1e4}
    with pytest.raises(ValueError, match="angles change"):
        StoryCache(broken.llm, CachePolicy())


def test_a_tokenizer_without_bos_writes_too():
    model = tiny_model(tiny_tokenizer(bos=None))
    assert isinstance(model.layout, StoryLayout) and model.layout.opening_ids == []
    assert_same(write(model, pages=4), write(model, pages=4, policy="recompute"))
