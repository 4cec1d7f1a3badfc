r"""How good the words of stories are: perplexity, variety and repetition.

*Perplexity* is exp of the mean negative log-likelihood of a token, over the captions after the first page's, which is
given. What comes before a caption is given as it is: for a story model, captions and pictures; for the base language
model, the same captions as plain text, one a line. The mark that ends a page counts as a token of its caption: `<img>`
for a story model, the line break for the base. Both split captions into the same tokens, so the two can be compared.

*distinct-n* (Li et al. 2016, arXiv 1510.03055) is the share of n-grams that differ, of all n-grams of a story. It falls
with the length of stories, so compare stories of one length.

*Repetition* is the share of a page's 4-grams that an earlier page of the same story has too. Words are compared without
case and punctuation; no n-gram reaches over the end of a page.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from seedstory.cache import CachePolicy
from seedstory.generation import GivenPage, StoryEngine, StoryRequest
from seedstory.generation.scoring import score_pages
from seedstory.layout import StoryLayout
from seedstory.modeling import StoryModel
from seedstory.modeling.base_lm import base_lm_folder

REPEATED = 4  # words of the n-grams that make repetition
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_ROWS = 256  # tokens whose scores over the vocabulary are held at once

Score = tuple[float, int]  # log-likelihood of a caption, and its tokens


def ngrams(text: str, size: int) -> list[tuple[str, ...]]:
    """The runs of `size` words of a text."""
    words = _WORD.findall(text.lower().replace("’", "'"))
    return [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]


def distinct(captions: Sequence[str], size: int) -> float | None:
    """Share of the n-grams of a story that differ; None if it has none."""
    runs = [run for caption in captions for run in ngrams(caption, size)]
    return len(set(runs)) / len(runs) if runs else None


def repetition(captions: Sequence[str], size: int = REPEATED) -> list[float | None]:
    """For each page after the first: share of its n-grams that an earlier page has too; None if it has none."""
    seen: set[tuple[str, ...]] = set()
    shares: list[float | None] = []
    for caption in captions:
        runs = ngrams(caption, size)
        shares.append(sum(run in seen for run in runs) / len(runs) if runs else None)
        seen.update(runs)
    return shares[1:]


def variety(stories: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """`distinct_1` to `distinct_3`, the mean over stories, and `repetition`, the mean over pages."""
    figures = {f"distinct_{size}": _mean([distinct(story, size) for story in stories]) for size in (1, 2, 3)}
    return figures | {"repetition": _mean([share for story in stories for share in repetition(story)])}


def perplexity(stories: Sequence[Sequence[Score]]) -> tuple[float | None, float | None]:
    """Perplexity of the pages after the first, and its standard error over stories (None of a single one)."""
    sums = [(-sum(score[0] for score in story[1:]), sum(score[1] for score in story[1:])) for story in stories]
    mean, error = ratio(sums)
    if mean is None:
        return None, None
    return math.exp(mean), None if error is None else math.exp(mean) * error


def ratio(parts: Sequence[tuple[float, float]]) -> tuple[float | None, float | None]:
    """Sum of the first over sum of the second, and its standard error.

    Pages of a story are alike, so the parts are those of whole stories, and the error is that of a ratio estimator
    (Cochran, Sampling Techniques, equation 6.13): None with fewer than two parts that have anything to count.
    """
    parts = [(above, below) for above, below in parts if below]
    if not parts:
        return None, None
    total = sum(below for _, below in parts)
    mean = sum(above for above, _ in parts) / total
    if len(parts) < 2:
        return mean, None
    squares = sum((above - mean * below) ** 2 for above, below in parts)
    return mean, math.sqrt(squares * len(parts) / (len(parts) - 1)) / total


@torch.inference_mode()
def base_scores(
    model: StoryModel, stories: Sequence[Sequence[str]], callback_on_story: Callable[[], Any] = lambda: None
) -> list[list[Score]]:
    """How probable the base language model, without our weights, finds the captions of stories, page by page."""
    assert model.layout is not None, "a loaded story model has its layout"
    folder = base_lm_folder(model.config.base_lm)
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=model.dtype, attn_implementation="sdpa", trust_remote_code=False
    )
    base = base.to(model.device).eval()
    scores = []
    for captions in stories:
        scores.append(_plain_scores(base, model.layout, captions))
        callback_on_story()
    return scores


def _plain_scores(base: PreTrainedModel, layout: StoryLayout, captions: Sequence[str]) -> list[Score]:
    end = layout.tokenizer.encode("\n", add_special_tokens=False)
    opening = layout.opening_ids or [layout.eos_id]  # something must stand before the first word
    pages = [[*layout.caption_ids(caption), *end] for caption in captions]
    likelihoods = _log_likelihoods(base, [*opening, *(token for page in pages for token in page)])
    by_page = likelihoods[len(opening) - 1 :].split([len(page) for page in pages])
    return [(page.sum().item(), len(page)) for page in by_page]


def _log_likelihoods(base: PreTrainedModel, ids: list[int]) -> Tensor:
    """Log-probability of each token after the first, `[T - 1]`; a long text is read in windows that overlap by half."""
    limit, found, done = base.config.max_position_embeddings, [], 1
    while done < len(ids):
        start = max(0, done - limit // 2) if len(ids) > limit else 0
        piece = torch.tensor(ids[start : start + limit], device=base.device)
        hidden = base.base_model(piece[None], use_cache=False).last_hidden_state[0, done - 1 - start : -1]
        for rows, targets in zip(hidden.split(_ROWS), piece[done - start :].split(_ROWS), strict=True):
            logits = base.get_output_embeddings()(rows).float()
            found.append(-F.cross_entropy(logits, targets, reduction="none").double().cpu())
        done = start + len(piece)
    return torch.cat(found)


def story_scores(
    model: StoryModel,
    stories: Sequence[Sequence[GivenPage]],
    lengths: Sequence[int],
    policy: str,
    batch_size: int = 4,
    callback_on_page: Callable[[], Any] = lambda: None,
) -> tuple[list[list[Score]], list[Tensor]]:
    """How probable a story model finds given captions, and the features that it regresses where none are given.

    Where every page has features, nothing is regressed, many pages are read in a pass, and the features that come back
    are those that were given.

    Args:
        model: The model.
        stories: The pages, all with a caption; those without features are drawn by the model.
        lengths: Pages that each story would have if it went on, which its labels count down.
        policy: Cache policy.
        batch_size: Stories that are read together.
        callback_on_page: Called for each page.

    Returns:
        Page by page the scores of each story, and its features, `[P, F, Df]`.
    """
    scores: list[list[Score]] = [[] for _ in stories]
    features: list[list[Tensor]] = [[] for _ in stories]
    kept = CachePolicy(name=policy)
    if not kept.recomputes and all(page.features is not None for story in stories for page in story):
        starts = [StoryRequest(story, length) for story, length in zip(stories, lengths, strict=True)]
        for first in range(0, len(stories), batch_size):
            scores[first : first + batch_size] = score_pages(
                model, starts[first : first + batch_size], kept, callback_on_page
            )
        return scores, [
            torch.stack([page.features for page in story if page.features is not None]) for story in stories
        ]
    engine = StoryEngine(model, kept)
    for first in range(0, len(stories), batch_size):
        group = range(first, min(first + batch_size, len(stories)))
        engine.start_batch([StoryRequest(stories[n], lengths[n]) for n in group], score=True)
        left = sum(len(stories[n]) for n in group)
        for draft in engine.pages():
            story = first + draft.story
            if draft.index >= len(stories[story]):
                continue
            assert draft.log_likelihood is not None
            scores[story].append((draft.log_likelihood, draft.caption_tokens))
            features[story].append(draft.features.cpu())
            callback_on_page()
            left -= 1
            if not left:
                break
    return scores, [torch.stack(story) for story in features]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
