"""What writing a story and scoring one do alike: read tokens into the cache, and score a caption.

Shape legend: `T` tokens, `D` hidden width.
"""

from collections.abc import Sequence

import torch

from seedstory.cache import StoryCache
from seedstory.generation.decoding import Cast
from seedstory.modeling import StoryModel


def embed_ids(model: StoryModel, ids: Sequence[int]) -> torch.Tensor:
    """Embeddings of ids, `[T, D]`."""
    return model.embed_tokens(torch.tensor(ids, dtype=torch.long, device=model.device))


def forward_rows(
    model: StoryModel, cache: StoryCache, cast: Cast, pieces: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Hidden states of each row's next tokens, which enter the cache: `[T, D]` each → `[T, D]` each.

    Rows of which nothing is read stay as they are.
    """
    counts = [len(piece) for piece in pieces] + [0] * (len(cache.rows) - len(pieces))
    longest, device = max(counts), pieces[0].device
    embeds = pieces[0].new_zeros(len(counts), longest, pieces[0].shape[-1])
    for row, piece in enumerate(pieces):
        embeds[row, : len(piece)] = piece
    positions, mask = cache.position_ids(longest, device), cache.causal_mask(longest, device)
    hidden = cast(model.hidden_states, embeds, positions, mask, cache)
    cache.drop_last([longest - count for count in counts])
    return [part[:count] for part, count in zip(hidden, counts, strict=True)]


def caption_log_likelihood(
    model: StoryModel, cast: Cast, before: torch.Tensor, hidden: torch.Tensor, ids: Sequence[int]
) -> float:
    """Log-probability of a caption and its `<img>`.

    Args:
        model: The model.
        cast: As `autocast` gives it.
        before: Hidden state of the token before the caption, `[D]`.
        hidden: Hidden states of its own tokens and perhaps of more, `[T, D]`.
        ids: Its tokens.
    """
    logits = cast(model.caption_logits, torch.cat([before[None], hidden[: len(ids)]])).float()
    image_start = model.config.image_start_id
    targets = torch.tensor([*ids, image_start], device=logits.device)
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
