"""The words of a scene among the language model's own embeddings: what a picture's context embeddings should say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seedstory.resampler import InputResampler
from training.theatre.scene_codes import TABLES, TableWords, mean_rows, spoken_words

SHARPNESS = 20.0  # what a cosine of 1 adds to a word's score


class ContextWords(TableWords):
    """Context embeddings are read as words: each is nearest in direction to the words of its tables.

    The rows of a language model's embedding share a large part, their mean. What a word says is in the rest. So all
    directions are taken from the mean, and an embedding that says its words has the mean in it as every word has.
    The score is a cosine: it does not grow with the embedding, which keeps the norm that the model's words have.

    Args:
        vocabulary: words of each kind of table.
        embedding: of the language model, [V, D].
        tokenizer: of the language model.

    Attributes:
        center: mean row, [D].
        spread: how far a row lies from it, on average.
    """

    def __init__(self, vocabulary: dict[str, list[str]], embedding: Tensor, tokenizer: Any) -> None:
        embedding = embedding.detach().float()
        self.center = embedding.mean(0)
        self.spread = (embedding - self.center).norm(dim=1).mean().item()
        spoken = spoken_words(vocabulary)
        rows = {k: torch.stack([mean_rows(embedding, tokenizer, word) for word in spoken[k]]) for k in spoken}
        super().__init__({kind: F.normalize(some - self.center, dim=1) for kind, some in rows.items()})

    def scores(self, states: Tensor) -> Iterator[Tensor]:
        """Scores of every table's words [P, words], in the order of `TABLES`."""
        return super().scores(SHARPNESS * F.normalize(self._from_center(states), dim=-1))

    def spread_of(self, states: Tensor) -> float:
        """How far context embeddings [P, N, D] lie from the mean row, where the model's own rows lie at 1."""
        return self._from_center(states).norm(dim=-1).mean().item() / self.spread

    def alignment(self, states: Tensor, indices: Tensor) -> float:
        """Mean cosine of context embeddings [P, N, D] with the sum of the words that each should say."""
        wanted = torch.zeros_like(states, dtype=torch.float32)
        for column, table in enumerate(TABLES):
            wanted[:, table.query] += self.rows[table.kind].to(states.device)[indices[:, column]]
        return F.cosine_similarity(self._from_center(states), wanted, dim=-1).mean().item()

    @torch.no_grad()
    def fit_scale(self, resampler: InputResampler) -> None:
        """Give what a resampler makes the mean and the spread of the model's rows, by its last normalization alone."""
        norm = resampler.out_norm
        norm.weight.mul_(self.spread / norm.weight.norm())
        norm.bias.copy_(self.center)

    def _from_center(self, states: Tensor) -> Tensor:
        self.center = self.center.to(states.device)
        return states.float() - self.center
