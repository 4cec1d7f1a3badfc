"""LoRA that adds within its second product is peft's LoRA."""

import pytest
import torch
from peft.tuners.lora import Linear

from seedstory.modeling.lora import AddedLora, merge_lora
from tests.seedstory.tiny_language import tiny_model


@pytest.fixture
def model():
    return tiny_model()


def states(model, embeds):
    model.zero_grad()
    hidden = model.hidden_states(embeds)
    hidden.square().sum().backward()
    grads = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return hidden.detach(), grads


def test_outputs_and_gradients_are_those_of_peft(model):
    layers = list(model._lora_layers())
    assert len(layers) == 14 and all(type(layer) is AddedLora for layer in layers)
    embeds = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    found, grads = states(model, embeds)
    for layer in layers:
        layer.__class__ = Linear
    expected, of_peft = states(model, embeds)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert grads.keys() == of_peft.keys() and len(grads) == 28
    for name, grad in of_peft.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-3, atol=1e-3)


def test_mixed_precision_keeps_the_type_of_the_base_and_trains_the_masters(model):
    layer = next(model._lora_layers())
    layer.base_layer.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(3, 32))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.lora_B["default"].weight.grad.dtype == torch.float32


def test_a_merged_layer_is_a_plain_one(model):
    embeds = torch.randn(1, 5, 32)
    before = model.hidden_states(embeds)
    merge_lora(model.llm)
    assert not model.has_lora
    torch.testing.assert_close(model.hidden_states(embeds), before, rtol=1e-4, atol=1e-4)
