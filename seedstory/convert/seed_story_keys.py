"""The weights of SEED-Story's released checkpoints, and which of ours each one is.

Three files (github.com/TencentARC/SEED-Story, commit aec3c1c): the vision tower of Qwen-VL, the agent (a Llama 2 with
LoRA and two resamplers) and the de-tokenizer (a resampler, and keys and values of SDXL's U-Net).
"""

from seedstory.convert.key_map import KeyMap

_RESAMPLER = (
    ("pos_embed", "positions.table"),
    ("query", "queries"),
    ("kv_proj.", "to_width."),
    ("attn.", "attention."),
    ("ln_q.", "query_norm."),
    ("ln_kv.", "source_norm."),
)

VISION_TOWER = KeyMap(
    ("positional_embedding", "positions.table"),
    ("proj", "projection"),
    ("conv1.", "patches."),
    ("ln_pre.", "norm."),
    ("transformer.resblocks.{}.ln_1.", "blocks.{}.attention_norm."),
    ("transformer.resblocks.{}.attn.in_proj.", "blocks.{}.attention.qkv."),
    ("transformer.resblocks.{}.attn.out_proj.", "blocks.{}.attention.out."),
    ("transformer.resblocks.{}.ln_2.", "blocks.{}.mlp_norm."),
    ("transformer.resblocks.{}.mlp.c_fc.", "blocks.{}.up."),
    ("transformer.resblocks.{}.mlp.c_proj.", "blocks.{}.down."),
    *((f"attn_pool.{released}", f"pool.{ours}") for released, ours in _RESAMPLER),
    ("ln_post.", "pool_norm."),
)
"""Ours: of `QwenVisionTower`."""

RESAMPLERS = KeyMap(
    *(
        (f"{side}_resampler.{released}", f"{side}_resampler.{ours}")
        for side in ("input", "output")
        for released, ours in _RESAMPLER
    )
)
"""Ours: of a `StoryModel` whose resampler is "cross_attention"."""

_MODEL = "llm.base_model.model."
_LAYER = f"{_MODEL}model.layers.{{}}."

LANGUAGE_MODEL = KeyMap(
    (f"{_MODEL}model.embed_tokens.weight", "model.embed_tokens.weight"),
    (f"{_MODEL}lm_head.weight", "lm_head.weight"),
    (f"{_MODEL}model.norm.modules_to_save.default.weight", "model.norm.weight"),
    *(
        (f"{_LAYER}{norm}.modules_to_save.default.weight", f"model.layers.{{}}.{norm}.weight")
        for norm in ("input_layernorm", "post_attention_layernorm")
    ),
    *(
        (f"{_LAYER}{part}.weight", f"model.layers.{{}}.{part}.weight")
        for part in (
            *(f"self_attn.{name}_proj" for name in "qkvo"),
            *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
        )
    ),
)
"""Ours: of transformers' `LlamaForCausalLM`. LoRA, which changes these, is in `LORA`."""

LORA = KeyMap(
    *(
        (f"{_LAYER}{part}.lora_{factor}.default.weight", f"llm.model.layers.{{}}.{part}.lora_{factor}.weight")
        for part in (
            *(f"self_attn.{name}_proj" for name in "qkvo"),
            *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
        )
        for factor in "AB"
    )
)
"""Ours: of a `StoryModel`, as it is stored (`seedstory.modeling.checkpoint`)."""

UNUSED = (
    r"llm\.base_model\.model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
    r"llm\.base_model\.model\.model\.(?:layers\.\d+\.(?:input|post_attention)_layernorm|norm)\.original_module\.weight",
)
"""Patterns of released weights that the agent does not use: rotary angles, and norms before they were trained."""

ADAPTER = KeyMap(
    ("resampler.latents", "queries"),
    ("resampler.proj_in.", "to_width."),
    ("resampler.norm_out.", "out_norm."),
    ("resampler.layers.{}.0.norm1.", "blocks.{}.source_norm."),
    ("resampler.layers.{}.0.norm2.", "blocks.{}.query_norm."),
    ("resampler.layers.{}.0.to_q.", "blocks.{}.to_query."),
    ("resampler.layers.{}.0.to_kv.", "blocks.{}.to_key_value."),
    ("resampler.layers.{}.0.to_out.", "blocks.{}.to_out."),
    ("resampler.layers.{}.1.0.", "blocks.{}.mlp_norm."),
    ("resampler.layers.{}.1.1.", "blocks.{}.up."),
    ("resampler.layers.{}.1.3.", "blocks.{}.down."),
    ("resampler.unet_proj_1.", "to_first_context."),
    ("resampler.unet_proj_2.", "to_second_context."),
    ("resampler.unet_attnpool.positional_embedding", "pool.positions"),
    *(
        (f"resampler.unet_attnpool.{name}_proj.", f"pool.{ours}.")
        for name, ours in zip("qkvc", ("to_query", "to_key", "to_value", "to_out"), strict=True)
    ),
)
"""Ours: of `PerceiverAdapter`."""

UNET = KeyMap(("unet.", ""))
"""Ours: of diffusers' `UNet2DConditionModel`."""
