"""Scores of stories that are there: many pages a pass give what one page after the other gives."""

import pytest
import torch

from seedstory.cache import CachePolicy
from seedstory.generation import GivenPage, StoryEngine, StoryRequest
from seedstory.generation.scoring import score_pages
from tests.seedstory.test_engine import SHORT, SMALL_SINK


@pytest.fixture
def stories(model, captions):
    """Three stories of several lengths with pictures, one with an empty caption, one that would go on."""
    generator = torch.Generator().manual_seed(3)

    def page(number: int) -> GivenPage:
        caption = "" if number == 2 else captions[number % len(captions)]
        return GivenPage(
            caption, torch.randn(model.config.feature_tokens, model.config.feature_dim, generator=generator)
        )

    return [StoryRequest([page(n) for n in range(count)], pages) for count, pages in ((6, 6), (9, 12), (3, 3))]


def one_by_one(model, story, policy):
    engine = StoryEngine(model, policy, SHORT)
    engine.start(story.opening, pages=story.pages, score=True)
    drafts = [draft for draft, _ in zip(engine.pages(), story.opening, strict=False)]
    return [(draft.log_likelihood, draft.caption_tokens) for draft in drafts]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dense", {}),
        ("window", {"window_pages": 3}),
        ("sink", {"window_pages": 2, "first_tokens": 3}),
        ("mm_sink", SMALL_SINK),
        ("mm_sink", {}),
    ],
)
def test_many_pages_a_pass_give_what_one_after_the_other_gives(model, stories, name, settings):
    policy = CachePolicy(name=name, **settings)
    heard = []
    batched = score_pages(model, stories, policy, lambda: heard.append(1))
    assert len(heard) == 18
    for story, scores in zip(stories, batched, strict=True):
        expected = one_by_one(model, story, policy)
        assert [tokens for _, tokens in scores] == [tokens for _, tokens in expected]
        # float32 sums of some ten log-probabilities, taken in another order
        assert [score for score, _ in scores] == pytest.approx([score for score, _ in expected], rel=1e-5)
        alone = score_pages(model, [story], policy)[0]
        assert [score for score, _ in scores] == pytest.approx([score for score, _ in alone], rel=1e-5)


def test_each_word_and_image_counts(model, stories):
    policy = CachePolicy(name="mm_sink")
    before = [score for score, _ in score_pages(model, stories[:1], policy)[0]]
    other = [GivenPage(page.caption, page.features + (n == 1)) for n, page in enumerate(stories[0].opening)]
    after = [score for score, _ in score_pages(model, [StoryRequest(other, 6)], policy)[0]]
    assert after[:2] == pytest.approx(before[:2], rel=1e-5)
    assert abs(after[3] - before[3]) > 1e-3


def test_what_cannot_be_scored_is_refused(model, stories):
    with pytest.raises(ValueError, match="recompute"):
        score_pages(model, stories, CachePolicy(name="recompute"))
    with pytest.raises(ValueError, match="needs a caption and features"):
        score_pages(model, [StoryRequest([GivenPage("Mia ran.")], 3)], CachePolicy())
