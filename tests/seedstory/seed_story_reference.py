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


MODEL = "llm.base_model.model."


def rms_norm(x, weight, eps):
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def rotated(x, traps=()):
    """Rotary positions 0, 1, ... with the halves of a head as pairs: [B, H, L, E]"""
    half = x.shape[-1] // 2

    def turned(one, two):
        return one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()

    angles = torch.arange(x.shape[2])[:, None] / 10000 ** (torch.arange(half) / half)
    if "neighbors as pairs" in traps:
        return torch.stack(turned(x[..., ::2], x[..., 1::2]), -1).flatten(-2)
    return torch.cat(turned(x[..., :half], x[..., half:]), -1)


def language_model(weights, embeds, heads, traps=()):
    """Llama 2 with LoRA beside its weights: embeddings [B, L, W] → hidden states [B, L, W] after the last norm."""
    eps = 1e-6 if "other norm eps" in traps else 1e-5

    def norm(x, name):
        kind = "original_module" if "original norms" in traps else "modules_to_save.default"
        return rms_norm(x, weights[f"{MODEL}model.{name}.{kind}.weight"].float(), eps)

    def project(x, name):
        own = part(weights, f"{MODEL}model.layers.{layer}.{name}.")
        added = x @ own["lora_A.default.weight"].float().T @ own["lora_B.default.weight"].float().T
        scale = 0.0 if "no LoRA" in traps else 1.0 if "LoRA once" in traps else 2.0
        return x @ own["weight"].float().T + scale * added

    x, layer = embeds, 0
    causal = torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1)
    while f"{MODEL}model.layers.{layer}.self_attn.q_proj.weight" in weights:
        h = norm(x, f"layers.{layer}.input_layernorm")
        q, k, v = (heads_apart(project(h, f"self_attn.{name}_proj"), heads) for name in "qkv")
        q, k = rotated(q, traps), rotated(k, traps)
        scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + causal, -1)
        x = x + project((scores @ v).transpose(1, 2).flatten(2), "self_attn.o_proj")
        h = norm(x, f"layers.{layer}.post_attention_layernorm")
        x = x + project(functional.silu(project(h, "mlp.gate_proj")) * project(h, "mlp.up_proj"), "mlp.down_proj")
        layer += 1
    return norm(x, "norm")


class Agent:
    """SEED-Story's `ContinuousLVLM` over weights under their released names.

    Args:
        weights: The agent's.
        heads: Of the language model.
        resampler_heads: Of both resamplers.
        ids: Released ids by name of the image tokens.
    """

    def __init__(self, weights, heads, resampler_heads, ids):
        self.weights, self.heads, self.resampler_heads, self.ids = weights, heads, resampler_heads, ids
        self.start, self.end = ids["<img>"], ids["</img>"]
        self.queries = [ids[name] for name in sorted(ids) if name.startswith("<img_")]

    def embed(self, ids, images=()):
        """Embeddings [1, L, W] of ids, with features [F, Df] of context images in their places."""
        rows = self.weights[f"{MODEL}model.embed_tokens.weight"].float()[torch.tensor(ids)][None].clone()
        starts = [place for place, id in enumerate(ids) if id == self.start]
        for start, features in zip(starts, images):
            own = {name: one.float() for name, one in part(self.weights, "input_resampler.").items()}
            image = cross_attention(own, features[None], self.resampler_heads, 1e-5)
            rows[0, start + 1 : start + 1 + len(self.queries)] = image
        return rows

    def hidden(self, ids, images=(), traps=()):
        return language_model(self.weights, self.embed(ids, images), self.heads, traps)[0]

    def logits(self, hidden):
        return hidden @ self.weights[f"{MODEL}lm_head.weight"].float().T

    def features(self, states):
        """From the states [N, W] at the query tokens: [F, Df]"""
        own = {name: one.float() for name, one in part(self.weights, "output_resampler.").items()}
        return cross_attention(own, states[None], self.resampler_heads, 1e-5)[0]

    def generate(self, prompt, images, most, eos):
        """Greedy ids one by one, and features of the last image among them, or None."""
        ids, states = [], []
        while len(ids) < most and eos not in ids:
            hidden = self.hidden([*prompt, *ids], images)
            scores = self.logits(hidden[-1])
            last = ids[-1] if ids else None
            chain = [self.start, *self.queries, self.end]
            if last in chain[:-1]:
                scores[chain[chain.index(last) + 1]] = scores.max() + 10
            else:
                scores[chain[1:]] = 0.0
            ids.append(int(scores.argmax()))
            states = hidden[len(prompt) :]
        if self.end not in ids:
            return ids, None
        end = len(ids) - 1 - ids[::-1].index(self.end)
        return ids, self.features(states[end - len(self.queries) : end])


def cross_entropy(logits, labels):
    """Mean over the labels that are not -100; position t predicts label t + 1."""
    picked = [(logits[t], labels[t + 1]) for t in range(len(labels) - 1) if labels[t + 1] != -100]
    return sum(scores.exp().sum().log() - scores[label] for scores, label in picked) / len(picked)


def cosine_loss(predicted, target):
    """One minus the cosine of each feature, mean over all: [..., Df]"""
    lengths = predicted.square().sum(-1).sqrt() * target.square().sum(-1).sqrt()
    return (1 - (predicted * target).sum(-1) / lengths).mean()
