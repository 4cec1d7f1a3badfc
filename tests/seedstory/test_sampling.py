"""How the next token of a caption is chosen: as transformers chooses it; and when a caption ends."""

from dataclasses import fields

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers.generation import logits_process
from transformers.modeling_outputs import CausalLMOutput

from seedstory.generation import CaptionSampler, SamplingConfig
from seedstory.generation.sampling import apply_guidance, page_generator
from seedstory.settings import StorySettings

END = 9


def counts(config, logits, caption=(1,), draws=400, **options):
    sampler = CaptionSampler(config, end_id=END, generator=torch.Generator().manual_seed(0), **options)
    drawn = torch.tensor([sampler(logits, list(caption)) for _ in range(draws)])
    return torch.bincount(drawn, minlength=len(logits)) / draws


def logits_of(*probabilities):
    return torch.tensor(probabilities).log()


PLAIN = logits_of(0.4, 0.3, 0.15, 0.1, 0.03, 0.02, 1e-9, 1e-9, 1e-9, 1e-9)


def reference(config, logits, caption, history, clear=lambda holds: None):
    """Probabilities `[V]` by transformers' own processors, in the order of its `generate`.

    `clear` is asked whether it is clear what to keep: where a sum meets top-p exactly, or two tokens tie for the last
    place, rounding and sorting decide.
    """
    size, end, scores = len(logits), len(logits) - 1, logits[None]
    recent = history[max(0, len(history) - config.history_pages) :]
    plain = torch.tensor([[id for page in recent for id in page] + caption], dtype=torch.long)
    # A page ends with an id of its own beyond the vocabulary, so that no run reaches across two pages.
    parted = torch.tensor([[id for i, page in enumerate(recent) for id in [*page, size + i]] + caption])
    if config.repetition_penalty != 1:
        scores = logits_process.RepetitionPenaltyLogitsProcessor(config.repetition_penalty)(plain, scores)
    if config.no_repeat_ngram_size:
        scores = logits_process.NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size)(parted, scores)
    before = plain.shape[1] - len(caption)
    minimum = logits_process.MinNewTokensLengthLogitsProcessor(before, config.min_caption_tokens, end)
    scores = minimum(plain, scores)
    if config.temperature == 0:
        return torch.nn.functional.one_hot(scores[0].argmax(), size).float()
    scores = logits_process.TemperatureLogitsWarper(float(config.temperature))(plain, scores)
    if config.top_k:
        scores = logits_process.TopKLogitsWarper(config.top_k)(plain, scores)
    if config.top_p < 1:
        probabilities = scores.softmax(-1)[0].sort(descending=True).values
        clear(((probabilities.cumsum(0) - config.top_p).abs() > 1e-5).all())
        count = int((probabilities.cumsum(0) - probabilities < config.top_p).sum())
        clear(count == size or probabilities[count - 1] != probabilities[count])
        scores = logits_process.TopPLogitsWarper(config.top_p)(plain, scores)
    if config.min_p:
        probabilities = scores.softmax(-1)[0]
        clear(((probabilities / probabilities.max() - config.min_p).abs() > 1e-5).all())
        scores = logits_process.MinPLogitsWarper(config.min_p)(plain, scores)
    return scores.softmax(-1)[0]


def spread(sampler, logits, caption):
    """What a sampler may choose, as probabilities `[V]`."""
    ids, probabilities = sampler.choices(logits, caption)
    return torch.zeros(len(logits)).scatter(0, ids, probabilities)


TOKENS = st.lists(st.integers(0, 14), max_size=12)
CONFIGS = st.builds(
    SamplingConfig,
    temperature=st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 3, 8, 100]),
    top_p=st.sampled_from([1e-6, 0.3, 0.71, 0.9, 0.997, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 0.98]),
    repetition_penalty=st.sampled_from([0.7, 1.0, 1.3, 5.0]),
    no_repeat_ngram_size=st.sampled_from([0, 2, 3, 4]),
    history_pages=st.integers(0, 3),
    min_caption_tokens=st.integers(1, 12),
)


@given(
    config=CONFIGS,
    logits=st.lists(st.integers(-1600, 1600), min_size=16, max_size=16),
    caption=TOKENS,
    history=st.lists(TOKENS, max_size=4),
)
def test_all_controls_together_give_the_distribution_of_transformers(config, logits, caption, history):
    logits = torch.tensor(logits) / 128
    sampler = CaptionSampler(config, end_id=15, history=history)
    expected = reference(config, logits, caption, history, clear=assume)
    assert torch.allclose(spread(sampler, logits, caption), expected, atol=1e-6)


@pytest.mark.parametrize("flat", [0.1, 1.0, 4.0])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0, "top_p": 0.95},
        {"top_k": 50},
        {"top_p": 1.0, "min_p": 0.05},
        {"top_k": 40, "min_p": 0.1},
        {"top_p": 1.0},
    ],
)
def test_a_whole_vocabulary_is_chosen_from_as_in_transformers(settings, flat):
    logits = torch.randn(49_153, generator=torch.Generator().manual_seed(0)) * flat
    config = SamplingConfig(**settings)
    got = spread(CaptionSampler(config, end_id=len(logits) - 1), logits, [5])
    expected = reference(config, logits, [5], [])
    # Over so many tokens the two orders of summing disagree on a few at the rim of top-p.
    assert ((got > 0) != (expected > 0)).sum() <= 2e-3 * (expected > 0).sum()
    assert (got - expected).abs().sum() < 1e-3


@given(
    scores=st.lists(st.tuples(st.floats(-50, 50, width=32), st.floats(-50, 50, width=32)), min_size=2, max_size=9),
    scale=st.sampled_from([0.0, 0.5, 1.0, 1.5, 4.0]),
)
def test_guidance_of_the_text_is_that_of_transformers(scores, scale):
    cond, uncond = torch.tensor(scores).T
    model = lambda ids, **_: CausalLMOutput(logits=uncond[None, None])  # noqa: E731
    processor = logits_process.UnbatchedClassifierFreeGuidanceLogitsProcessor(
        scale, model, unconditional_ids=torch.tensor([[0]]), use_cache=False
    )
    expected = processor(torch.tensor([[0]]), cond[None])[0]
    assert torch.allclose(apply_guidance(cond, uncond, scale), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(apply_guidance(cond[None], uncond[None], scale)[0], apply_guidance(cond, uncond, scale))


def test_plain_sampling_follows_the_probabilities():
    drawn = counts(SamplingConfig(temperature=1.0, top_p=1.0), PLAIN, draws=3000)
    assert (drawn - PLAIN.exp()).abs().max() < 0.03


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"temperature": 0.0}, {0}),
        ({"top_k": 2, "top_p": 1.0}, {0, 1}),
        ({"top_p": 0.65}, {0, 1}),
        ({"top_p": 0.75}, {0, 1, 2}),
        ({"top_p": 1e-6}, {0}),
        ({"top_p": 1.0, "min_p": 0.3}, {0, 1, 2}),
        ({"top_k": 3, "top_p": 0.7}, {0, 1}),
        ({"temperature": 0.01}, {0}),
    ],
)
def test_truncation_leaves_the_right_tokens(settings, allowed):
    drawn = counts(SamplingConfig(**({"temperature": 1.0} | settings)), PLAIN)
    assert set(drawn.nonzero().flatten().tolist()) == allowed


def test_a_large_vocabulary_with_a_flat_head_is_sorted_fully():
    drawn = counts(SamplingConfig(temperature=1.0, top_p=0.9), torch.zeros(5000), draws=300)
    assert len(drawn.nonzero()) > 250


def test_a_caption_is_never_empty_and_never_holds_a_forbidden_token():
    end_first = torch.zeros(10)
    end_first[END] = 50.0
    assert counts(SamplingConfig(), end_first)[END] == 1 and counts(SamplingConfig(), end_first, caption=())[END] == 0
    drawn = counts(SamplingConfig(), PLAIN, forbidden_ids=[0, 1, END])
    assert drawn[:2].sum() == 0 and drawn[2:].sum() == 1


def test_runs_are_not_written_twice_within_a_caption_or_across_pages():
    config = SamplingConfig(temperature=0.0, no_repeat_ngram_size=3, history_pages=1)
    choose = lambda caption, history: CaptionSampler(config, end_id=END, history=history)(PLAIN, caption)  # noqa: E731
    assert choose([5, 6, 0, 4, 5, 6], []) == 1
    assert choose([5, 6], [[5, 6, 0]]) == 1 and choose([5, 6], [[5, 6, 0], [4]]) == 0
    # A run does not reach across the border of two pages, and a short caption forbids nothing.
    assert choose([6, 0], [[5, 6]]) == 0 and choose([6], [[5, 6, 0]]) == 0


def test_a_caption_is_not_shorter_than_asked_for():
    end_first = torch.zeros(10)
    end_first[END] = 50.0
    config = SamplingConfig(min_caption_tokens=3)
    assert (
        counts(config, end_first, caption=[1, 2])[END] == 0 and counts(config, end_first, caption=[1, 2, 3])[END] == 1
    )


def test_repeated_tokens_score_less():
    config = SamplingConfig(temperature=0.0, repetition_penalty=2.5)
    assert CaptionSampler(config, end_id=END)(torch.tensor([3.0, 2.0, -1.0]).repeat(4), [0, 3, 6]) == 9
    assert CaptionSampler(config, end_id=END)(-torch.arange(1.0, 11.0), [0]) == 1


def test_pages_have_random_numbers_of_their_own():
    draw = lambda seed, page: torch.rand(1, generator=page_generator(seed, page)).item()  # noqa: E731
    assert draw(1, 2) == draw(1, 2) and len({draw(1, 2), draw(2, 1), draw(1, 3), draw(12, 0), draw(-1, 2)}) == 5


def test_a_hook_changes_the_scores_before_the_controls():
    seen = []

    def forbid_the_best(ids, scores):
        seen.append((list(ids), scores.dtype, scores.shape))
        scores[0] = -torch.inf

    def mirrored(ids, scores):
        return scores.flip(0).double()

    greedy = SamplingConfig(temperature=0.0, repetition_penalty=1.5)
    logits = torch.arange(10.0, 0.0, -1.0)
    choose = lambda hook: CaptionSampler(greedy, end_id=END, logits_processor=hook)(logits.bfloat16(), [1])  # noqa: E731
    assert choose(None) == 0 and choose(forbid_the_best) == 2 and choose(mirrored) == 9
    assert seen == [([1], torch.float32, (10,))]
    assert logits[0] == 10.0


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (lambda ids, scores: scores * torch.nan, "never with NaN"),
        (lambda ids, scores: scores + torch.inf, "infinite"),
        (lambda ids, scores: scores[:4], r"returned \[4\]: return scores of shape \[10\] or None"),
        (lambda ids, scores: 3, "returned int"),
        (lambda ids, scores: torch.full((10,), -torch.inf), "allow more in the logits processor"),
        (lambda ids, scores: torch.full((10,), -torch.inf).index_fill(0, torch.tensor([9]), 0), "min_caption_tokens"),
    ],
)
def test_what_a_hook_may_not_return(hook, message):
    with pytest.raises(ValueError, match=message):
        CaptionSampler(SamplingConfig(), end_id=END, logits_processor=hook)(PLAIN, [])


def ended(text: str, **settings) -> str | None:
    """Tells a text to a sampler in pieces of three letters; what `finished` makes of it."""
    sampler = CaptionSampler(SamplingConfig(**settings), end_id=END)
    for count in range(1, len(text) // 3 + 2):
        caption = sampler.finished(" ".join(text[: 3 * count].split()), range(count))
        if caption is not None:
            return caption
    return None


SAMPLE = '"Who is there?" asked Mr. Bear. Nobody spoke... "Oh!" He ran home. The end.'


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"stop": "Bear."}, '"Who is there?" asked Mr. Bear.'),
        ({"stop": ("The end", "home")}, '"Who is there?" asked Mr. Bear. Nobody spoke... "Oh!" He ran home'),
        ({"stop": ("there", "Who is")}, '"Who is'),
        ({"stop": " he"}, None),
        ({"stop": "he"}, '"Who is the'),
        ({"stop": "spoke\n"}, None),
        ({"stop": "Bear. \n Nobody"}, '"Who is there?" asked Mr. Bear. Nobody'),
        ({"max_sentences": 1}, '"Who is there?" asked Mr. Bear.'),
        ({"max_sentences": 2}, '"Who is there?" asked Mr. Bear. Nobody spoke...'),
        ({"max_sentences": 3}, '"Who is there?" asked Mr. Bear. Nobody spoke... "Oh!"'),
        ({"max_sentences": 5}, None),
        ({"max_sentences": 2, "stop": "asked"}, '"Who is there?" asked'),
        ({"max_sentences": 1, "min_caption_tokens": 13}, '"Who is there?" asked Mr. Bear. Nobody spoke...'),
        ({"stop": ".", "min_caption_tokens": 10}, '"Who is there?" asked Mr. Bear.'),
        ({"stop": "Bear", "min_caption_tokens": 12}, None),
    ],
)
def test_stop_conditions(settings, expected):
    assert ended(SAMPLE, **settings) == expected
    assert CaptionSampler(SamplingConfig(**settings), end_id=END).reads_text == bool(
        settings.keys() & {"stop", "max_sentences"}
    )


def test_the_settings_of_a_story_reach_the_sampler():
    assert SamplingConfig.of(StorySettings(text="x")) == SamplingConfig()
    chosen = {"temperature": 0.8, "top_k": 40, "stop": ["The end."], "no_repeat_ngram_size": 12, "max_sentences": 2}
    config = SamplingConfig.of(StorySettings(text="x", **chosen))
    assert config == SamplingConfig(**chosen) and config.stop == ("The end.",)
    assert {field.name for field in fields(SamplingConfig)} <= {field.name for field in fields(StorySettings)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature must be a number from 0 to 10, not -1"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": -1}, "top_k must be a whole number from 0"),
        ({"top_k": 2.5}, "top_k"),
        ({"top_p": 0.0}, "top_p must be"),
        ({"min_p": 1.1}, "min_p must be a number from 0 to 1"),
        ({"no_repeat_ngram_size": 1}, "no_repeat_ngram_size 1 would allow every word once only: give 0"),
        ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size"),
        ({"history_pages": -1}, "history_pages"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be"),
        ({"max_caption_tokens": 0}, "max_caption_tokens must be a whole number from 1"),
        ({"min_caption_tokens": 0}, "min_caption_tokens must be a whole number from 1"),
        ({"min_caption_tokens": 97}, "97 is more than max_caption_tokens 96: lower"),
        ({"max_sentences": -1}, "max_sentences"),
        ({"text_guidance_scale": float("nan")}, "text_guidance_scale"),
        ({"stop": ""}, "a stop text is empty"),
        ({"stop": ("ok", "\n")}, "a stop text is empty"),
        ({"stop": (3,)}, "a stop text must be text, not int"),
        ({"stop": 3}, "stop must be a text or several"),
        ({"stop": ("x",) * 33}, "at most 32"),
    ],
)
@pytest.mark.parametrize("make", [SamplingConfig, lambda **settings: StorySettings(text="x", **settings)])
def test_wrong_settings_are_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_nan_from_the_model_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        CaptionSampler(SamplingConfig(), end_id=END)(torch.tensor([0.0, torch.nan] * 5), [1])
