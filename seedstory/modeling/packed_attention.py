"""Attention of packed stories without what nobody sees, and of single tokens without a slow kernel.

A packed story is a causal context stream followed by its query branches (`seedstory.layout.collate`). A general mask
makes the fused CPU kernel compute all `T * T` scores, and its backward pass is slow. Here the rows are taken in blocks
and each block stops at its last visible key: about 2.3 times as fast for a ten-page story, a quarter of a training
step. GPUs have `seedstory.modeling.flash_attention` for that. A single token has a short cut of its own on CPUs;
anything else goes to the stock attention.

Shape legend: `B` stories, `Hq` query heads, `H` key heads, `T` tokens, `Dh` width of a head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from seedstory.modeling.flash_attention import Runs, flash_attention

NAME = "seedstory_packed"
_ROWS = 128


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    context_length: int,
    scaling: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Grouped-query attention of a causal context and the branches behind it.

    Args:
        query: `[B, Hq, T, Dh]`.
        key: `[B, H, T, Dh]`.
        value: `[B, H, T, Dh]`.
        mask: True where a row sees a column; no row before `context_length` sees a later column, `[B, 1, T, T]`.
        context_length: Tokens of the context stream.
        scaling: Factor of the scores.
        dropout: Probability of dropping an attention weight.

    Returns:
        `[B, T, Hq, Dh]`.
    """
    heads, length = key.shape[1], query.shape[2]
    query = (query * scaling).unflatten(1, (heads, -1))
    hidden = ~mask.unsqueeze(1)
    edges = [*range(0, context_length, _ROWS), context_length]
    blocks = [(start, stop, stop) for start, stop in zip(edges, edges[1:], strict=False)]
    if length > context_length:
        blocks.append((context_length, length, length))
    out = []
    for start, stop, seen in blocks:
        rows = query[:, :, :, start:stop]
        scores = rows.flatten(2, 3) @ key[:, :, :seen].transpose(2, 3)
        scores = scores.view(*rows.shape[:4], seen).masked_fill(hidden[:, :, :, start:stop, :seen], -torch.inf)
        weights = nn.functional.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0).to(value.dtype)
        out.append((weights.flatten(2, 3) @ value[:, :, :seen]).view(rows.shape))
    return torch.cat(out, dim=3).flatten(1, 2).transpose(1, 2)


def _single(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    # One decoded token. The fused CPU kernel is many times slower with grouped heads (`enable_gqa`) than with the
    # heads of a group given as rows.
    rows = query.unflatten(1, (key.shape[1], -1)).squeeze(3)
    out = nn.functional.scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return out.flatten(1, 2).unsqueeze(1)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_context_length: int | None = None,
    packed_runs: Runs | None = None,
    packed_windows: Sequence[int | None] = (),
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    if packed_runs is None and packed_context_length is None:
        if query.shape[2] == 1 and query.device.type == "cpu":
            return _single(query, key, value, attention_mask, scaling), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if packed_runs is not None:
        layer: Any = module
        window = packed_windows[layer.layer_idx] if packed_windows else None
        return flash_attention(query, key, value, packed_runs, scaling, dropout, window), None
    assert attention_mask is not None and packed_context_length is not None, "a packed story comes with its mask"
    out = packed_attention(query, key, value, attention_mask, packed_context_length, scaling, dropout)
    return out.contiguous(), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
