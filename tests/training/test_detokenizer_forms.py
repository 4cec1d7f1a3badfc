"""Stages 1b and 3 with the de-tokenizers of Stable Diffusion 1, Stable Diffusion 3 and FLUX.2, tiny and random."""

import pytest
import torch
from safetensors.torch import load_file

from seedstory.detokenizers.backbones import BACKBONES
from seedstory.detokenizers.detokenizer import Detokenizer
from tests.tiny import tiny_vision_tower
from tests.tiny_backbones import FORMS, write_backbone
from tests.tiny_sdxl import SIDE
from tests.training.test_loop import losses
from tests.training.tiny_data import write_book
from tests.training.toy_stage import PowerCut
from training.backend import Backend
from training.detokenizer import DetokenizerConfig, PretrainedStage, detokenizer_stage
from training.loop import train

STEPS = 6


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_book(folder / "book", pages=4)
    for form in FORMS:
        write_backbone(form, folder / form)
    torch.manual_seed(0)
    tiny_vision_tower().save_pretrained(folder / "tower")
    return folder


def config_of(folder, of_form, out, **settings):
    return DetokenizerConfig(
        **{
            "form": of_form,
            "base": str(folder / of_form),
            "image_size": SIDE,
            "tower": str(folder / "tower"),
            "data": str(folder / "book"),
            "out": str(out),
            "heldout": "train",
            "heldout_limit": 1,
            "heldout_steps": 1,
            "context_tokens": 5,
            "adapter_width": 32,
            "adapter_depth": 1,
            "parts": "kv",
            "lora_rank": 4,
            "steps": STEPS,
            "batch_size": 4,
            "log_every": 1,
            "save_every": STEPS // 2,
            "optimizer": "adamw",
            "adam_lr": 5e-3,
            "average": 0.0,
            "precision": "fp32",
            "device": "cpu",
        }
        | settings
    )


def loss_of(stage):
    """Mean over 32 times and noises, the same ones whichever the weights."""
    batch = stage.batch([(number, number % 4) for number in range(32)], "")
    with torch.no_grad():
        return stage.detokenizer_loss(batch, batch["features"]).item() / 32


def weights(folder, part):
    return load_file(folder / part / "diffusion_pytorch_model.safetensors")


class PowerFails(PretrainedStage):
    """Cut off in its fourth step, after a checkpoint."""

    def batch(self, samples, kind):
        if samples[0][0] >= 3 * self.config.batch_size:
            raise PowerCut
        return super().batch(samples, kind)


@pytest.fixture(scope="module", params=FORMS)
def trained(request, parts, tmp_path_factory):
    """A form, its stage, and the folder of its run."""
    out = tmp_path_factory.mktemp(request.param)
    return request.param, train(config_of(parts, request.param, out), detokenizer_stage), out


def test_what_reads_the_tokens_learns_and_all_else_keeps_its_bits(trained, parts):
    form, _, out = trained
    network = BACKBONES[form].folder
    before, after = weights(parts / form, network), weights(out / "detokenizer", network)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    reads = ("attn2.to_k", "attn2.to_v") if form == "sd15" else ("add_k_proj", "add_v_proj", "context_embedder")
    assert before.keys() == after.keys()
    assert changed == {name for name in before if any(part in name for part in reads)}
    vae = weights(parts / form, "vae"), weights(out / "detokenizer", "autoencoder")
    assert all(torch.equal(vae[0][name], vae[1][name]) for name in vae[0])


def test_the_loss_falls_and_what_is_written_draws(trained, parts, tmp_path):
    form, stage, out = trained
    config = config_of(parts, form, tmp_path)
    assert loss_of(stage) < loss_of(detokenizer_stage(config, Backend(config))) - 0.004
    detokenizer = Detokenizer.from_pretrained(out / "detokenizer")
    assert detokenizer.form == form
    (image,) = detokenizer(torch.zeros(1, 9, 6), num_inference_steps=2)
    assert image.size == (SIDE, SIDE)


@pytest.mark.parametrize("trained", FORMS[1:], indirect=True)
def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_been(trained, parts, tmp_path):
    form, _, out = trained
    with pytest.raises(PowerCut):
        train(config_of(parts, form, tmp_path), PowerFails)
    train(config_of(parts, form, tmp_path), detokenizer_stage)
    assert list(losses(tmp_path).values()) == pytest.approx(list(losses(out).values()), abs=1e-5)
    for part in ("adapter", BACKBONES[form].folder):
        one, two = weights(tmp_path / "detokenizer", part), weights(out / "detokenizer", part)
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_lora_is_merged_and_activations_may_be_computed_twice(parts, tmp_path, form):
    config = config_of(parts, form, tmp_path, parts="lora", gradient_checkpointing=True)
    stage = detokenizer_stage(config, Backend(config))
    learned = [weight for weight in stage.parameters() if weight.requires_grad]
    for weight in learned:
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.02)  # what comes out of LoRA begins at zero
    batch = stage.batch([(number, number) for number in range(4)], "")
    stage.detokenizer_loss(batch, batch["features"]).backward()
    twice = [weight.grad.clone() for weight in learned]
    stage.zero_grad()
    stage.unet.disable_gradient_checkpointing()
    stage.detokenizer_loss(batch, batch["features"]).backward()
    for one, two in zip(twice, learned, strict=True):
        torch.testing.assert_close(one, two.grad, rtol=0, atol=1e-5)
    stage.export_detokenizer(tmp_path)
    network = BACKBONES[form].folder
    before, after = weights(parts / form, network), weights(tmp_path / "detokenizer", network)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    targets = tuple(f"{name}.weight" for name in BACKBONES[form].lora_targets)
    assert changed == {name for name in before if name.endswith(targets)}
    for target in targets:
        assert any(name.endswith(target) for name in changed), target
    merged = Detokenizer.from_pretrained(tmp_path / "detokenizer")
    with torch.no_grad():
        one, two = (
            d.predict(batch["noise"], batch["time"], d.adapter(batch["features"])) for d in (stage.detokenizer, merged)
        )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": None}, "form: sd3 needs base"),
        ({"sdxl": "x"}, "form: sd3 has no use for sdxl"),
        ({"init": "runs/x"}, "form: sd3 has no use for base beside init"),
        ({"form": "sdxl", "sdxl": "x"}, "form: sdxl has no use for base"),
        ({"adapter": "perceiver"}, "adapter: perceiver goes with form: sdxl only"),
    ],
)
def test_settings_of_another_form_are_refused(parts, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config_of(parts, "sd3", tmp_path, **settings)


def test_a_detokenizer_of_another_form_is_refused(trained, parts, tmp_path):
    form, _, out = trained
    other = FORMS[(FORMS.index(form) + 1) % len(FORMS)]
    with pytest.raises(ValueError, match=f"of the form {form}: set form: {form}"):
        train(config_of(parts, other, tmp_path, init=str(out), base=None), detokenizer_stage)
