"""SEED-Story's networks agree with a second, plain version of them, and what one may get wrong would be seen."""

import functools
import math
import re

import pytest
import torch
from safetensors.torch import load_file

from seedstory.convert.seed_story_keys import ADAPTER, RESAMPLERS, VISION_TOWER
from seedstory.detokenizers.perceiver_adapter import PerceiverAdapter
from seedstory.layout import collate
from seedstory.modeling.cross_attention import CrossAttentionResampler, GridPositions, resize_positions
from seedstory.modeling.qwen_vision_tower import MEAN, STD, QwenVisionTower
from seedstory.modeling.story_model import StoryModel
from seedstory.modeling.vision_tower import load_vision_tower
from tests.seedstory import seed_story_reference as reference
from tests.seedstory.tiny_language import tiny_lm, tiny_model

TOLERANCE = 1e-5
SMALL = re.compile(  # or no eps would be seen
    r"ln_pre|conv1|positional_embedding|query|mlp\.c_proj|(?:resblocks.*|attn_pool)\.attn\.out_proj"
)
RESAMPLER_TRAPS = (
    "other resampler eps",
    "value with positions",
    "key without positions",
    "query without positions",
    "residual",
    "interpolate in bf16",
    "bilinear positions",
    "aligned corners",
    "antialiased positions",
)
TOWER_TRAPS = (
    "ungrouped in_proj",
    "unscaled q",
    "quick GELU",
    "transposed proj",
    "eps of ln_pre",
    "eps of ln_1",
    "eps of ln_2",
    "eps of ln_post",
    *RESAMPLER_TRAPS,
)
SDXL_TRAPS = (
    "normalized per token",
    "not normalized",
    "latents not in the source",
    "v before k",
    "768 and 1280 swapped",
    "no mean token",
    "pool without positions",
    "mean of the pool",
)


def released_weights(network, keys, prefix=""):
    """Random weights under their released names, put into the network."""
    generator = torch.Generator().manual_seed(7)
    weights = {}
    for name, tensor in network.state_dict().items():
        released = keys.released(prefix + name)
        if released is None:
            continue
        values = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim == 1:
            values = 0.2 * values + (released.endswith("weight"))
        elif "pos" not in released:
            values = values * tensor[0].numel() ** -0.5
        weights[released] = values * (0.05 if SMALL.search(released) else 1.0)
    network.load_state_dict(
        {keys.ours(name).removeprefix(prefix): tensor for name, tensor in weights.items()}, strict=False
    )
    return weights


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@functools.cache
def tower():
    network = QwenVisionTower(
        width=16,
        depth=2,
        heads=2,
        patch_size=4,
        position_side=4,
        feature_side=4,
        feature_dim=32,
        pool_heads=4,
        image_size=32,
    ).eval()
    return network, released_weights(network, VISION_TOWER)


@functools.cache
def story_model():
    """Its input resampler reads a 4 x 4 grid with 2 x 2 queries, its output resampler the other way round."""
    model = tiny_model(
        resampler="cross_attention",
        feature_tokens=16,
        feature_dim=24,
        input_resampler_width=32,
        output_resampler_width=24,
        input_resampler_heads=4,
        output_resampler_heads=3,
    )
    return model, released_weights(model, RESAMPLERS)


@functools.cache
def adapter():
    network = PerceiverAdapter(
        feature_dim=12,
        num_features=9,
        context_tokens=5,
        cross_attention_dim=64,
        pooled_dim=24,
        width=32,
        depth=2,
        heads=4,
    ).eval()
    return network, released_weights(network, ADAPTER)


@torch.no_grad()
def both_towers(traps=()):
    network, weights = tower()
    pixels = random(2, 3, 32, 32)
    return [network.encode(pixels)], [reference.vision_tower(weights, pixels, 2, 4, traps)]


@torch.no_grad()
def both_inputs(traps=()):
    (model, weights), features = story_model(), 0.03 * random(2, 16, 24)
    own = reference.part(weights, "input_resampler.")
    return [model.embed_images(features)], [reference.cross_attention(own, features, 4, 1e-5, traps)]


@torch.no_grad()
def both_outputs(traps=()):
    (model, weights), hidden = story_model(), 0.03 * random(2, 4, 32)
    own = reference.part(weights, "output_resampler.")
    return [model.decode_features(hidden)], [reference.cross_attention(own, hidden, 3, 1e-5, traps)]


@torch.no_grad()
def both_adapters(traps=()):
    (network, weights), features = adapter(), random(2, 9, 12)
    return network.resample(features), reference.sdxl_resampler(
        reference.part(weights, "resampler."), features, 4, traps
    )


PAIRS = {
    both_towers: TOWER_TRAPS,
    both_inputs: RESAMPLER_TRAPS,
    both_outputs: RESAMPLER_TRAPS,
    both_adapters: SDXL_TRAPS,
}


@pytest.mark.parametrize("both", PAIRS)
def test_ours_agrees_with_the_plain_version(both):
    for ours, plain in zip(*both(), strict=True):
        assert ours.shape == plain.shape and 0.01 < plain.std() < 10
        torch.testing.assert_close(ours, plain, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("both", "trap"), [(both, trap) for both, traps in PAIRS.items() for trap in traps])
def test_a_trap_would_be_seen(both, trap):
    ours, plain = both((trap,))
    assert any(one.shape != two.shape or (one - two).abs().max() > 10 * TOLERANCE for one, two in zip(ours, plain))


def test_positions_are_interpolated_in_float32_and_once(monkeypatch):
    table = random(16, 8).to(torch.bfloat16)
    positions, calls = GridPositions(table, 8), []

    def counted(table, side):
        calls.append(side)
        return resize_positions(table, side)

    monkeypatch.setattr("seedstory.modeling.cross_attention.resize_positions", counted)
    found = positions()
    assert found.dtype == torch.bfloat16 and torch.equal(found, reference.resized(table, 64))
    assert positions() is found and len(calls) == 1
    positions.float()
    assert torch.equal(positions(), reference.resized(table.float(), 64)) and len(calls) == 2
    with torch.no_grad():
        positions.table.mul_(2)
    torch.testing.assert_close(positions(), 2 * reference.resized(table.float(), 64))
    with torch.inference_mode():
        assert positions() is positions() and len(calls) == 3


def test_positions_of_a_fresh_resampler_begin_with_the_column():
    table = CrossAttentionResampler(4, 4, 8, width=8, heads=2).positions.table
    angles = torch.tensor([[math.sin(x), math.sin(x / 100), math.cos(x), math.cos(x / 100)] for x in (0.0, 1.0)])
    torch.testing.assert_close(table, torch.cat([angles.repeat(2, 1), angles.repeat_interleave(2, 0)], 1))


def test_the_tower_takes_pixels_as_every_tower_does_and_comes_back_as_it_was(tmp_path):
    network, _ = tower()
    pixels = random(2, 3, 32, 32).clamp(-1, 1)
    normalized = torch.stack([((pixels[:, i] + 1) / 2 - MEAN[i]) / STD[i] for i in range(3)], 1)
    network.save_pretrained(tmp_path)
    with torch.no_grad():
        features = network(pixels)
        torch.testing.assert_close(features, network.encode(normalized), rtol=0, atol=TOLERANCE)
        assert torch.equal(load_vision_tower(tmp_path)(pixels), features)
        half = load_vision_tower(tmp_path, torch.bfloat16)
        assert half.positions().dtype == half(pixels).dtype == torch.bfloat16
        assert (half(pixels) - features).std() < 0.05 * features.std()
        assert torch.equal(network.blank_features(), network.encode(torch.zeros(1, 3, 32, 32))[0])
    with pytest.raises(ValueError, match=r"pixels must be \[B, 3, 32, 32\]"):
        network(pixels[..., :16])


def test_a_story_model_with_cross_attention_trains_and_comes_back_as_it_was(tmp_path):
    model, _ = story_model()
    model.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert {"input_resampler.to_width.weight", "output_resampler.positions.table"} <= names
    base = tiny_lm(model.config.language_config().vocab_size)
    again = StoryModel.from_pretrained(tmp_path, base_model=base, dtype=torch.float32)
    features, hidden = random(2, 16, 24), random(2, 4, 32)
    with torch.no_grad():
        torch.testing.assert_close(again.embed_images(features), model.embed_images(features))
        torch.testing.assert_close(again.decode_features(hidden), model.decode_features(hidden))
    batch = collate([model.layout.pack_story(["The fox.", "A lantern!"])])
    output = model(**batch, context_features=features, target_features=features)
    output.loss.backward()
    weights = [*model.input_resampler.parameters(), *model.output_resampler.parameters()]
    assert all(weight.grad.abs().sum() > 0 for weight in weights)


def test_what_has_the_width_already_is_not_projected():
    names = [name for name, _ in CrossAttentionResampler(4, 9, 8, width=8, heads=2).named_parameters()]
    assert "queries" in names and not any("to_width" in name for name in names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resampler": "perceiver"}, "resampler must be one of transformer, cross_attention"),
        ({"input_resampler_width": 16}, r"input_resampler_width \(16\) must be that of the base LM's embeddings \(32"),
        ({"output_resampler_width": 16}, r"output_resampler_width \(16\) must be feature_dim \(24\)"),
        ({"input_resampler_depth": 2}, "set both resampler depths to 1"),
        ({"num_visual_tokens": 5}, "num_visual_tokens on a square grid, got 5"),
        ({"feature_head": "flow"}, "has no feature_head 'flow'"),
    ],
)
def test_settings_that_cross_attention_cannot_follow_are_refused(settings, message):
    fit = {"resampler": "cross_attention", "feature_dim": 24, "input_resampler_width": 32, "output_resampler_width": 24}
    with pytest.raises(ValueError, match=message):
        tiny_model(**fit | settings)
