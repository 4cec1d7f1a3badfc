"""An attention processor for de-tokenizers: keys and values of a constant condition once a picture, fused projections.

A U-Net reads its condition through cross-attention in every block and at every step, and the condition is the same at
all of them. So its keys and values are computed at the first step and kept for the others. They are kept in a
dictionary that belongs to one call, which the U-Net hands on as `cross_attention_kwargs`: nothing grows old when
weights change between calls, two threads may draw at once, and the memory is free when the call ends.

Shapes: B batch, T tokens of the latents, N tokens of the condition, D width, H heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from seedstory.errors import ModelError

ContextCache = dict[Attention, tuple[Tensor, Tensor]]
"""Keys and values [B, H, N, d] of one condition, by the attention that reads them."""


class ContextAttnProcessor:
    """Scaled dot-product attention of a transformer block, as `AttnProcessor2_0` computes it.

    Keys and values of a condition come from the cache that is handed in. Queries, keys and values of self-attention
    come from one product where the attention's projections are fused.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        context_cache: ContextCache | None = None,
    ) -> Tensor:
        """Map hidden states [B, T, D] to [B, T, D]."""
        if attention_mask is not None:
            return AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if encoder_hidden_states is None and attn.fused_projections:
            query, key, value = (_by_head(attn, part) for part in attn.to_qkv(hidden_states).chunk(3, -1))
        else:
            query = _by_head(attn, attn.to_q(hidden_states))
            if encoder_hidden_states is None or context_cache is None:
                key, value = _keys_values(
                    attn, hidden_states if encoder_hidden_states is None else encoder_hidden_states
                )
            else:
                if attn not in context_cache:
                    context_cache[attn] = _keys_values(attn, encoder_hidden_states)
                key, value = context_cache[attn]
        read = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](read))


def _keys_values(attn: Attention, source: Tensor) -> tuple[Tensor, Tensor]:
    return _by_head(attn, attn.to_k(source)), _by_head(attn, attn.to_v(source))


def _by_head(attn: Attention, projected: Tensor) -> Tensor:
    return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def plain_attentions(unet: UNet2DConditionModel) -> Iterator[Attention]:
    """The attentions of a U-Net's transformer blocks that diffusers' own processor, or ours, computes.

    Attentions of any other kind, such as those of an image prompt, stay as they are.
    """
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            for attn in (block.attn1, block.attn2):
                plain = attn is not None and not (attn.norm_cross or attn.norm_q or attn.norm_k or attn.group_norm)
                if plain and isinstance(attn.processor, AttnProcessor2_0 | ContextAttnProcessor):
                    yield attn


def set_processors(unet: UNet2DConditionModel, processor: Any) -> None:
    """Give all plain attentions of a U-Net this processor.

    Raises:
        ModelError: It has none.
    """
    attentions = list(plain_attentions(unet))
    if not attentions:
        raise ModelError("this de-tokenizer has no plain attention: its keys and values can be neither kept nor fused")
    for attn in attentions:
        attn.set_processor(processor)


@torch.no_grad()
def fuse_projections(unet: UNet2DConditionModel) -> None:
    """Let one product give queries, keys and values of each self-attention; without a copy of the weights."""
    for attn in plain_attentions(unet):
        if not attn.is_cross_attention and not attn.fused_projections:
            attn.fuse_projections()
    tie_projections(unet)


def unfuse_projections(unet: UNet2DConditionModel) -> None:
    """Take back `fuse_projections`; the weights are bit by bit as they were."""
    for attn in plain_attentions(unet):
        if attn.fused_projections:
            for _, linear in _projections(attn):
                for parameter in linear.parameters(recurse=False):
                    parameter.data = parameter.data.clone()
            attn.fused_projections = False
            del attn.to_qkv


def tie_projections(unet: UNet2DConditionModel) -> None:
    """Make the separate weights of fused projections views of the fused ones, which a move to a device undoes."""
    for attn in plain_attentions(unet):
        if attn.fused_projections:
            for place, linear in _projections(attn):
                linear.weight.data = attn.to_qkv.weight.data[place]
                if linear.bias is not None:
                    linear.bias.data = attn.to_qkv.bias.data[place]


def _projections(attn: Attention) -> Iterator[tuple[slice, Any]]:
    """Queries, keys and values, each with its rows in the fused weight."""
    width = attn.to_qkv.out_features // 3
    for number, linear in enumerate((attn.to_q, attn.to_k, attn.to_v)):
        yield slice(number * width, (number + 1) * width), linear
