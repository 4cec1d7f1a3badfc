"""SEED-Story's networks written a second time, in plain PyTorch, from their description and under their released keys.

Nothing here is optimized and nothing of the library is used. Each function takes a state dict with released keys, and
`traps`: what a reader of the description may get wrong, wrong on purpose. Right is: none.

Shapes: B batch, L tokens, W width, H heads, E width of a head.
"""

import math

import torch
from torch.nn import functional


def layer_norm(x, weights, name, eps):
    return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def linear(x, weights, name):
    return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def part(weights, prefix):
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def heads_apart(x, heads):
    """[B, L, W] → [B, H, L, E]"""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def attend(q, k, v):
    """Softmax attention with everything written out; q is scaled already. [B, H, L, E] → [B, L, W]"""
    out = torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
    return out.transpose(1, 2).flatten(2)


def resized(table, tokens, traps=()):
    """A table of positions on its square grid, for `tokens` on theirs."""
    own, side = math.isqrt(len(table)), math.isqrt(tokens)
    if own == side:
        return table
    grid = table.view(own, own, -1).permute(2, 0, 1)[None]
    grid = grid.to(torch.bfloat16) if "interpolate in bf16" in traps else grid.float()
    grid = functional.interpolate(
        grid,
        (side, side),
        mode="bilinear" if "bilinear positions" in traps else "bicubic",
        align_corners="aligned corners" in traps,
        antialias="antialiased positions" in traps,
    )
    return grid[0].permute(1, 2, 0).reshape(tokens, -1).to(table.dtype)


def cross_attention(weights, x, heads, eps, traps=()):
    """The cross-attention resampler: [B, L, Df] → [B, Q, W]."""
    if "other resampler eps" in traps:
        eps = 1e-5 if eps == 1e-6 else 1e-6
    pos_q = weights["pos_embed"]
    pos_k = resized(pos_q, x.shape[1], traps)
    if "kv_proj.weight" in weights:
        x = linear(x, weights, "kv_proj")
    kv = layer_norm(x, weights, "ln_kv", eps)
    q = layer_norm(weights["query"], weights, "ln_q", eps).expand(len(x), -1, -1)
    query, key, value = q + pos_q, kv + pos_k, kv
    if "value with positions" in traps:
        value = kv + pos_k
    if "key without positions" in traps:
        key = kv
    if "query without positions" in traps:
        query = q
    w, b = weights["attn.in_proj_weight"].chunk(3), weights["attn.in_proj_bias"].chunk(3)
    query, key, value = (
        heads_apart(functional.linear(one, w[i], b[i]), heads) for i, one in enumerate((query, key, value))
    )
    out = linear(attend(query / math.sqrt(query.shape[-1]), key, value), weights, "attn.out_proj")
    return q + out if "residual" in traps else out


def vision_tower(weights, pixels, heads, pool_heads, traps=()):
    """Qwen-VL's ViT and its attention pool: normalized pixels [B, 3, S, S] → [B, F, D]."""
    eps = {name: 1e-5 if f"eps of {name}" in traps else 1e-6 for name in ("ln_pre", "ln_1", "ln_2", "ln_post")}
    kernel = weights["conv1.weight"]
    x = functional.conv2d(pixels, kernel, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    x = x + resized(weights["positional_embedding"], x.shape[1], traps)
    x = layer_norm(x, weights, "ln_pre", eps["ln_pre"])
    block = 0
    while f"transformer.resblocks.{block}.ln_1.weight" in weights:
        own = part(weights, f"transformer.resblocks.{block}.")
        qkv = linear(layer_norm(x, own, "ln_1", eps["ln_1"]), own, "attn.in_proj")
        batch, length, width = x.shape
        if "ungrouped in_proj" in traps:
            q, k, v = qkv.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = qkv.view(batch, length, heads, -1).split(width // heads, dim=-1)
            q, k, v = (one.transpose(1, 2) for one in (q, k, v))
        scale = 1 if "unscaled q" in traps else math.sqrt(width // heads)
        x = x + linear(attend(q / scale, k, v), own, "attn.out_proj")
        hidden = linear(layer_norm(x, own, "ln_2", eps["ln_2"]), own, "mlp.c_fc")
        hidden = hidden * torch.sigmoid(1.702 * hidden) if "quick GELU" in traps else functional.gelu(hidden)
        x = x + linear(hidden, own, "mlp.c_proj")
        block += 1
    x = cross_attention(part(weights, "attn_pool."), x, pool_heads, 1e-6, traps)
    x = layer_norm(x, weights, "ln_post", eps["ln_post"])
    proj = weights["proj"]
    return x @ (proj.T if "transposed proj" in traps else proj)


def sdxl_resampler(weights, x, heads, traps=()):
    """`ResamplerXLV2`: features [B, F, Df] → prompt embeddings [B, Q, C] and a pooled embedding [B, P]."""
    if "not normalized" not in traps:
        x = functional.normalize(x, dim=2 if "normalized per token" in traps else 1)
    x = linear(x, weights, "proj_in")
    latents = weights["latents"].expand(len(x), -1, -1)
    layer = 0
    while f"layers.{layer}.0.to_q.weight" in weights:
        own = part(weights, f"layers.{layer}.0.")
        image, queries = layer_norm(x, own, "norm1", 1e-5), layer_norm(latents, own, "norm2", 1e-5)
        q = heads_apart(linear(queries, own, "to_q"), heads)
        source = image if "latents not in the source" in traps else torch.cat([image, queries], 1)
        k, v = linear(source, own, "to_kv").chunk(2, dim=-1)
        if "v before k" in traps:
            k, v = v, k
        k, v = heads_apart(k, heads), heads_apart(v, heads)
        s = q.shape[-1] ** -0.25
        latents = latents + linear(attend(q * s * s, k, v), own, "to_out")
        own = part(weights, f"layers.{layer}.1.")
        hidden = linear(layer_norm(latents, own, "0", 1e-5), own, "1")
        latents = latents + linear(functional.gelu(hidden), own, "3")
        layer += 1
    h = layer_norm(latents, weights, "norm_out", 1e-5)
    projected = [linear(h, weights, "unet_proj_1"), linear(h, weights, "unet_proj_2")]
    if "768 and 1280 swapped" in traps:
        projected.reverse()
    return torch.cat(projected, -1), attention_pool(part(weights, "unet_attnpool."), h, heads, traps)


def attention_pool(weights, h, heads, traps=()):
    """CLIP's attention pool: [B, Q, W] → [B, P]."""
    first = h[:, :1] if "no mean token" in traps else h.mean(1, keepdim=True)
    tokens = torch.cat([first, h], 1)
    if "pool without positions" not in traps:
        tokens = tokens + weights["positional_embedding"]
    q, k, v = (heads_apart(linear(tokens, weights, f"{name}_proj"), heads) for name in "qkv")
    out = linear(attend(q / math.sqrt(q.shape[-1]), k, v), weights, "c_proj")
    return out.mean(1) if "mean of the pool" in traps else out[:, 0]
