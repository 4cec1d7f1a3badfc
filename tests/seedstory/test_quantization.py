"""Matrices in eight and four bits: what they hold, how large they are, and that reading them one by one is the same."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from seedstory.errors import ModelError
from seedstory.modeling.int4 import GROUP, LEVELS, Int4Linear
from seedstory.modeling.int8 import Int8Linear
from seedstory.modeling.quantization import quantized, stored_bytes
from seedstory.modeling.story_model import StoryModel
from tests.seedstory.tiny_language import tiny_lm, tiny_tokenizer


def linear(columns=3 * GROUP, rows=5, bias=True):
    torch.manual_seed(0)
    return nn.Linear(columns, rows, bias=bias)


def held(layer):
    return sum(buffer.nbytes for buffer in layer.buffers())


def test_weights_that_four_bits_can_hold_come_back_exactly():
    layer = linear()
    levels = torch.randint(0, LEVELS + 1, (5, 3, GROUP))
    levels[..., 0], levels[..., 1] = 0, LEVELS
    scale, low = 2.0 ** torch.randint(-9, -3, (5, 3, 1)), -torch.rand(5, 3, 1).bfloat16().float()
    layer.weight.data = (low + scale * levels).flatten(1)
    stored = Int4Linear(layer)
    assert torch.equal(stored.weight_rows(0, 5), layer.weight)
    assert torch.equal(stored.weight_rows(2, 4), layer.weight[2:4])


def test_a_weight_is_off_by_half_a_scale_at_most_and_a_product_is_that_of_the_stored_weights():
    layer = linear()
    stored = Int4Linear(layer)
    error = (stored.weight_rows(0, 5) - layer.weight).view(5, 3, GROUP).abs()
    groups = layer.weight.view(5, 3, GROUP)
    spread = groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)
    assert (error <= 0.5 * spread / LEVELS + 2**-8 * spread + 2**-8 * groups.abs().amax(-1, keepdim=True)).all()
    x = torch.randn(2, 7, 3 * GROUP)
    torch.testing.assert_close(stored(x), x @ stored.weight_rows(0, 5).T + layer.bias)


def test_large_matrices_are_unpacked_in_pieces(monkeypatch):
    layer, x = linear(), torch.randn(2, 3 * GROUP)
    whole = Int4Linear(layer)
    monkeypatch.setattr("seedstory.modeling.int4._AT_ONCE", 2 * 3 * GROUP)
    pieces = Int4Linear(layer)
    assert torch.equal(pieces.packed, whole.packed) and torch.equal(pieces.scale, whole.scale)
    expected = whole(x)
    torch.testing.assert_close(pieces(x), expected)


@pytest.mark.parametrize(("name", "columns"), [("int4", 3 * GROUP), ("int8", 3 * GROUP), ("int4", 40)])
def test_sizes_are_as_foretold_and_keep_their_type(name, columns):
    layer = quantized(linear(columns), name)
    assert type(layer) is (Int4Linear if name == "int4" and columns != 40 else Int8Linear)
    assert held(layer) == stored_bytes(5, columns, name, 4)
    if type(layer) is Int4Linear:
        assert held(layer) == 5 * columns * 4.5 / 8
    before = {key: buffer.dtype for key, buffer in layer.named_buffers()}
    assert {key: buffer.dtype for key, buffer in layer.bfloat16().named_buffers()} == before
    assert layer(torch.randn(3, columns, dtype=torch.bfloat16)).dtype == torch.bfloat16


def story_model_folder(folder, tied, **lm):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": tied}
    tiny_lm(len(tokenizer), **(sizes | lm)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    sizes = {"num_visual_tokens": 4, "feature_tokens": 9, "feature_dim": 6, "lora_rank": 2}
    for side in ("input", "output"):
        sizes |= {f"{side}_resampler_width": 16, f"{side}_resampler_depth": 1, f"{side}_resampler_heads": 2}
    model = StoryModel.from_base(folder / "base", dtype=torch.float32, **sizes)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize(("tied", "lm"), [(True, {}), (False, {"family": "qwen2"})], ids=["tied", "untied"])
def test_reading_matrices_one_by_one_gives_the_same_bits_as_a_whole_model(tmp_path, quantization, tied, lm):
    folder = story_model_folder(tmp_path, tied, **lm)
    read = StoryModel.from_pretrained(folder, dtype=torch.bfloat16, quantization=quantization)
    whole = StoryModel.from_pretrained(folder, dtype=torch.bfloat16).quantize(quantization)
    assert read.quantization == whole.quantization == quantization
    expected = whole.state_dict()
    assert read.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read.state_dict().items())
    x = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.no_grad():
        assert torch.equal(read.caption_logits(read.hidden_states(x)), whole.caption_logits(whole.hidden_states(x)))
    assert not any(parameter.requires_grad for parameter in read.parameters())
    read.save_pretrained(tmp_path / "again")  # LoRA is still apart there
    first, again = (load_file(one / "model.safetensors") for one in (folder, tmp_path / "again"))
    assert first.keys() == again.keys()
    assert all(torch.equal(again[name], first[name]) for name in first if ".lora_" in name)


def test_what_cannot_be_stored_so_is_one_clear_line(tmp_path):
    folder = story_model_folder(tmp_path, True)
    with pytest.raises(ModelError, match="unknown quantization 'int2': choose int8 or int4"):
        StoryModel.from_pretrained(folder, quantization="int2")
    with pytest.raises(ModelError, match="int4 weights are for inference"):
        StoryModel.from_pretrained(folder, quantization="int4", merge=False)
    file = tmp_path / "base/model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"the weight model\.layers\.1\.mlp\.up_proj\.weight holds NaN"):
        StoryModel.from_pretrained(folder, quantization="int4")
