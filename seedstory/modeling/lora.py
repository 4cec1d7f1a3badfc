"""Adding LoRA (Hu et al. 2021, arXiv 2106.09685) to the weights it adapts."""

from peft.tuners.lora import LoraLayer
from torch import nn


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
    return network
