"""How the next token of a caption is chosen."""

import pytest
import torch

from seedstory.generation import CaptionSampler, SamplingConfig
from seedstory.generation.sampling import page_generator

END = 9


def counts(config, logits, caption=(1,), draws=400, **options):
    sampler = CaptionSampler(config, end_id=END, generator=torch.Generator().manual_seed(0), **options)
    drawn = torch.tensor([sampler(logits, list(caption)) for _ in range(draws)])
    return torch.bincount(drawn, minlength=len(logits)) / draws


def logits_of(*probabilities):
    return torch.tensor(probabilities).log()


PLAIN = logits_of(0.4, 0.3, 0.15, 0.1, 0.03, 0.02, 1e-9, 1e-9, 1e-9, 1e-9)


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
    config = SamplingConfig(temperature=0.0, no_repeat_ngram=3, history_pages=1)
    choose = lambda caption, history: CaptionSampler(config, end_id=END, history=history)(PLAIN, caption)  # noqa: E731
    assert choose([5, 6, 0, 4, 5, 6], []) == 1
    assert choose([5, 6], [[5, 6, 0]]) == 1 and choose([5, 6], [[5, 6, 0], [4]]) == 0
    # A run does not reach across the border of two pages, and a short caption forbids nothing.
    assert choose([6, 0], [[5, 6]]) == 0 and choose([6], [[5, 6, 0]]) == 0


def test_repeated_tokens_score_less():
    config = SamplingConfig(temperature=0.0, repetition_penalty=2.5)
    assert CaptionSampler(config, end_id=END)(torch.tensor([3.0, 2.0, -1.0]).repeat(4), [0, 3, 6]) == 9
    assert CaptionSampler(config, end_id=END)(-torch.arange(1.0, 11.0), [0]) == 1


def test_pages_have_random_numbers_of_their_own():
    draw = lambda seed, page: torch.rand(1, generator=page_generator(seed, page)).item()  # noqa: E731
    assert draw(1, 2) == draw(1, 2) and len({draw(1, 2), draw(2, 1), draw(1, 3), draw(12, 0), draw(-1, 2)}) == 5


def test_nan_and_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        CaptionSampler(SamplingConfig(), end_id=END)(torch.tensor([0.0, torch.nan] * 5), [1])
    for settings, message in [
        ({"temperature": -1.0}, "temperature must not be negative"),
        ({"top_p": 0.0}, "top_p must lie"),
        ({"min_p": 1.0}, "min_p must lie"),
        ({"no_repeat_ngram": 1}, "no_repeat_ngram must be 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be positive"),
        ({"max_caption_tokens": 0}, "max_caption_tokens must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            SamplingConfig(**settings)
