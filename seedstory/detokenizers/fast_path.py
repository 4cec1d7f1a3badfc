"""What makes a de-tokenizer faster, as verbs of it in the way of diffusers.

`enable_fast_path` turns on what changes nothing but rounding. How much each brings is measured by
`python -m inference.fast_images`; docs/guides/fast_pictures.md says when to use which.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from seedstory.detokenizers import lora
from seedstory.detokenizers.adapters import Condition
from seedstory.detokenizers.attention import (
    ContextAttnProcessor,
    fuse_projections,
    set_processors,
    tie_projections,
    unfuse_projections,
)
from seedstory.errors import ModelError

if TYPE_CHECKING:
    from typing import Self


class FastPath:
    """Mixin of `Detokenizer`: verbs that change how its U-Net computes, and LoRA in its weights."""

    unet: Any
    guides_in_one_pass = False
    """Whether guidance takes one pass over twice the pictures, or two passes."""
    _keeps_context = False
    _is_fused = False
    _is_compiled = False
    _is_fast = False

    def enable_fast_path(self, *, compile: bool = False) -> Self:
        """Turn on all that changes nothing but rounding.

        These are `enable_context_cache`, `fuse_qkv_projections` and, on a GPU, guidance in one pass and weights in
        channels-last order.

        Args:
            compile: Also compile the repeated blocks, which takes a minute at the first picture and at each new size
                of a batch. Keys and values of the condition are then computed at each step, see
                `compile_repeated_blocks`.
        """
        self.enable_context_cache()
        self._is_fast = True
        if not self._has_lora_beside():
            self.fuse_qkv_projections()
        if self._unet().device.type not in ("cpu", "meta"):
            self.guides_in_one_pass = True
            self._unet().to(memory_format=torch.channels_last)
            tie_projections(self._unet())
        if compile:
            self.compile_repeated_blocks()
        return self

    def disable_fast_path(self) -> Self:
        """Take back all of `enable_fast_path`."""
        self.disable_context_cache()
        self.unfuse_qkv_projections()
        self.guides_in_one_pass = self._is_fast = False
        for module in self._unet().modules():
            module._compiled_call_impl = None
        self._is_compiled = False
        self._unet().to(memory_format=torch.contiguous_format)
        return self

    def enable_context_cache(self) -> None:
        """Compute keys and values of the condition once a picture, not at each step: the same bits."""
        set_processors(self._unet(), ContextAttnProcessor())
        self._keeps_context = True

    def disable_context_cache(self) -> None:
        """Take back `enable_context_cache`."""
        self._keeps_context = False
        self._restore_processors()

    def fuse_qkv_projections(self) -> None:
        """Let one product give queries, keys and values of each self-attention: equal but for rounding.

        Raises:
            ModelError: A LoRA lies beside the weights.
        """
        if self._has_lora_beside():
            raise ModelError("projections cannot be fused beside a LoRA: fuse the LoRA first, or unload it")
        set_processors(self._unet(), ContextAttnProcessor())
        fuse_projections(self._unet())
        self._is_fused = True

    def unfuse_qkv_projections(self) -> None:
        """Take back `fuse_qkv_projections`."""
        if self._is_fused:
            unfuse_projections(self._unet())
            self._is_fused = False
            self._restore_processors()

    def compile_repeated_blocks(self, **options: Any) -> None:
        """Compile the transformer blocks with `torch.compile`, each kind once, not the whole U-Net.

        A kept condition would make each block another one for the compiler, so `enable_context_cache` rests meanwhile;
        it saves about a hundredth of a step of SDXL.

        Args:
            **options: Of `torch.compile`; by default `fullgraph=True`.
        """
        self._unet().compile_repeated_blocks(**({"fullgraph": True} | options))
        self._is_compiled = True

    def load_lora_weights(
        self,
        pretrained_model_name_or_path: str | os.PathLike[str],
        weight_name: str | None = None,
        adapter_name: str | None = None,
        *,
        fuse: bool = True,
        scale: float = 1.0,
    ) -> None:
        """Load a LoRA into the U-Net, such as those of LCM, TCD, Lightning or Hyper-SD.

        Args:
            pretrained_model_name_or_path: A safetensors file, a folder that holds it, or a Hub id.
            weight_name: The file, where the folder or repository holds several.
            adapter_name: What to call it; by default after its file.
            fuse: Add it to the weights, which costs no time when drawing. Otherwise it lies beside them, and its part
                can be changed (`set_adapters`).
            scale: Its part; 1.0 is as it was trained.

        Raises:
            ModelError: It is not there, is no LoRA in safetensors, or does not fit this U-Net.
        """
        loaded = lora.read_lora(self._unet(), pretrained_model_name_or_path, weight_name)
        name = adapter_name or loaded.name
        if name in self.loras:
            raise ModelError(f"there is already a LoRA {name!r}: unload it, or give another adapter_name")
        was_fused = self._is_fused
        if was_fused and not fuse:
            raise ModelError(
                "a LoRA cannot lie beside fused projections: load it with fuse=True, or unfuse these first"
            )
        self.unfuse_qkv_projections()
        lora.add_lora(self._unet(), loaded, name, scale=scale, fuse=fuse)
        self.loras = self.loras | {name: lora.AppliedLora(loaded, scale, fuse)}
        self._set_parts()
        self._resume(was_fused)

    def unload_lora_weights(self, adapter_name: str | None = None) -> None:
        """Take a LoRA out again, or all; weights that it was fused into are then what they were, but for rounding.

        Raises:
            ModelError: There is none of this name.
        """
        if adapter_name is not None and adapter_name not in self.loras:
            raise ModelError(f"there is no LoRA {adapter_name!r}: loaded are {', '.join(self.loras) or 'none'}")
        was_fused = self._is_fused
        self.unfuse_qkv_projections()
        for name in [adapter_name] if adapter_name is not None else list(self.loras):
            lora.remove_lora(self._unet(), self.loras[name], name)
            self.loras = {key: value for key, value in self.loras.items() if key != name}
        self._resume(was_fused)

    def set_adapters(self, adapter_name: str, scale: float) -> None:
        """Change the part of a LoRA that lies beside the weights.

        Raises:
            ModelError: There is none of this name, or it is fused.
        """
        applied = self.loras.get(adapter_name)
        if applied is None or applied.fused:
            raise ModelError(f"no LoRA {adapter_name!r} lies beside the weights: load it with fuse=False")
        self.loras = self.loras | {adapter_name: lora.AppliedLora(applied.lora, scale, False)}
        self._set_parts()

    @property
    def loras(self) -> dict[str, lora.AppliedLora]:
        """The LoRA that are in the weights or beside them, by name."""
        return self.__dict__.get("_loras", {})

    @loras.setter
    def loras(self, loras: dict[str, lora.AppliedLora]) -> None:
        self.__dict__["_loras"] = loras

    @property
    def is_compiled(self) -> bool:
        """Whether blocks of the U-Net are compiled."""
        return self._is_compiled

    def prepared(self, condition: Condition) -> Condition:
        """A condition that stays the same for a whole way from noise to latents."""
        if not self._keeps_context or self._is_compiled:
            return condition
        return Condition(condition.overlay, condition.inputs | {"cross_attention_kwargs": {"context_cache": {}}})

    @contextlib.contextmanager
    def _plain_weights(self) -> Iterator[None]:
        """The U-Net with the weights and names that it has without any fast path."""
        if self._is_unet() and self._has_lora_beside():
            raise ModelError("a LoRA lies beside the weights: load it with fuse=True, or unload it, before saving")
        was_fused = self._is_fused
        if was_fused:
            self.unfuse_qkv_projections()
        try:
            yield
        finally:
            if was_fused:
                self.fuse_qkv_projections()

    def _take_over(self, other: FastPath) -> None:
        """Draw as another one, whose weights were read anew for this one: with its LoRA and its fast path."""
        for name, one in other.loras.items():
            lora.add_lora(self._unet(), one.lora, name, scale=one.scale, fuse=one.fused)
        self.loras = other.loras
        self._set_parts()
        if other._is_fast:
            self.enable_fast_path()
        if other._keeps_context:
            self.enable_context_cache()
        if other._is_fused:
            self.fuse_qkv_projections()
        if other._is_compiled:
            self.compile_repeated_blocks()

    def _set_parts(self) -> None:
        """Give each LoRA beside the weights its part."""
        beside = getattr(self.unet, "peft_config", None) or {}
        parts = {name: one.scale for name, one in self.loras.items() if not one.fused and name in beside}
        if parts:
            self._unet().set_adapters(list(parts), list(parts.values()))

    def _has_lora_beside(self) -> bool:
        return lora.has_lora(self._unet()) or any(not one.fused for one in self.loras.values())

    def _resume(self, was_fused: bool) -> None:
        if self._keeps_context:
            self.enable_context_cache()
        if was_fused:
            self.fuse_qkv_projections()

    def _restore_processors(self) -> None:
        if not self._keeps_context and not self._is_fused:
            set_processors(self._unet(), AttnProcessor2_0())

    def _after_move(self) -> None:
        if self._is_fused:
            tie_projections(self._unet())

    def _unet(self) -> UNet2DConditionModel:
        if not self._is_unet():
            raise ModelError(
                f"the fast path is for U-Nets, and this de-tokenizer draws with a {type(self.unet).__name__}"
            )
        unet: UNet2DConditionModel = self.unet
        return unet

    def _is_unet(self) -> bool:
        return isinstance(self.unet, UNet2DConditionModel)
