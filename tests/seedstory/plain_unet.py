"""One step of Stable Diffusion XL's U-Net written out from its published structure, over weights by diffusers' names.

Sizes are those of `tests.tiny_sdxl`: 8 groups in a norm, heads of 16. Shapes: B batch, C channels, L tokens, W width.
"""

import math

import torch
from torch.nn import functional

from tests.seedstory.seed_story_reference import attend, heads_apart, layer_norm, linear, part

GROUPS, HEAD = 8, 16
TRAPS = ("sine first", "time ids before text", "crop ids swapped", "gate before value", "skips before")


def code(values, width, traps=()):
    """Cosines and sines of numbers: [N] → [N, W]"""
    angles = values.float()[:, None] * 10000 ** (-torch.arange(width // 2) / (width // 2))
    parts = [angles.cos(), angles.sin()]
    return torch.cat(parts[::-1] if "sine first" in traps else parts, 1)


def embedded(x, weights, name):
    own = part(weights, f"{name}.")
    return linear(functional.silu(linear(x, own, "linear_1")), own, "linear_2")


def group_norm(x, weights, name, eps=1e-5):
    return functional.group_norm(x, GROUPS, weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def convolved(x, weights, name, stride=1):
    kernel = weights[f"{name}.weight"]
    return functional.conv2d(x, kernel, weights[f"{name}.bias"], stride, padding=kernel.shape[-1] // 2)


def resnet(x, weights, emb):
    h = convolved(functional.silu(group_norm(x, weights, "norm1")), weights, "conv1")
    h = h + linear(functional.silu(emb), weights, "time_emb_proj")[:, :, None, None]
    h = convolved(functional.silu(group_norm(h, weights, "norm2")), weights, "conv2")
    return h + (convolved(x, weights, "conv_shortcut") if "conv_shortcut.weight" in weights else x)


def attention(x, source, weights):
    heads = x.shape[-1] // HEAD
    q, k, v = (heads_apart(linear(one, weights, f"to_{name}"), heads) for name, one in zip("qkv", (x, source, source)))
    return linear(attend(q / math.sqrt(HEAD), k, v), weights, "to_out.0")


def transformer(x, weights, context, traps=()):
    height, width = x.shape[2:]
    h = linear(group_norm(x, weights, "norm", 1e-6).flatten(2).transpose(1, 2), weights, "proj_in")
    block = 0
    while f"transformer_blocks.{block}.norm1.weight" in weights:
        own = part(weights, f"transformer_blocks.{block}.")
        normed = layer_norm(h, own, "norm1", 1e-5)
        h = h + attention(normed, normed, part(own, "attn1."))
        h = h + attention(layer_norm(h, own, "norm2", 1e-5), context, part(own, "attn2."))
        value, gate = linear(layer_norm(h, own, "norm3", 1e-5), own, "ff.net.0.proj").chunk(2, -1)
        if "gate before value" in traps:
            value, gate = gate, value
        h = h + linear(value * functional.gelu(gate), own, "ff.net.2")
        block += 1
    return x + linear(h, weights, "proj_out").transpose(1, 2).unflatten(2, (height, width))


def predict(weights, latents, time, context, pooled, picture, traps=()):
    """The noise in latents [B, Z, h, w].

    Args:
        weights: Of the whole U-Net.
        latents: Noisy ones.
        time: From 0 to 999.
        context: [B, L, W].
        pooled: [B, P].
        picture: `height` and `width` that it had, `top` and `left` of what was cut out, and `size` that this has now.
        traps: What to do wrong on purpose.
    """
    crop = [picture["top"], picture["left"]]
    if "crop ids swapped" in traps:
        crop.reverse()
    ids = torch.tensor([picture["height"], picture["width"], *crop, picture["size"], picture["size"]])
    count = len(latents)
    told = code(ids, 8, traps).flatten().expand(count, -1)
    added = [told, pooled] if "time ids before text" in traps else [pooled, told]
    first = weights["conv_in.weight"].shape[0]
    emb = embedded(code(torch.full((count,), time), first, traps), weights, "time_embedding")
    emb = emb + embedded(torch.cat(added, 1), weights, "add_embedding")

    def step(h, own, number):
        h = resnet(h, part(own, f"resnets.{number}."), emb)
        attending = part(own, f"attentions.{number}.")
        return transformer(h, attending, context, traps) if attending else h

    h = convolved(latents, weights, "conv_in")
    skips, block = [h], 0
    while own := part(weights, f"down_blocks.{block}."):
        number = 0
        while f"resnets.{number}.norm1.weight" in own:
            h = step(h, own, number)
            skips.append(h)
            number += 1
        if "downsamplers.0.conv.weight" in own:
            h = convolved(h, own, "downsamplers.0.conv", stride=2)
            skips.append(h)
        block += 1
    own = part(weights, "mid_block.")
    h = resnet(step(h, own, 0), part(own, "resnets.1."), emb)
    block = 0
    while own := part(weights, f"up_blocks.{block}."):
        number = 0
        while f"resnets.{number}.norm1.weight" in own:
            skip = skips.pop()
            both = [skip, h] if "skips before" in traps else [h, skip]
            h = step(torch.cat(both, 1), own, number)
            number += 1
        if "upsamplers.0.conv.weight" in own:
            h = convolved(functional.interpolate(h, scale_factor=2.0, mode="nearest"), own, "upsamplers.0.conv")
        block += 1
    return convolved(functional.silu(group_norm(h, weights, "conv_norm_out")), weights, "conv_out")
