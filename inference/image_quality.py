"""How good the pictures of stories are: Fréchet distance, consistency, and agreement with the words.

All of it is measured on *features*, those of the model's own vision tower, never on Inception's, so none of these
figures can be held against a published FID; between models with one and the same vision tower they can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seedstory.modeling.vision_tower import VisionTower

Box = Sequence[float]  # x0, y0, x1, y1 in units of the picture's side
Appearance = tuple[int, str, int, Tensor]  # story, who, page, features [D]

FRECHET_FEATURES = "seedstory vision tower, mean-pooled"
CONSISTENCY_FEATURES = {
    "characters": "seedstory vision tower, mean over the tokens of the character's slot",
    "pictures": "seedstory vision tower, mean-pooled",
}
RETRIEVAL_FEATURES = "story model's features regressed from the captions, against the vision tower's of the pictures"
_BATCH = 16


@torch.inference_mode()
def tower_features(tower: VisionTower, pixels: Tensor) -> Tensor:
    """What the vision tower sees in pictures: `[B, 3, S, S]` in [-1, 1] → `[B, F, D]`."""
    batches = pixels.to(tower.device, tower.dtype).split(_BATCH)
    return torch.cat([tower(batch).float().cpu() for batch in batches])


def frechet_distance(one: Tensor, other: Tensor) -> float | None:
    """Fréchet distance between the Gaussians of the same mean and covariance as two sets of vectors, `[N, D]`.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½), in float64 (Dowson and Landau 1982; Heusel et al. 2017, arXiv
    1706.08500, equation 6). With fewer vectors than `D` the covariances are singular and the distance is too large:
    compare sets of one size only. None if a set has fewer than two vectors.
    """
    if min(len(one), len(other)) < 2:
        return None
    (mean1, cov1), (mean2, cov2) = (
        (x.mean(0), torch.atleast_2d(torch.cov(x.T))) for x in (one.double(), other.double())
    )
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return max(distance.item(), 0.0)


def slot_features(features: Tensor, box: Box) -> Tensor:
    """Mean of a picture's tokens `[F, D]` whose center lies in a box of the picture (or of the nearest one), `[D]`."""
    side = round(len(features) ** 0.5)
    centers = (torch.arange(side) + 0.5) / side
    across = (centers >= box[0]) & (centers < box[2])
    down = (centers >= box[1]) & (centers < box[3])
    if not across.any():
        across[(centers - (box[0] + box[2]) / 2).abs().argmin()] = True
    if not down.any():
        down[(centers - (box[1] + box[3]) / 2).abs().argmin()] = True
    return features[(down[:, None] & across[None]).flatten()].mean(0)


def character_appearances(
    features: Sequence[Tensor], truths: Sequence[Sequence[dict[str, Any] | None]], slots: Mapping[str, Box]
) -> list[Appearance]:
    """Every character of every page whose slot is known, by name.

    Args:
        features: Of each story, `[P, F, D]`.
        truths: Of each of its pages, or None.
        slots: The box of each slot.
    """
    return [
        (story, actor["name"], page, slot_features(features[story][page], slots[actor["slot"]]))
        for story, pages in enumerate(truths)
        for page, truth in enumerate(pages)
        for actor in (truth or {}).get("actors", [])
        if actor["slot"] in slots
    ]


def image_appearances(features: Sequence[Tensor]) -> list[Appearance]:
    """Every whole picture, as if a story were one character."""
    return [
        (story, "", page, tokens.mean(0)) for story, pages in enumerate(features) for page, tokens in enumerate(pages)
    ]


def consistency(appearances: Sequence[Appearance]) -> dict[str, Any]:
    """How similar one character is across the pages of its story, and how different from those of other stories.

    Returns:
        `same` and `different`, the mean cosine of a pair of looks of one character on two pages of a story and of a
        pair from two stories, after the mean of all looks was taken off; `separation`, how often a pair of the first
        kind is more alike than one of the second (0.5 is chance, ties count half); and `pairs` of the first kind.
        What cannot be measured is None: `different` and what hangs on it of a single story.
    """
    figures: dict[str, Any] = {"same": None, "different": None, "separation": None, "pairs": 0}
    if not appearances:
        return figures
    vectors = torch.stack([appearance[3] for appearance in appearances]).double()
    vectors = F.normalize(vectors - vectors.mean(0), dim=1)
    people = sorted({appearance[:2] for appearance in appearances})
    story = torch.tensor([appearance[0] for appearance in appearances])
    who = torch.tensor([people.index(appearance[:2]) for appearance in appearances])
    page = torch.tensor([appearance[2] for appearance in appearances])
    alike = vectors @ vectors.T
    above = torch.ones_like(alike, dtype=torch.bool).triu(1)
    same = alike[above & (who[:, None] == who) & (page[:, None] != page)]
    different = alike[above & (story[:, None] != story)].sort().values
    figures["pairs"] = len(same)
    if len(same) and len(story.unique()) > 1:
        below, upto = (torch.searchsorted(different, same, right=right).double() for right in (False, True))
        figures["separation"] = ((below + upto) / (2 * len(different))).mean().item()
        figures["different"] = different.mean().item()
    if len(same):
        figures["same"] = same.mean().item()
    return figures


def retrieval(regressed: Sequence[Tensor], seen: Sequence[Tensor]) -> dict[str, Any]:
    """Whether the features that a story model regresses from a page's words are those of the page's own picture.

    For each page, the pictures of its story are ranked by the cosine between their features (as one long vector) and
    the regressed ones. A model that is asked about pictures drawn from these very features says little about the
    words and much about its de-tokenizer.

    Args:
        regressed: Of each story, `[P, F, D]`.
        seen: Of the pictures of each story, `[P, F, D]`.

    Returns:
        `found`, how often the page's own picture comes first; `chance`, how often it would by drawing lots; `matched`
        and `mismatched`, the mean cosine with the own picture and with the others; and `pages`. None without pages.
    """
    found, chance, matched, mismatched = [], [], [], []
    for asked, images in zip(regressed, seen, strict=True):
        if len(asked) < 2:
            continue
        alike = F.normalize(asked.flatten(1).double(), dim=1) @ F.normalize(images.flatten(1).double(), dim=1).T
        own = torch.eye(len(alike), dtype=torch.bool)
        found += (alike.argmax(1) == torch.arange(len(alike))).tolist()
        chance += [1 / len(alike)] * len(alike)
        matched += alike[own].tolist()
        mismatched += alike[~own].tolist()
    lists = {"found": found, "chance": chance, "matched": matched, "mismatched": mismatched}
    return {name: sum(values) / len(values) if values else None for name, values in lists.items()} | {
        "pages": len(found)
    }
