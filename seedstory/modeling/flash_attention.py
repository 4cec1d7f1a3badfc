"""Attention of packed stories on GPUs by FlashAttention (Dao 2023, arXiv 2307.08691), where `flash-attn` is installed.

A mask would keep the kernel out. But a packed story is a few causal runs of tokens (`seedstory.layout.collate`): the
context, and one branch per page that sees a beginning of it. The kernel for sequences of many lengths takes them all in
one call, each branch behind a copy of the context that it sees.

Shape legend: `B` stories, `Hq` query heads, `H` key heads, `T` tokens, `Dh` width of a head, `R` runs.
"""

from typing import NamedTuple

import torch
from transformers.utils import is_flash_attn_2_available


class Runs(NamedTuple):
    """Where the runs of a batch lie among its `B * T` tokens.

    Attributes:
        rows: Tokens that ask, run after run.
        keys: Tokens that each run sees, run after run; the last ones are its own.
        row_edges: Where the runs begin and end in `rows`, int32, `[R + 1]`.
        key_edges: The same of `keys`.
        most_rows: Length of the longest run.
        most_keys: Most tokens that a run sees.
    """

    rows: torch.Tensor
    keys: torch.Tensor
    row_edges: torch.Tensor
    key_edges: torch.Tensor
    most_rows: int
    most_keys: int


def find_runs(spans: torch.Tensor, length: int) -> Runs:
    """Prepare a batch for `flash_attention`, once for all layers.

    Args:
        spans: From `seedstory.layout.collate`, `[R, 4]`.
        length: `T`.

    Returns:
        The runs, on the device of `spans`.
    """
    rows, keys = [], []
    for story, start, stop, seen in spans.tolist():
        first, own = story * length, torch.arange(start, stop)
        rows.append(first + own)
        keys.append(first + torch.cat([torch.arange(seen), own]))
    sizes = [torch.tensor([0, *map(len, parts)]) for parts in (rows, keys)]
    row_edges, key_edges = (size.cumsum(0, dtype=torch.int32).to(spans.device) for size in sizes)
    most_rows, most_keys = (int(size.max()) for size in sizes)
    return Runs(
        torch.cat(rows).to(spans.device), torch.cat(keys).to(spans.device), row_edges, key_edges, most_rows, most_keys
    )


def can_flash(embeds: torch.Tensor) -> bool:
    """Whether this device and these libraries have FlashAttention."""
    return embeds.is_cuda and is_flash_attn_2_available()


def flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    runs: Runs,
    scaling: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Grouped-query attention of the runs of a batch; tokens of no run (padding) get zeros.

    Args:
        query: `[B, Hq, T, Dh]`; float32 is rounded to bfloat16, which is what the kernel takes.
        key: `[B, H, T, Dh]`.
        value: `[B, H, T, Dh]`.
        runs: From `find_runs`.
        scaling: Factor of the scores.
        dropout: Probability of dropping an attention weight.

    Returns:
        `[B, T, Hq, Dh]`.
    """
    from flash_attn import flash_attn_varlen_func  # CUDA only, hence optional

    tokens = [states.transpose(1, 2) for states in (query, key, value)]
    shape, dtype = tokens[0].shape, query.dtype
    if dtype == torch.float32 and query.is_cuda:
        tokens = [states.to(torch.bfloat16) for states in tokens]
    rows, keys, values = (states.flatten(0, 1) for states in tokens)
    seen = flash_attn_varlen_func(
        rows[runs.rows],
        keys[runs.keys],
        values[runs.keys],
        cu_seqlens_q=runs.row_edges,
        cu_seqlens_k=runs.key_edges,
        max_seqlen_q=runs.most_rows,
        max_seqlen_k=runs.most_keys,
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=True,
    )
    return torch.zeros_like(rows).index_copy(0, runs.rows, seen).view(shape).to(dtype)
