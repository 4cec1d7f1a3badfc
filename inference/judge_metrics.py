"""What the judge finds in the pictures of stories, by range of pages, where it is known what each page should show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.judge import Judge, score
from inference.text_quality import ratio

RANGES = {"2-10": (2, 10), "11-25": (11, 25), "26-50": (26, 50)}
BEYOND = "51-"  # only where there are such pages
# Our names for what `score` says.
MEASURES = {
    "character_accuracy": "species_and_outfit",
    "character_f1": "character_f1",
    "species_accuracy": "species",
    "outfit_accuracy": "outfit",
    "hat_accuracy": "hat",
    "pose_accuracy": "pose",
    "expression_accuracy": "expression",
    "all_five_accuracy": "all",
    "place_accuracy": "place",
}
_OF_PAGES = {"place_accuracy"}  # the others count characters
_WITHOUT_ERROR = {"character_f1"}  # no share, so its parts do not add up to it

Pages = tuple[
    Tensor, Sequence[dict[str, Any] | None]
]  # pictures [P, 3, S, S] in [-1, 1] of a story, and what each should show


@dataclass(frozen=True)
class _JudgedPage:
    """A picture that was judged by itself."""

    story: int
    number: int
    pixels: Tensor
    truth: dict[str, Any]
    found: dict[str, float]

    @property
    def characters(self) -> int:
        return int(self.found["characters"])

    @property
    def agrees(self) -> bool:
        """Whether the image shows everything that the text says."""
        return (not self.characters or self.found["all"] == 1) and self.found.get("place", 1) == 1


def can_judge(judge: Judge, truth: dict[str, Any] | None) -> bool:
    """Whether it is known what a page should show, and the judge knows where to look."""
    if truth is None or truth.get("view", "middle") not in judge.config.get("views", {"middle": []}):
        return False
    return all(actor["slot"] in judge.config.slots for actor in truth["actors"])


def judge_stories(judge: Judge, stories: Sequence[Pages]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Judges the pages after the first; pages of which it is not known what they should show are left out.

    Returns:
        Each of `MEASURES` by range of pages, None where there is nothing to judge; `characters_judged` and
        `pages_judged` by range; `pages_not_judged`; and `text_image_agreement`: `seen`, the share of pages on which
        the judge sees all that the text says (each character's five attributes, and the place), with `error` and
        `pages`. Apart from these the standard errors over stories of `MEASURES`, in the same form.
    """
    judged_pages = [
        _JudgedPage(story, index + 1, pixels[index], truth, score(judge, pixels[index : index + 1], [truth]))
        for story, (pixels, truths) in enumerate(stories)
        for index, truth in enumerate(truths)
        if index and truth is not None and can_judge(judge, truth)
    ]
    spans = RANGES | ({BEYOND: (51, 10**9)} if any(judged.number > 50 for judged in judged_pages) else {})
    inside = {
        span: [judged for judged in judged_pages if low <= judged.number <= high] for span, (low, high) in spans.items()
    }
    right = {
        span: _shares(judge, [judged.pixels for judged in chosen], [judged.truth for judged in chosen])
        for span, chosen in inside.items()
    }
    figures: dict[str, Any] = {name: {span: right[span][name] for span in spans} for name in MEASURES}
    figures["characters_judged"] = {
        span: sum(judged.characters for judged in chosen) for span, chosen in inside.items()
    }
    figures["pages_judged"] = {span: len(chosen) for span, chosen in inside.items()}
    figures["pages_not_judged"] = sum(max(0, len(truths) - 1) for _, truths in stories) - len(judged_pages)
    seen, error = ratio(_by_story(judged_pages, lambda judged: (judged.agrees, 1)))
    figures["text_image_agreement"] = {"seen": seen, "error": error, "pages": len(judged_pages)}
    errors = {
        name: {span: _error(name, inside[span]) for span in spans} for name in MEASURES if name not in _WITHOUT_ERROR
    }
    return figures, errors


def judge_renders(judge: Judge, stories: Sequence[Pages]) -> dict[str, Any]:
    """The judge's figures on the true images after the first ones: `judge_accuracy_on_renders` and all of them."""
    pages = [
        (pixels[index], truth)
        for pixels, truths in stories
        for index, truth in enumerate(truths)
        if index and truth is not None and can_judge(judge, truth)
    ]
    found = _shares(judge, [pixels for pixels, _ in pages], [truth for _, truth in pages])
    return {"judge_accuracy_on_renders": found["character_accuracy"], "judge_on_renders": found}


def _shares(judge: Judge, pixels: Sequence[Tensor], truths: list[dict[str, Any]]) -> dict[str, float | None]:
    """Each of `MEASURES` over pictures; None where there is nothing to judge."""
    if not truths:
        return dict.fromkeys(MEASURES)
    found = score(judge, torch.stack(list(pixels)), truths)
    return {
        name: found.get(key) if found["characters"] or name in _OF_PAGES else None for name, key in MEASURES.items()
    }


def _error(name: str, judged_pages: Sequence[_JudgedPage]) -> float | None:
    if not judged_pages or MEASURES[name] not in judged_pages[0].found:
        return None

    def parts(judged: _JudgedPage) -> tuple[float, float]:
        weight = 1 if name in _OF_PAGES else judged.characters
        return judged.found[MEASURES[name]] * weight, weight

    return ratio(_by_story(judged_pages, parts))[1]


def _by_story(
    judged_pages: Sequence[_JudgedPage], parts: Callable[[_JudgedPage], tuple[float, float]]
) -> list[tuple[float, float]]:
    """Two numbers of each judged page, summed over the pages of each story."""
    sums: dict[int, tuple[float, float]] = {}
    for judged in judged_pages:
        (above, below), before = parts(judged), sums.get(judged.story, (0, 0))
        sums[judged.story] = (before[0] + above, before[1] + below)
    return list(sums.values())
