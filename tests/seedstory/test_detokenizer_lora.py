"""LoRA in the U-Net of a de-tokenizer, in all spellings of trainers."""

import re
import shutil

import pytest
import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from safetensors.torch import save_file

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.lora import linear_modules, read_lora
from tests.tiny_sdxl import tiny_sdxl_detokenizer

RANK, ALPHA = 2, 1.0
ASKED = {"num_inference_steps": 1, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def detokenizer():
    return tiny_sdxl_detokenizer()


@pytest.fixture(autouse=True)
def _bare(detokenizer):
    yield
    detokenizer.unload_lora_weights()
    detokenizer.disable_fast_path()


@pytest.fixture(scope="module")
def features():
    return torch.randn(1, 9, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pairs(detokenizer):
    """Factors for all that a LoRA of SDXL usually has, convolutions included."""
    torch.manual_seed(2)
    found = {}
    for name, module in linear_modules(detokenizer.unet).items():
        if re.search(r"attn\d|ff\.net|proj_|resnets|sampler", name):
            inner = module.weight.shape[1:]
            up = torch.randn(len(module.weight), RANK, *[1] * (len(inner) - 1))
            found[name] = 0.1 * torch.randn(RANK, *inner), 0.1 * up
    assert len(found) > 40
    return found


@pytest.fixture(scope="module")
def plain(detokenizer, features):
    return drawn(detokenizer, features)


def drawn(detokenizer, features):
    return detokenizer(features, torch.Generator().manual_seed(1), output_type="latent", **ASKED)


def peft(pairs):
    for name, (down, up) in pairs.items():
        yield f"unet.{name}.lora_A.weight", down
        yield f"unet.{name}.lora_B.weight", up * ALPHA / RANK


def bare_peft(pairs):
    for key, weight in peft(pairs):
        yield key.replace("unet.", "base_model.model."), weight


def old_diffusers(pairs):
    for name, (down, up) in pairs.items():
        match = re.match(r"(.*attn\d)\.(to_[qkv]|to_out)(\.0)?$", name)
        spelled = f"unet.{match[1]}.processor.{match[2]}_lora" if match else f"unet.{name}.lora"
        yield f"{spelled}.down.weight", down
        yield f"{spelled}.up.weight", up * ALPHA / RANK


def kohya(pairs):
    for name, (down, up) in pairs.items():
        flat = "lora_unet_" + name.replace(".", "_")
        yield f"{flat}.lora_down.weight", down
        yield f"{flat}.lora_up.weight", up
        yield f"{flat}.alpha", torch.tensor(ALPHA)


SPELLINGS = {spelling.__name__: spelling for spelling in (peft, bare_peft, old_diffusers, kohya)}


@pytest.fixture(scope="module")
def expected(detokenizer, pairs):
    """The weights that the U-Net must have, computed here."""
    weights = {name: module.weight.detach().clone() for name, module in linear_modules(detokenizer.unet).items()}
    for name, (down, up) in pairs.items():
        weights[name] += torch.einsum("or,r...->o...", up.flatten(1), down) * ALPHA / RANK
    return weights


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_spelling_is_the_same_lora(detokenizer, pairs, expected, tmp_path, spelling):
    save_file(dict(SPELLINGS[spelling](pairs)), tmp_path / "some_lora.safetensors")
    before = {name: module.weight.detach().clone() for name, module in linear_modules(detokenizer.unet).items()}
    detokenizer.load_lora_weights(tmp_path)
    assert list(detokenizer.loras) == ["some_lora"]
    for name, module in linear_modules(detokenizer.unet).items():
        torch.testing.assert_close(module.weight, expected[name], rtol=0, atol=1e-6)
    detokenizer.unload_lora_weights()
    for name, module in linear_modules(detokenizer.unet).items():
        torch.testing.assert_close(module.weight, before[name], rtol=0, atol=1e-6)
    assert not detokenizer.loras


NUMBERED = {
    "input_blocks_0_0": "conv_in",
    "input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
    "input_blocks_2_0_op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks_3_0_emb_layers_1": "down_blocks.1.resnets.0.time_emb_proj",
    "input_blocks_3_1_proj_in": "down_blocks.1.attentions.0.proj_in",
    "input_blocks_3_1_transformer_blocks_1_attn2_to_k": "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
    "middle_block_0_out_layers_3": "mid_block.resnets.0.conv2",
    "middle_block_1_transformer_blocks_0_ff_net_0_proj": "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "middle_block_2_in_layers_2": "mid_block.resnets.1.conv1",
    "output_blocks_0_0_skip_connection": "up_blocks.0.resnets.0.conv_shortcut",
    "output_blocks_1_1_transformer_blocks_0_attn1_to_q": "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q",
    "output_blocks_1_2_conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks_3_0_out_layers_3": "up_blocks.1.resnets.1.conv2",
}


def test_blocks_numbered_as_by_stability_are_those_that_diffusers_finds(detokenizer, tmp_path):
    weights, modules = {}, linear_modules(detokenizer.unet)
    for spelled, name in NUMBERED.items():
        shape = modules[name].weight.shape
        weights[f"lora_unet_{spelled}.lora_down.weight"] = torch.zeros(RANK, *shape[1:])
        weights[f"lora_unet_{spelled}.lora_up.weight"] = torch.zeros(shape[0], RANK, *[1] * len(shape[2:]))
    save_file(weights, tmp_path / "numbered.safetensors")
    assert list(read_lora(detokenizer.unet, tmp_path).pairs) == sorted(
        NUMBERED.values(), key=list(NUMBERED.values()).index
    )
    attentions = {key: weight for key, weight in weights.items() if "attn" in key}
    theirs, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(attentions, unet_config=detokenizer.unet.config)
    assert {re.split("_lora|.lora", key.removeprefix("unet.").replace(".processor", ""))[0] for key in theirs} == {
        name for name in NUMBERED.values() if "attn" in name
    }


def test_a_lora_beside_the_weights_draws_as_the_fused_one_and_its_part_can_be_changed(
    detokenizer, features, pairs, plain, tmp_path
):
    save_file(dict(kohya(pairs)), tmp_path / "a-b.safetensors")
    detokenizer.enable_context_cache()
    detokenizer.load_lora_weights(tmp_path / "a-b.safetensors", adapter_name="few")
    fused = drawn(detokenizer, features)
    assert not torch.allclose(fused, plain, atol=1e-2)
    detokenizer.unload_lora_weights("few")
    detokenizer.load_lora_weights(tmp_path / "a-b.safetensors", fuse=False)
    torch.testing.assert_close(drawn(detokenizer, features), fused, rtol=0, atol=1e-3)
    for call in (
        detokenizer.fuse_qkv_projections,
        lambda: detokenizer.save_pretrained(tmp_path / "saved"),
        lambda: detokenizer.load_lora_weights(tmp_path / "a-b.safetensors"),
        lambda: detokenizer.unload_lora_weights("few"),
        lambda: detokenizer.set_adapters("few", 0.5),
    ):
        with pytest.raises(ValueError, match="LoRA"):
            call()
    detokenizer.set_adapters("a_b", 0.0)
    torch.testing.assert_close(drawn(detokenizer, features), plain, rtol=0, atol=1e-4)
    detokenizer.unload_lora_weights()
    saved = saved_and_drawn(detokenizer, features, tmp_path)  # under plain names again
    torch.testing.assert_close(saved, plain, rtol=0, atol=1e-4)


def test_several_loras_beside_the_weights_count_together(detokenizer, features, pairs, tmp_path):
    names = sorted(pairs)
    save_file(dict(kohya({name: pairs[name] for name in names[::2]})), tmp_path / "one.safetensors")
    save_file(dict(kohya({name: pairs[name] for name in names[1::2]})), tmp_path / "two.safetensors")
    images = []
    for fuse in (True, False):
        for file in ("one", "two"):
            detokenizer.load_lora_weights(tmp_path / f"{file}.safetensors", fuse=fuse, scale=0.7)
        images.append(drawn(detokenizer, features))
        detokenizer.unload_lora_weights()
    torch.testing.assert_close(*images, rtol=0, atol=1e-3)


def saved_and_drawn(detokenizer, features, folder):
    detokenizer.save_pretrained(folder / "saved")
    return drawn(Detokenizer.from_pretrained(folder / "saved"), features)


def test_fused_projections_take_a_fused_lora(detokenizer, features, pairs, tmp_path):
    save_file(dict(kohya(pairs)), tmp_path / "l.safetensors")
    detokenizer.load_lora_weights(tmp_path)
    expected = drawn(detokenizer, features)
    detokenizer.unload_lora_weights()
    detokenizer.fuse_qkv_projections()
    with pytest.raises(ValueError, match="cannot lie beside fused projections"):
        detokenizer.load_lora_weights(tmp_path, fuse=False)
    detokenizer.load_lora_weights(tmp_path)
    torch.testing.assert_close(drawn(detokenizer, features), expected, rtol=0, atol=1e-4)
    saved = saved_and_drawn(detokenizer, features, tmp_path)
    torch.testing.assert_close(saved, expected, rtol=0, atol=1e-4)
    detokenizer.unload_lora_weights()
    detokenizer.unfuse_qkv_projections()


def without(pairs, end):
    return {key: weight for key, weight in kohya(pairs) if not key.endswith(end)}


CHANGES = {
    "is incomplete: .* has no up weight": lambda pairs: without(pairs, "attn1_to_q.lora_up.weight"),
    "is no LoRA that is known here: it holds 'time.hada_w1'": lambda pairs: {"time.hada_w1": torch.ones(2)},
    "has nothing that 'lora_unet_down_blocks_9_x.lora_up.weight' means": lambda pairs: {
        "lora_unet_down_blocks_9_x.lora_up.weight": torch.ones(2, 2)
    },
    "holds no LoRA of a U-Net": lambda pairs: {"lora_te1_layer.lora_up.weight": torch.ones(2, 2)},
    r"is \[64, 64\], and the LoRA's weights are \[2, 48\] and \[64, 2\]": lambda pairs: {
        "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(2, 48),
        "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(64, 2),
    },
    "are NaN": lambda pairs: {key: weight / 0 for key, weight in peft(pairs)},
}


@pytest.mark.parametrize("message", CHANGES)
def test_what_does_not_fit_is_named_and_changes_nothing(detokenizer, features, pairs, plain, tmp_path, message):
    save_file(CHANGES[message](pairs), tmp_path / "lora.safetensors")
    weights = [weight.clone() for weight in detokenizer.unet.parameters()]
    with pytest.raises(ValueError, match=message) as caught:
        detokenizer.load_lora_weights(tmp_path)
    assert "\n" not in str(caught.value) and not detokenizer.loras
    assert all(torch.equal(one, two) for one, two in zip(weights, detokenizer.unet.parameters(), strict=True))


def test_only_safetensors_that_are_there_are_read(detokenizer, pairs, tmp_path):
    torch.save({}, tmp_path / "lora.bin")
    with pytest.raises(ValueError, match="pickles are never loaded"):
        detokenizer.load_lora_weights(tmp_path / "lora.bin")
    with pytest.raises(ValueError, match="must hold one safetensors file; it has none"):
        detokenizer.load_lora_weights(tmp_path)
    with pytest.raises(ValueError, match="there is no LoRA"):
        detokenizer.load_lora_weights(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nobody/nothing cannot be fetched"):
        detokenizer.load_lora_weights("nobody/nothing")
    save_file(dict(peft(pairs)), tmp_path / "one.safetensors")
    shutil.copy(tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match=r"it has 2: name one of one\.safetensors, two\.safetensors"):
        detokenizer.load_lora_weights(tmp_path)
    with pytest.raises(ValueError, match="name of a LoRA|leaves|outside"):
        detokenizer.load_lora_weights(tmp_path, "../one.safetensors")
    (tmp_path / "two.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        detokenizer.load_lora_weights(tmp_path, "two.safetensors")
    detokenizer.load_lora_weights(tmp_path, "one.safetensors", scale=0.5)
    detokenizer.unload_lora_weights()
