"""Masks for language models some or all of whose layers see a sliding window only, such as Gemma 3 and Mistral.

transformers takes a mask that it is handed as it is, so the window has to be in it. Distances are those of the
positions: a query branch of a packed story stands at the positions of the context slots behind its `<img>`, and what a
story cache holds of a story stands at consecutive positions, the moved sinks included.

Shape legend: `B` stories, `T` tokens that ask, `K` keys.
"""

from collections.abc import Sequence

import torch
from transformers import Cache


def layer_masks(
    windows: Sequence[int | None],
    mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    cache: Cache | None,
    like: torch.Tensor,
) -> torch.Tensor | dict[str, torch.Tensor] | None:
    """The mask for each type of layer, in the form in which transformers takes it.

    Args:
        windows: Of each layer how many tokens one sees, itself included, or None; see `layer_windows`.
        mask: True where a query sees a key, as a layer without a window sees it, `[B, 1, T, K]`; causal if None.
        position_ids: `[B, T]`; consecutive if None.
        cache: Keys and values of the tokens before.
        like: Embeddings of the tokens that ask, `[B, T, D]`.

    Returns:
        What was given, where no window hides anything; one mask, where all layers have the window; else one for each.
    """
    sizes = [window for window in windows if window is not None]  # all the same
    count, device = like.shape[1], like.device
    keys = mask.shape[-1] if mask is not None else count if cache is None else cache.get_mask_sizes(count, 0)[0]
    if not sizes or keys <= sizes[0]:
        return mask
    if mask is None:
        mask = torch.ones(count, keys, dtype=torch.bool, device=device).tril(keys - count)[None, None]
    if cache is None and position_ids is not None:
        near = position_ids[:, None, None, :] > position_ids[:, None, :, None] - sizes[0]
    else:  # a row of a cache sees all that it holds up to itself, so the number of these says where it stands
        near = torch.arange(keys, device=device) >= mask.sum(-1, keepdim=True) - sizes[0]
    near = mask & near
    return near if len(sizes) == len(windows) else {"full_attention": mask, "sliding_attention": near}
