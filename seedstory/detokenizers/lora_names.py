"""Names of LoRA weights, as trainers write them, to modules of a U-Net of diffusers.

Four spellings are known: PEFT's (`lora_A`, `lora_B`), two of older diffusers (`lora.down`, `processor.to_q_lora.down`)
and that of kohya's scripts (`lora_unet_..._lora_down`), which may number the blocks as Stability's own code does
(`input_blocks`, `middle_block`, `output_blocks`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ROLES = {
    **dict.fromkeys(("lora_A", "lora_down", "lora.down", "_lora.down"), "down"),
    **dict.fromkeys(("lora_B", "lora_up", "lora.up", "_lora.up"), "up"),
}
_KEY = re.compile(
    r"^(.*?)(?:\.(lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up)|(_lora\.down|_lora\.up))(?:\.default)?\.weight$"
)
_RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}


def is_text_encoder(key: str) -> bool:
    """Whether a weight is of a text encoder, which a de-tokenizer has not."""
    return key.startswith(("lora_te", "text_encoder"))


def split_key(key: str) -> tuple[str, str] | None:
    """Name of a module as it is spelled, and the weight's role: "down", "up" or "alpha"; None for anything else."""
    if key.endswith(".alpha"):
        return key.removesuffix(".alpha"), "alpha"
    match = _KEY.match(key)
    if match is None:
        return None
    return match[1], _ROLES[match[2] or match[3]]


def module_name(spelled: str, modules: Iterable[str], layers_per_block: int) -> str | None:
    """The module that a spelled name means; None if there is none.

    Args:
        spelled: From `split_key`.
        modules: Names of the U-Net's products and convolutions.
        layers_per_block: Of its configuration.
    """
    known = set(modules)
    if spelled.startswith("lora_unet_"):
        flat = _renumbered(spelled.removeprefix("lora_unet_"), layers_per_block, known)
        return next((name for name in known if name.replace(".", "_") == flat), None)
    for prefix in ("base_model.model.", "unet."):
        spelled = spelled.removeprefix(prefix)
    spelled = spelled.replace(".processor.to_", ".to_")
    if spelled not in known and spelled.endswith(".to_out"):
        spelled += ".0"
    return spelled if spelled in known else None


def _renumbered(flat: str, layers: int, known: set[str]) -> str:
    """A flat name in diffusers' numbering of blocks."""
    match = re.match(r"(input|middle|output)_blocks?_(\d+)_(?:(\d+)_)?(.*)$", flat)
    if match is None:
        return flat
    part, number, inner, rest = match[1], int(match[2]), match[3], match[4]
    if part == "middle":
        rest = rest if inner is None else f"{inner}_{rest}"
        where = f"mid_block_attentions_{number // 2}" if number == 1 else f"mid_block_resnets_{number // 2}"
        return f"{where}_{_RESNET.get(rest, rest)}"
    if part == "input" and number == 0:
        return "conv_in"
    block, layer = divmod(number - 1 if part == "input" else number, layers + 1)
    side = "down" if part == "input" else "up"
    if part == "input" and layer == layers:
        return f"down_blocks_{block}_downsamplers_0_conv"
    if inner == "0":
        return f"{side}_blocks_{block}_resnets_{layer}_{_RESNET.get(rest, rest)}"
    attends = any(name.startswith(f"{side}_blocks.{block}.attentions.{layer}.") for name in known)
    if part == "output" and (inner == "2" or not attends):
        return f"up_blocks_{block}_upsamplers_0_conv"
    return f"{side}_blocks_{block}_attentions_{layer}_{rest}"
