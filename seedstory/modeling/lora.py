"""Adding LoRA (Hu et al. 2021, arXiv 2106.09685) to the weights it adapts."""

from typing import Any

import torch
from peft.tuners.lora import Linear, LoraLayer
from torch import nn


class AddedLora(Linear):
    """peft's LoRA of a linear layer that scales and adds within its second product.

    peft takes a product, a scaling and a sum, each of which reads and writes all outputs, and each is one more thing
    that a GPU has to be told. See `add_in_product`.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's outputs: `[..., D]` → `[..., E]`."""
        if args or kwargs or self.disable_adapters or self.merged or self.active_adapters != ["default"]:
            return super().forward(x, *args, **kwargs)
        outputs = self.base_layer(x)
        down, up = self.lora_A["default"], self.lora_B["default"]
        hidden = down(self.lora_dropout["default"](x)).flatten(0, -2)
        added = torch.addmm(outputs.flatten(0, -2), hidden, up.weight.mT, alpha=self.scaling["default"])
        return added.view_as(outputs)


def add_in_product(layer: LoraLayer) -> None:
    """Let a layer of peft's LoRA compute as `AddedLora` does, if it is a plain one."""
    if type(layer) is Linear and not layer.lora_variant and layer.lora_B["default"].bias is None:
        layer.__class__ = AddedLora


def merge_lora(network: nn.Module) -> nn.Module:
    """Add peft's LoRA to the base weights, in place (in float32, rounded once), and drop it."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLayer):
                base = layer.get_base_layer()
                down, up = (part["default"].weight.detach().float() for part in (layer.lora_A, layer.lora_B))
                merged = base.weight.data.float() + layer.scaling["default"] * (up @ down)
                base.weight.data = merged.to(base.weight.dtype)
                setattr(parent, name, base)
    network.__dict__.pop("peft_config", None)  # by which peft and diffusers say that there is one
    return network
