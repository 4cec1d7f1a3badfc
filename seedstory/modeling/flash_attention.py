"""Attention of packed stories on GPUs by FlashAttention (Dao 2023, arXiv 2307.08691).

A mask would keep the kernel out. But a packed story is a few causal runs of tokens (`seedstory.layout.collate`): the
context, and one branch per page that sees a beginning of it. The kernel for sequences of many lengths takes them all in
one call, each branch behind a copy of the context that it sees. The tokens that a run sees stand at consecutive
positions, so a sliding window is the kernel's own.

The kernel comes from `flash-attn` where that is installed, else from torch (`torch.nn.attention.varlen`).

Shape legend: `B` stories, `Hq` query heads, `H` key heads, `T` tokens, `Dh` width of a head, `R` runs.
"""

import inspect
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from transformers.utils import is_flash_attn_2_available

_WIDEST_HEAD = 256


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


def kernel_of(
    device: torch.device, dtype: torch.dtype, head_dim: int, dropout: float = 0.0
) -> Literal["flash-attn", "torch"] | None:
    """Which library has a kernel for attention of these sizes on this device; None if none has.

    Args:
        device: Where the attention is computed.
        dtype: In which type; there is no kernel for float32.
        head_dim: `Dh`.
        dropout: Probability of dropping an attention weight; torch's kernel drops none.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16) or head_dim > _WIDEST_HEAD:
        return None
    if is_flash_attn_2_available():
        return "flash-attn"
    built = torch.version.hip is None and torch.backends.cuda.is_flash_attention_available()
    new_enough = built and torch.cuda.get_device_capability(device) >= (8, 0)
    return "torch" if new_enough and head_dim % 8 == 0 and not dropout and _torch_has_kernel() else None


@cache
def _torch_has_kernel() -> bool:
    """Whether this torch's kernel takes windows and groups of heads; 2.10 had it without."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"window_size", "enable_gqa", "scale"} <= inspect.signature(varlen_attn).parameters.keys()


def flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    runs: Runs,
    scaling: float,
    dropout: float = 0.0,
    window: int | None = None,
) -> torch.Tensor:
    """Grouped-query attention of the runs of a batch; tokens of no run (padding) get zeros.

    Args:
        query: `[B, Hq, T, Dh]`; float32 is rounded to bfloat16, which is what the kernel takes.
        key: `[B, H, T, Dh]`.
        value: `[B, H, T, Dh]`.
        runs: From `find_runs`.
        scaling: Factor of the scores.
        dropout: Probability of dropping an attention weight; `flash-attn` only.
        window: How many tokens one sees, itself included; None for all before.

    Returns:
        `[B, T, Hq, Dh]`.
    """
    tokens = [states.transpose(1, 2) for states in (query, key, value)]
    shape, dtype = tokens[0].shape, query.dtype
    if dtype == torch.float32 and query.is_cuda:
        tokens = [states.to(torch.bfloat16) for states in tokens]
    rows, keys, values = (states.flatten(0, 1) for states in tokens)
    args: tuple[Any, ...] = (
        *(rows[runs.rows], keys[runs.keys], values[runs.keys]),
        *(runs.row_edges, runs.key_edges, runs.most_rows, runs.most_keys),
    )
    before = -1 if window is None else window - 1
    if is_flash_attn_2_available():
        from flash_attn import flash_attn_varlen_func  # CUDA only, hence optional

        seen = flash_attn_varlen_func(
            *args, dropout_p=dropout, softmax_scale=scaling, causal=True, window_size=(before, 0)
        )
    else:
        from torch.nn.attention.varlen import varlen_attn

        assert not dropout, "torch's kernel drops nothing"
        seen = varlen_attn(*args, scale=scaling, window_size=(before, 0), enable_gqa=True)
    return torch.zeros_like(rows).index_copy(0, runs.rows, seen).view(shape).to(dtype)
