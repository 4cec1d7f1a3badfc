"""LoRA in the U-Net of a de-tokenizer: read from safetensors, checked weight by weight, added and taken out again.

Shapes: r rank, I and O inputs and outputs of a product, k side of a convolution's kernel.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seedstory.detokenizers.lora_names import is_text_encoder, module_name, split_key
from seedstory.errors import ModelError
from seedstory.hub import download, is_repo_id
from seedstory.identity import file_sha256
from seedstory.io import inside, open_regular
from seedstory.model_files import is_finite

logger = logging.getLogger(__name__)

_MOST_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Lora:
    """A LoRA for one U-Net.

    Args:
        name: Of its file.
        sha256: Of its file.
        pairs: By module of the U-Net: [r, I] and [O, r] of a product, [r, I, k, k] and [O, r, 1, 1] of a convolution.
            The second one is scaled, so that their product is what is added.
    """

    name: str
    sha256: str
    pairs: dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class AppliedLora:
    """A LoRA that is in a U-Net.

    Args:
        lora: Its weights.
        scale: The part of them that was added.
        fused: Whether they are in the U-Net's weights; otherwise they lie beside them.
    """

    lora: Lora
    scale: float
    fused: bool


def read_lora(unet: UNet2DConditionModel, source: str | os.PathLike[str], weight_name: str | None = None) -> Lora:
    """Read a LoRA, and hold each weight of it against the U-Net.

    Args:
        unet: That it is for.
        source: A safetensors file, a folder that holds it, or a Hub id.
        weight_name: The file, where there are several.

    Raises:
        ModelError: It is not there, or does not fit.
    """
    path = _find_file(source, weight_name)
    try:
        open_regular(path, limit=_MOST_BYTES).close()
        weights = load_file(path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be read as safetensors ({error}): copy or download it again") from error
    texts = [key for key in weights if is_text_encoder(key)]
    if texts:
        logger.warning("%s: %d weights are of text encoders, which a de-tokenizer has not", path.name, len(texts))
    parts = _parts({key: weight for key, weight in weights.items() if key not in set(texts)}, unet, path)
    name = re.sub(r"[^A-Za-z0-9]+", "_", path.stem).strip("_") or "lora"
    return Lora(name, file_sha256(path), {module: _pair(module, part, unet, path) for module, part in parts.items()})


def add_lora(unet: UNet2DConditionModel, lora: Lora, name: str, *, scale: float, fuse: bool) -> None:
    """Add a LoRA to the weights of a U-Net, or lay it beside them."""
    if fuse:
        _add_to_weights(unet, lora, scale)
        return
    state: dict[str, Tensor] = {}
    for module, (down, up) in lora.pairs.items():
        state |= {f"unet.{module}.lora_A.weight": down, f"unet.{module}.lora_B.weight": up}
    unet.load_lora_adapter(state, prefix="unet", adapter_name=name)
    unet.set_adapters(name, scale)
    unet.eval()


def remove_lora(unet: UNet2DConditionModel, applied: AppliedLora, name: str) -> None:
    """Take a LoRA out again."""
    if applied.fused:
        _add_to_weights(unet, applied.lora, -applied.scale)
        return
    if name in (getattr(unet, "peft_config", None) or {}):  # not where a network is read from disk when it works
        unet.delete_adapters(name)
    if not has_lora(unet):
        unet.unload_lora()


def has_lora(unet: UNet2DConditionModel) -> bool:
    """Whether a LoRA lies beside the weights."""
    return bool(getattr(unet, "peft_config", None))


def linear_modules(unet: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The products and convolutions of a network by name, those that a LoRA lies beside included."""
    found = {}
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name:
            found[name.removesuffix(".base_layer")] = module
    return found


@torch.no_grad()
def _add_to_weights(unet: UNet2DConditionModel, lora: Lora, scale: float) -> None:
    modules = linear_modules(unet)
    for name, (down, up) in lora.pairs.items():
        weight = modules[name].weight
        product = up.to(weight.device).float().flatten(1) @ down.to(weight.device).float().flatten(1)
        weight.copy_(weight.float() + scale * product.view(weight.shape))


def _parts(weights: dict[str, Tensor], unet: UNet2DConditionModel, path: Path) -> dict[str, dict[str, Tensor]]:
    """The weights by module and role."""
    names, layers = linear_modules(unet), unet.config.layers_per_block
    parts: dict[str, dict[str, Tensor]] = {}
    meant: dict[str, str | None] = {}
    for key, weight in weights.items():
        split = split_key(key)
        if split is None:
            raise ModelError(f"{path} is no LoRA that is known here: it holds {key!r:.120}")
        spelled, role = split
        if spelled not in meant:
            meant[spelled] = module_name(spelled, names, layers)
        module = meant[spelled]
        if module is None:
            raise ModelError(f"{path} does not fit this U-Net, which has nothing that {key!r:.120} means")
        parts.setdefault(module, {})[role] = weight
    if not parts:
        raise ModelError(f"{path} holds no LoRA of a U-Net")
    return parts


def _pair(module: str, part: dict[str, Tensor], unet: UNet2DConditionModel, path: Path) -> tuple[Tensor, Tensor]:
    """Both factors of one module, scaled."""
    layer = linear_modules(unet)[module]
    missing = [role for role in ("down", "up") if role not in part]
    if missing:
        raise ModelError(f"{path} is incomplete: {module} has no {missing[0]} weight")
    down, up = part["down"], part["up"]
    fits = down.ndim == up.ndim == layer.weight.ndim and down.shape[0] == up.shape[1]
    if not fits or (up.shape[0], *down.shape[1:]) != tuple(layer.weight.shape) or any(n != 1 for n in up.shape[2:]):
        raise ModelError(
            f"{path} does not fit this U-Net: {module} is {list(layer.weight.shape)}, and the LoRA's weights are "
            f"{list(down.shape)} and {list(up.shape)}"
        )
    alpha = part.get("alpha")
    if not all(is_finite(weight) for weight in part.values()) or (alpha is not None and alpha.numel() != 1):
        raise ModelError(f"{path} is damaged: weights of {module} are NaN, infinite or no floats")
    factor = 1.0 if alpha is None else float(alpha) / len(down)
    return down, (up.float() * factor).to(up.dtype) if factor != 1.0 else up


def _find_file(source: str | os.PathLike[str], weight_name: str | None) -> Path:
    path: Any = Path(source)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"{path} is no safetensors file: pickles are never loaded, convert it first")
        return path
    if not path.is_dir():
        if not is_repo_id(os.fspath(source)) or path.is_absolute():
            raise ModelError(
                f"there is no LoRA {source}: give a safetensors file, a folder that holds one, or a Hub id"
            )
        path = download(os.fspath(source), allow_patterns=[weight_name or "*.safetensors"])
    if weight_name is not None:
        file = inside(path, weight_name, "name of a LoRA")
        if not file.is_file() or file.suffix != ".safetensors":
            raise ModelError(f"{path} has no safetensors file {weight_name}")
        return file
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        found = (
            f"it has {len(files)}: name one of {', '.join(file.name for file in files[:8])}" if files else "it has none"
        )
        raise ModelError(f"{source} must hold one safetensors file; {found}")
    return files[0]
