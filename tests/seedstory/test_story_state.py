"""The story state: its form, how it is written, and that every way to read it gives the same story."""

import pytest
import torch

from seedstory.cache import CachePolicy
from seedstory.generation import GivenPage, SamplingConfig, StoryEngine, StoryRequest
from seedstory.generation.scoring import score_pages
from seedstory.generation.state_sampler import StateSampler
from seedstory.layout import chapters, collate, countdown
from seedstory.story_state import MAX_CAST, StoryState, parse_character
from tests.seedstory.plain_reader import plain_mm_sink
from tests.seedstory.tiny_language import tiny_model

SHORT = SamplingConfig(temperature=1.0, max_caption_tokens=6)
CAST = (("Mia", "fox, red coat"), ("Tom", "frog, green vest"))
EARLY = pytest.mark.parametrize("early", [False, True], ids=["before page 2", "in page 1"])
NOTHING_LEAVES = {"window_pages": 99, "max_sink_tokens": 9999}


@pytest.fixture(autouse=True)
def _short_lines(monkeypatch):
    """A model with random weights hardly ever ends a line."""
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_LINE_TOKENS", 4)
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_CAST", 3)


def plan(pages):
    return tuple(f"Mia does thing {page}" for page in range(pages))


def write(model, opening=(), *, pages=5, state_pages=(1,), states=None, policy="dense", decoding="eager", **more):
    seed, early, known = more.pop("seed", 3), more.pop("early", False), more.pop("known", ())
    engine = StoryEngine(model, CachePolicy(name=policy, **more), SHORT, decoding=decoding)
    engine.start_batch([StoryRequest(opening, pages, seed, state_pages, states or {}, known, early)])
    return list(engine.pages())


def assert_same(left, right, atol=1e-5):
    assert [page.caption for page in left] == [page.caption for page in right]
    assert [page.next_state for page in left] == [page.next_state for page in right]
    for one, other in zip(left, right, strict=True):
        assert (one.features - other.features).abs().max() <= atol, one.index


def test_the_form():
    state = StoryState(CAST, ("Mia finds a key", "", "They open the gate"))
    assert state.lines(3) == [
        "cast",
        "Mia: fox, red coat",
        "Tom: frog, green vest",
        "plan",
        "3. Mia finds a key",
        "2.",
        "1. They open the gate",
    ]
    assert StoryState.from_dict(state.to_dict()) == state and state.names == ("Mia", "Tom")
    assert not StoryState() and StoryState().lines(3) == [] and StoryState(plan=("x",)).lines(1) == ["plan", "1. x"]
    assert parse_character(" Mia :  fox, red: coat ") == ("Mia", "fox, red: coat")


@pytest.mark.parametrize(
    "bad",
    [
        {"cast": (("Mia", ""),)},
        {"cast": (("", "fox"),)},
        {"cast": (("Mia", "fox"), ("Mia", "cat"))},
        {"cast": (("plan", "fox"),)},
        {"cast": (("M" * 41, "fox"),)},
        {"cast": tuple((f"N{i}", "fox") for i in range(MAX_CAST + 1))},
        {"plan": ("x" * 201,)},
        {"plan": (3,)},
    ],
)
def test_what_is_no_state_is_refused(bad):
    with pytest.raises(ValueError):
        StoryState(**bad)


@pytest.mark.parametrize("value", [None, [], {"cast": []}, {"cast": {}, "plan": "x"}, {"cast": {"A": 1}, "plan": []}])
def test_what_is_no_record_of_a_state_is_refused(value):
    with pytest.raises(ValueError):
        StoryState.from_dict(value)


def test_the_model_writes_a_state_with_a_line_for_every_page(model):
    pages = write(model)
    state = pages[0].next_state
    assert len(state.plan) == 4 and all(state.plan)
    assert [page.next_state for page in pages[1:]] == [None] * 4
    assert write(model, seed=4)[0].next_state != state


def test_what_is_given_stays_and_the_rest_is_written(model):
    given = StoryState(CAST, ("", "Tom finds it", "", "The end"))
    state = write(model, states={1: given})[0].next_state
    assert state.cast[:2] == CAST and state.plan[1] == "Tom finds it" and state.plan[3] == "The end"
    assert state.plan[0] and state.plan[2]
    whole = StoryState(CAST, plan(4))
    assert write(model, states={1: whole})[0].next_state == whole
    # The given state is read: another one leads to another story.
    other = write(model, [GivenPage("A fox.")], states={1: StoryState(CAST[:1], plan(4))})
    assert other[2].caption != write(model, [GivenPage("A fox.")], states={1: whole})[2].caption


def test_a_later_chapter_goes_on_with_the_cast(model):
    pages = write(model, pages=14, state_pages=(1, 7), states={1: StoryState(CAST)})
    assert pages[6].next_state.cast[: len(pages[0].next_state.cast)] == pages[0].next_state.cast
    assert len(pages[6].next_state.plan) == 7


def test_a_fixed_state_is_taken_as_it_is(model):
    assert write(model, states={1: StoryState(CAST)}, known=(1,))[0].next_state == StoryState(CAST)


def test_sampler_writes_what_a_wilful_model_says(model, monkeypatch):
    """The model is a script here: its tokens are those of a text, whatever was forced before."""
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_LINE_TOKENS", 32)
    layout = model.layout
    text = "Mia: a fox\nTom: a frog\nplan Mia runs\n Tom hops\n"
    said = iter(layout.tokenizer.encode(text, add_special_tokens=False))

    def next_token(self, logits, caption):
        return next(said)

    sampler = StateSampler(SHORT, layout, 2)
    sampler._sampler.__class__ = type("Scripted", (sampler._sampler.__class__,), {"__call__": next_token})
    ids = []
    while (token := sampler(torch.zeros(1))) is not None:
        ids.append(token)
    assert sampler.state() == StoryState((("Mia", "a fox"), ("Tom", "a frog")), ("Mia runs", "Tom hops"))
    assert layout.tokenizer.decode(ids) == "\ncast\nMia: a fox\nTom: a frog\nplan\n2. Mia runs\n1. Tom hops"


@EARLY
@pytest.mark.parametrize("policy", ["mm_sink", "sink", "window"])
def test_a_bounded_policy_equals_dense_as_long_as_nothing_leaves(model, policy, early):
    assert_same(write(model, early=early), write(model, early=early, policy=policy, **NOTHING_LEAVES))


@EARLY
def test_dense_equals_full_recomputation(model, early):
    options = {"pages": 14, "state_pages": (1, 7), "early": early}
    assert_same(write(model, **options), write(model, **options, policy="recompute", window_pages=99))


@EARLY
@pytest.mark.parametrize("decoding", ["static", "native"])
def test_every_decoding_writes_the_same(decoding, early):
    model = tiny_model().merge_lora()
    options = {"pages": 14, "state_pages": (1, 7), "early": early}
    assert_same(write(model, **options), write(model, **options, decoding=decoding))


@EARLY
@pytest.mark.parametrize(("policy", "first", "images"), [("mm_sink", 4, 3), ("sink", 4, 0), ("window", 0, 0)])
def test_a_state_outlives_its_pages_under_every_policy(model, captions, policy, first, images, early):
    """Equal to a plain reader that keeps the last state read, while a new one takes the place of the old one."""
    texts = [captions[page % 4] for page in range(14)]
    states = {1: StoryState(CAST, plan(6)), 7: StoryState(CAST[:1], plan(7))}
    budget = 12 + 3 * 8 if images else 0
    more = {"salient_pages": 0, "kept_images": images, "image_head": 1, "image_tail": 1, "max_sink_tokens": budget}
    got = write(
        model,
        [GivenPage(text) for text in texts],
        pages=14,
        state_pages=(1, 7),
        states=states,
        policy=policy,
        window_pages=2,
        first_tokens=first,
        early=early,
        **(more if images else {}),
    )
    sizes = {"words": 0, "images": images, "head": 1, "tail": 1, "budget": budget}
    expected = plain_mm_sink(model, texts, window=2, first=first, states=states, early=early, **sizes)
    for page, (features, _) in zip(got, expected, strict=True):
        assert (page.features - features).abs().max() <= 1e-5, page.index


def test_a_forgotten_state_would_be_seen(model, captions):
    """The pages after the window has passed still depend on the state."""
    texts = [GivenPage(captions[page % 4]) for page in range(9)]
    one, other = (
        write(model, texts, pages=9, states={1: StoryState(cast, plan(8))}, policy="window", window_pages=2)
        for cast in (CAST, CAST[:1])
    )
    assert (one[8].features - other[8].features).abs().max() > 1e-3


@pytest.mark.parametrize(("policy", "settings"), [("mm_sink", {"window_pages": 2}), ("dense", {}), ("recompute", {})])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@EARLY
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(policy, settings, dtype, early):
    model = tiny_model().merge_lora().to(dtype)
    options = {"pages": 13, "state_pages": (1, 7), "policy": policy, "early": early, **settings}
    whole = write(model, **options)
    for stop in (1, 4, 7, 8):
        known = {page.index + 1: page.next_state for page in whole[:stop] if page.next_state}
        assert sorted(known) == [at for at in (1, 7) if at <= stop]
        resumed = write(model, [page.as_opening() for page in whole[:stop]], states=known, known=known, **options)
        assert_same(whole, resumed, atol=0)


def test_a_state_is_written_anew_with_the_seed_of_its_page(model):
    options = {"policy": "mm_sink", "window_pages": 2, "state_pages": (1, 3)}
    whole = write(model, **options)
    opening = [page.as_opening() for page in whole]
    known = {1: whole[0].next_state}
    engine = StoryEngine(model, CachePolicy(window_pages=2), SHORT)
    request = StoryRequest([*opening[:3], GivenPage()], 5, 3, (1, 3), known, (1,), page_seeds={3: 4})
    engine.start_batch([request])
    redone = list(engine.pages())
    other = write(model, opening[:3], seed=4, states=known, known=(1,), **options)
    assert_same(redone[:4], other[:4], atol=0)
    assert redone[2].next_state != whole[2].next_state


def test_stories_of_a_batch_are_as_alone(model):
    requests = [
        StoryRequest(pages=5, seed=1, state_pages=(1,)),
        StoryRequest([GivenPage("A fox.")], 7, 2, (1, 3), {3: StoryState(CAST)}),
        StoryRequest(pages=3, seed=3),
        StoryRequest([GivenPage("A fox!")], 5, 4, (1,), state_in_opening=True),
    ]
    engine = StoryEngine(model, CachePolicy(window_pages=2), SHORT)
    engine.start_batch(requests)
    together = list(engine.pages())
    for number, request in enumerate(requests):
        engine.start_batch([request])
        assert_same([page for page in together if page.story == number], list(engine.pages()), atol=2e-5)


def test_guidance_compares_with_pages_without_a_state(model):
    guided = SamplingConfig(temperature=1.0, max_caption_tokens=6, text_guidance_scale=1.5)
    engine = StoryEngine(model, CachePolicy(window_pages=2), guided)
    engine.start_batch([StoryRequest(pages=5, seed=1, state_pages=(1, 3))])
    pages = list(engine.pages())
    assert len(pages) == 5 and pages[0].next_state and pages[2].next_state


@EARLY
def test_generation_and_packed_training_see_the_same_story(model, captions, early):
    state = StoryState(CAST, plan(3))
    pages = write(model, [GivenPage(caption) for caption in captions], pages=4, states={1: state}, early=early)
    features = torch.stack([page.features for page in pages])
    ids = (model.layout.opening_state_ids if early else model.layout.state_ids)(state, 3)
    with torch.no_grad():
        packed = model(
            **collate([model.layout.pack_story(captions, state_ids={1: ids}, state_in_opening=early)]),
            context_features=features,
        )
    assert (packed.features - features).abs().max() <= 1e-5


def test_what_of_a_state_is_learned(model, captions):
    ids = model.layout.state_ids(StoryState(CAST, plan(3)), 3)
    packed, plain = (model.layout.pack_story(captions, state_ids=states) for states in ({1: ids}, None))
    context = packed.branch < 0
    row, labels = packed.input_ids[context].tolist(), packed.labels[context].tolist()
    start = next(at for at in range(len(row)) if row[at : at + len(ids)] == ids)
    assert labels[start : start + len(ids)] == [*ids[1:], model.layout.page_label_ids(3)[0]]
    assert labels[start - 1] == -100  # a state begins where it is due, which the model need not foresee
    rest = labels[:start] + labels[start + len(ids) :]
    assert rest == plain.labels[plain.branch < 0].tolist()
    kept = model.layout.pack_story(captions, state_ids={1: ids}, supervise_state=())
    assert kept.labels[kept.branch < 0].tolist() == labels[:start] + [-100] * len(ids) + labels[start + len(ids) :]
    with pytest.raises(ValueError, match="second on"):
        model.layout.pack_story(captions, state_ids={0: ids})


def test_what_is_learned_of_a_state_in_the_first_page(model, captions):
    ids = model.layout.opening_state_ids(StoryState(CAST, plan(3)), 3)
    packed, plain = (
        model.layout.pack_story(captions, state_ids=states, state_in_opening=True) for states in ({1: ids}, None)
    )
    context = packed.branch < 0
    row, labels = packed.input_ids[context].tolist(), packed.labels[context].tolist()
    start = next(at for at in range(len(row)) if row[at : at + len(ids)] == ids)
    assert row[start + len(ids)] == model.layout.image_start_id
    caption = model.layout.caption_ids(captions[0])
    assert labels[start - len(caption) - 1 : start] == [*caption, -100]
    assert labels[start : start + len(ids)] == [*ids[1:], -100]
    assert labels[start + len(ids) :] == plain.labels[plain.branch < 0].tolist()[start:]


@EARLY
def test_scores_are_those_of_generation(model, early):
    request = StoryRequest(pages=13, seed=3, state_pages=(1, 7), state_in_opening=early)
    policy = CachePolicy(window_pages=2)
    engine = StoryEngine(model, policy, SHORT)
    engine.start_batch([request], score=True)
    pages = list(engine.pages())
    states = {page.index + 1: page.next_state for page in pages if page.next_state}
    whole = StoryRequest([page.as_opening() for page in pages], 13, 3, (1, 7), states, states, early)
    scores = score_pages(model, [whole], policy)[0]
    assert [score for score, _ in scores] == pytest.approx([page.log_likelihood for page in pages], abs=1e-3)


def test_bad_requests_are_refused(model):
    for states, at in (
        ({1: StoryState(plan=("too", "few"))}, (1,)),
        ({2: StoryState(CAST)}, (1,)),
        ({}, (0,)),
        ({}, (5,)),
    ):
        with pytest.raises(ValueError):
            write(model, states=states, state_pages=at)
    with pytest.raises(ValueError, match="special tokens"):
        write(model, states={1: StoryState((("Mia", "a <img>"),))})


def test_chapters_begin_where_states_do():
    assert countdown(14)[7] == chapters(14)[1] == 7
