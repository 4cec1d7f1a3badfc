"""Names, shapes and types of all tensors in SEED-Story's released checkpoints, written as rules.

Checked against a list of all 1,792 names that was made from the code and file sizes of the release. Sizes are
arguments, so that tests can make tiny checkpoints by the same rules.
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch

BF16, FP32 = torch.bfloat16, torch.float32


class Spec(NamedTuple):
    shape: tuple[int, ...]
    dtype: torch.dtype = FP32


@dataclass(frozen=True)
class Sizes:
    """The released sizes; `Sizes.tiny()` makes a checkpoint of the same form in a moment."""

    image_size: int = 448
    patch: int = 14
    tower_width: int = 1664
    tower_depth: int = 48
    tower_heads: int = 16
    tower_mlp: int = 8192
    positions: int = 256
    features: int = 256
    feature_dim: int = 4096
    resampler_heads: int = 32
    hidden: int = 4096
    layers: int = 32
    heads: int = 32
    mlp: int = 11008
    vocabulary: int = 32000
    visual_tokens: int = 64
    lora_rank: int = 16
    context_tokens: int = 64
    adapter_width: int = 1024
    adapter_depth: int = 4
    context: tuple[int, int] = (768, 1280)
    pooled: int = 1280

    @classmethod
    def tiny(cls, **changes):
        small = {
            "image_size": 32,
            "patch": 4,
            "tower_width": 16,
            "tower_depth": 2,
            "tower_heads": 2,
            "tower_mlp": 78,
            "positions": 16,
            "features": 16,
            "feature_dim": 24,
            "resampler_heads": 4,
            "hidden": 24,
            "layers": 2,
            "heads": 4,
            "mlp": 48,
            "vocabulary": 32,
            "visual_tokens": 4,
            "lora_rank": 2,
            "context_tokens": 5,
            "adapter_width": 32,
            "adapter_depth": 2,
            "context": (24, 40),
            "pooled": 24,
        }
        assert {field.name for field in fields(cls)} == set(small)
        return cls(**small | changes)


def linear(name, outputs, inputs, dtype=FP32, bias=True):
    table = {f"{name}.weight": Spec((outputs, inputs), dtype)}
    return table | ({f"{name}.bias": Spec((outputs,), dtype)} if bias else {})


def norm(name, width, dtype=FP32):
    return {f"{name}.weight": Spec((width,), dtype), f"{name}.bias": Spec((width,), dtype)}


def prefixed(prefix, table):
    return {f"{prefix}{name}": spec for name, spec in table.items()}


def cross_attention(queries, width, source, dtype):
    table = {"pos_embed": Spec((queries, width), BF16), "query": Spec((queries, width), dtype)}
    table |= {} if source == width else linear("kv_proj", width, source, dtype, bias=False)
    table |= {"attn.in_proj_weight": Spec((3 * width, width), dtype), "attn.in_proj_bias": Spec((3 * width,), dtype)}
    table |= linear("attn.out_proj", width, width, dtype)
    return table | norm("ln_q", width, dtype) | norm("ln_kv", width, dtype)


def vision_tower(s=Sizes()):
    w = s.tower_width
    table = {
        "positional_embedding": Spec((s.positions, w), BF16),
        "proj": Spec((s.feature_dim, s.feature_dim), BF16),
        "conv1.weight": Spec((w, 3, s.patch, s.patch), BF16),
    }
    table |= norm("ln_pre", w, BF16) | norm("ln_post", s.feature_dim, BF16)
    for layer in range(s.tower_depth):
        block = norm("ln_1", w, BF16) | norm("ln_2", w, BF16)
        block |= linear("attn.in_proj", 3 * w, w, BF16) | linear("attn.out_proj", w, w, BF16)
        block |= linear("mlp.c_fc", s.tower_mlp, w, BF16) | linear("mlp.c_proj", w, s.tower_mlp, BF16)
        table |= prefixed(f"transformer.resblocks.{layer}.", block)
    return table | prefixed("attn_pool.", cross_attention(s.features, s.feature_dim, w, BF16))


def agent(s=Sizes()):
    h, vocabulary = s.hidden, s.vocabulary + s.visual_tokens + 2
    model = {"embed_tokens.weight": Spec((vocabulary, h))}
    shapes = {f"self_attn.{name}_proj": (h, h) for name in "qkvo"}
    shapes |= {"mlp.gate_proj": (s.mlp, h), "mlp.up_proj": (s.mlp, h), "mlp.down_proj": (h, s.mlp)}
    for layer in range(s.layers):
        own = {"self_attn.rotary_emb.inv_freq": Spec((h // s.heads // 2,))}
        for name, (outputs, inputs) in shapes.items():
            own[f"{name}.weight"] = Spec((outputs, inputs), BF16)
            own[f"{name}.lora_A.default.weight"] = Spec((s.lora_rank, inputs))
            own[f"{name}.lora_B.default.weight"] = Spec((outputs, s.lora_rank))
        for name in ("input_layernorm", "post_attention_layernorm"):
            own |= trained_norm(name, h)
        model |= prefixed(f"layers.{layer}.", own)
    table = prefixed("model.", model | trained_norm("norm", h)) | {"lm_head.weight": Spec((vocabulary, h))}
    table = prefixed("llm.base_model.model.", table)
    table |= prefixed("input_resampler.", cross_attention(s.visual_tokens, h, s.feature_dim, FP32))
    return table | prefixed("output_resampler.", cross_attention(s.features, s.feature_dim, h, FP32))


def trained_norm(name, width):
    return {
        f"{name}.original_module.weight": Spec((width,), BF16),
        f"{name}.modules_to_save.default.weight": Spec((width,)),
    }


def adapter(s=Sizes()):
    w = s.adapter_width
    table = {"latents": Spec((1, s.context_tokens, w))} | linear("proj_in", w, s.feature_dim) | norm("norm_out", w)
    for layer in range(s.adapter_depth):
        attention = norm("norm1", w) | norm("norm2", w)
        for name, width in (("to_q", w), ("to_kv", 2 * w), ("to_out", w)):
            attention |= linear(name, width, w, bias=False)
        mlp = norm("0", w) | linear("1", 4 * w, w, bias=False) | linear("3", w, 4 * w, bias=False)
        table |= prefixed(f"layers.{layer}.0.", attention) | prefixed(f"layers.{layer}.1.", mlp)
    table |= linear("unet_proj_1", s.context[0], w) | linear("unet_proj_2", s.context[1], w)
    pool = {"positional_embedding": Spec((s.context_tokens + 1, w))} | linear("c_proj", s.pooled, w)
    for name in "qkv":
        pool |= linear(f"{name}_proj", w, w)
    return prefixed("resampler.", table | prefixed("unet_attnpool.", pool))


BLOCKS = {  # of SDXL's U-Net: how many attentions, their transformer blocks and width
    "down_blocks.1": (2, 2, 640),
    "down_blocks.2": (2, 10, 1280),
    "mid_block": (1, 10, 1280),
    "up_blocks.0": (3, 10, 1280),
    "up_blocks.1": (3, 2, 640),
}


def unet_keys_and_values(context=2048, blocks=BLOCKS):
    return {
        f"unet.{block}.attentions.{a}.transformer_blocks.{t}.{attention}.{name}.weight": Spec((width, source))
        for block, (attentions, transformers, width) in blocks.items()
        for a in range(attentions)
        for t in range(transformers)
        for attention, source in (("attn1", width), ("attn2", context))
        for name in ("to_k", "to_v")
    }


def detokenizer(s=Sizes()):
    return adapter(s) | unet_keys_and_values(sum(s.context))


def parameters(table):
    return sum(math.prod(spec.shape) for spec in table.values())


def size_in_bytes(table):
    return sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in table.values())
