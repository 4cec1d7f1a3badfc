"""Tokens that a base language model has no rows for: the image tokens, and some special ones of its tokenizer.

Shape legend: `D` hidden width, `V` tokens that a caption may hold.
"""

import torch
from torch.nn import functional

from seedstory.errors import ModelError
from seedstory.layout import StoryLayout

NEVER = -1e4  # score of a token that cannot be written; finite, since guidance subtracts scores
MOST_TOKENS_WITHOUT_EMBEDDING = 1_024


def check_tokenizer(layout: StoryLayout, vocab_size: int) -> None:
    """Refuse a tokenizer that has tokens for text for which the language model has no embeddings.

    Special tokens may lack them, such as Gemma 3's for images in its models of text: captions never hold any.
    """
    ids = set(range(vocab_size, layout.image_start_id))
    if len(ids) > MOST_TOKENS_WITHOUT_EMBEDDING or not ids <= layout.special_ids:
        raise ModelError(
            f"The tokenizer has {layout.image_start_id:,} tokens, but the base LM has embeddings for {vocab_size:,}: "
            "give the tokenizer that belongs to it."
        )


def new_rows(embedding: torch.Tensor, count: int) -> torch.Tensor:
    """Rows for `count` new tokens, drawn like the old ones (mean and spread of each channel), `[count, D]`."""
    return embedding.mean(0) + embedding.std(0) * torch.randn(count, embedding.shape[1])


def with_missing_scores(logits: torch.Tensor, count: int) -> torch.Tensor:
    """Scores of `count` tokens, of which the last may have no rows: `[..., <= count]` → `[..., count]`."""
    missing = count - logits.shape[-1]
    return functional.pad(logits, (0, missing), value=NEVER) if missing > 0 else logits
