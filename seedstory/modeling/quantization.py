"""Storing a language model's matrices in fewer bits, also while they are read, so that they never stand there whole."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from seedstory.errors import ModelError
from seedstory.model_files import check_finite, check_shapes, tensor_files
from seedstory.modeling.base_lm import base_lm_config, load_base_lm, weight_names
from seedstory.modeling.int4 import GROUP, Int4Linear
from seedstory.modeling.int8 import Int8Linear

QUANTIZATIONS = ("", "int8", "int4")
Merge = Callable[[str, torch.Tensor], torch.Tensor]
"""From the name of a weight of the language model and the weight, the weight with what is added to it."""


def check_quantization(name: str) -> None:
    """Refuses what is none of `QUANTIZATIONS`.

    Raises:
        ModelError: It is none.
    """
    if name not in QUANTIZATIONS:
        raise ModelError(f"unknown quantization {name!r:.40}: choose int8 or int4, or leave it out")


def quantized(linear: nn.Linear, quantization: str) -> nn.Module:
    """A layer in eight or four bits; in eight where its rows are no whole groups of four-bit weights."""
    if quantization == "int4" and Int4Linear.fits(linear):
        return Int4Linear(linear)
    return Int8Linear(linear)


def quantization_of(llm: nn.Module) -> str:
    """Which of `QUANTIZATIONS` a language model is stored in."""
    kinds = {type(layer) for layer in llm.modules()}
    return "int4" if Int4Linear in kinds else "int8" if Int8Linear in kinds else ""


def quantize(llm: PreTrainedModel, quantization: str) -> None:
    """Replace all linear layers of a language model, its head included.

    The input embedding keeps its type; a head that shared its weight with it becomes one of its own.
    """
    for parent in list(llm.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, quantized(layer, quantization))


def load_quantized(
    folder: Path, dtype: torch.dtype, quantization: str, merge: Merge = lambda name, weight: weight
) -> PreTrainedModel:
    """A base language model in fewer bits, to the same numbers as if it were loaded whole and then stored so.

    Its matrices are read one by one, so that memory holds little more than the result. The head is left as it is: see
    `quantize`. Where transformers stores weights under other names than it has them, they are loaded whole.

    Args:
        folder: As `load_base_lm` takes it.
        dtype: Type of all other weights, and to which matrices are rounded before they are stored.
        quantization: "int8" or "int4".
        merge: Adds LoRA.

    Raises:
        ModelError: As `load_base_lm`.
    """
    config, names = base_lm_config(folder), weight_names(folder)
    with _parameters_on_meta():
        llm = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False)
    head, embedding = llm.get_output_embeddings(), llm.get_input_embeddings()
    wanted = {name: tuple(weight.shape) for name, weight in llm.named_parameters()}
    if config.tie_word_embeddings:
        wanted.pop(next(f"{name}.weight" for name, module in llm.named_modules() if module is head), None)
    if not wanted.keys() <= set(names.values()):
        return _shrunk(load_base_lm(folder, dtype), quantization, merge)
    for path in tensor_files(folder):
        with safe_open(path, "pt") as file:
            for stored in file.keys():
                name = names.get(stored, "")
                if name not in wanted:
                    continue
                tensor = file.get_tensor(stored)
                check_finite({name: tensor}, folder)
                check_shapes({name: wanted.pop(name)}, {name: tuple(tensor.shape)}, folder)
                module, _, key = name.rpartition(".")
                layer = llm.get_submodule(module)
                setattr(layer, key, nn.Parameter(merge(name, tensor.to(dtype)), requires_grad=False))
                whole = not any(parameter.is_meta for parameter in layer.parameters())
                if type(layer) is nn.Linear and layer is not head and whole:
                    llm.set_submodule(module, quantized(layer, quantization))
    if config.tie_word_embeddings:
        head.weight = embedding.weight
    return llm.eval()


def _shrunk(llm: PreTrainedModel, quantization: str, merge: Merge) -> PreTrainedModel:
    """The same of a language model that was loaded whole."""
    head = llm.get_output_embeddings()
    for name, layer in list(llm.named_modules()):
        if type(layer) is nn.Linear and layer is not head:
            layer.weight.data = merge(f"{name}.weight", layer.weight.data)
            llm.set_submodule(name, quantized(layer, quantization))
    return llm


def _parameters_on_meta() -> AbstractContextManager[Any]:
    """Parameters take no memory; buffers, which no file holds, are computed."""
    return init_empty_weights(include_buffers=False)


def stored_bytes(rows: int, columns: int, quantization: str, itemsize: int) -> int:
    """Bytes of a matrix, with what scales it."""
    if quantization == "int4" and columns % GROUP == 0:
        return rows * columns // 2 + 4 * rows * (columns // GROUP)
    return rows * (columns + 4) if quantization else rows * columns * itemsize
