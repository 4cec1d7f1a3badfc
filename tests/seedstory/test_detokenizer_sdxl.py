"""The SDXL form of the de-tokenizer: the same calls as the mini form, with the parts of a diffusers folder."""

import json
import shutil

import diffusers
import pytest
import torch
from PIL import Image

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.kl_autoencoder import KLAutoencoder
from seedstory.detokenizers.objectives import make_objective
from seedstory.pipeline import StoryPipeline
from tests.tiny import tiny_detokenizer, tiny_model_folder
from tests.tiny_sdxl import SIDE, tiny_unet, write_sdxl

SIZES = {"num_features": 9, "feature_dim": 6, "context_tokens": 5, "width": 32, "depth": 1}
FEW = {"num_inference_steps": 3, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def detokenizer(base):
    torch.manual_seed(1)
    return Detokenizer.sdxl(base, **SIZES)


@pytest.fixture(scope="module")
def features():
    return torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(1))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_the_adapter_stands_in_for_the_text_encoders(detokenizer, features):
    assert detokenizer.form == "sdxl" and detokenizer.image_size == SIDE
    condition = detokenizer.adapter(features)
    added = condition.inputs["added_cond_kwargs"]
    assert condition.overlay is None and condition.inputs["encoder_hidden_states"].shape == (3, 5, 64)
    assert added["text_embeds"].shape == (3, 24)
    assert added["time_ids"].tolist() == [[SIDE, SIDE, 0, 0, SIDE, SIDE]] * 3


def test_images_come_in_every_form(detokenizer, features):
    images = detokenizer(features, generators(1, 2, 3), **FEW)
    assert all(isinstance(image, Image.Image) and image.size == (SIDE, SIDE) for image in images)
    pixels = detokenizer(features, generators(1, 2, 3), **FEW, output_type="pt")
    assert pixels.shape == (3, 3, SIDE, SIDE) and 0 <= pixels.min() and pixels.max() <= 1
    assert detokenizer(features, generators(1, 2, 3), **FEW, output_type="latent").shape == (3, 4, 8, 8)


def test_the_same_generator_gives_the_same_bits_and_another_one_another_image(detokenizer, features):
    one, again, other = (detokenizer(features[:1], generators(seed), **FEW, output_type="latent") for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.allclose(one, other, atol=0.1)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"])
def test_an_image_with_its_own_generator_is_the_one_drawn_alone(detokenizer, features, name):
    scheduler = getattr(diffusers, name).from_config(detokenizer.scheduler.config)  # the second adds noise on the way
    own = Detokenizer(detokenizer.unet, detokenizer.adapter, detokenizer.autoencoder, scheduler)
    batched = own(features, generators(5, 6, 7), **FEW, output_type="pt")
    alone = [own(features[i : i + 1], generators(5 + i), **FEW, output_type="pt") for i in range(3)]
    torch.testing.assert_close(batched, torch.cat(alone), rtol=0, atol=1e-4)


def test_guidance_and_features_change_the_image(detokenizer, features):
    def drawn(features, scale):
        return detokenizer(features, generators(1), 3, scale, output_type="latent")

    plain, apply_guidance, empty = drawn(features[:1], 1.0), drawn(features[:1], 5.0), drawn(torch.zeros(1, 9, 6), 5.0)
    assert not torch.allclose(plain, apply_guidance, atol=1e-3)
    assert not torch.allclose(plain, drawn(features[1:2], 1.0), atol=1e-3)
    torch.testing.assert_close(empty, drawn(torch.zeros(1, 9, 6), 1.0))  # away from itself is nowhere


def test_steps_and_guidance_are_the_forms_own_unless_given(detokenizer, features):
    def steps(detokenizer, **options):
        seen = []
        detokenizer(features[:1], guidance_scale=1.0, callback_on_step_end=lambda *step: seen.append(step), **options)
        assert [step for _, step, _, _ in seen] == list(range(len(seen)))
        return len(seen)

    assert steps(detokenizer) == 50 and steps(detokenizer, num_inference_steps=2) == 2
    assert steps(tiny_detokenizer()) == 4
    one, two = (detokenizer(features[:1], generators(1), 2, *scale, output_type="pt") for scale in ((), (7.5,)))
    assert torch.equal(one, two)


def test_drawing_is_that_of_diffusers_own_pipeline(detokenizer, features):
    pipeline = diffusers.StableDiffusionXLPipeline(
        detokenizer.autoencoder.vae,
        None,
        None,
        None,
        None,
        detokenizer.unet,
        diffusers.EulerDiscreteScheduler.from_config(detokenizer.scheduler.config),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        shown, hidden = (detokenizer.adapter(some).inputs for some in (features, torch.zeros_like(features)))
    theirs = pipeline(
        prompt_embeds=shown["encoder_hidden_states"],
        pooled_prompt_embeds=shown["added_cond_kwargs"]["text_embeds"],
        negative_prompt_embeds=hidden["encoder_hidden_states"],
        negative_pooled_prompt_embeds=hidden["added_cond_kwargs"]["text_embeds"],
        generator=generators(1, 2, 3),
        **FEW,
        height=SIDE,
        width=SIDE,
        output_type="pt",
    ).images
    ours = detokenizer(features, generators(1, 2, 3), **FEW, output_type="pt")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_leads_back_to_the_latents(kind):
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type=kind, timestep_spacing="trailing")
    objective = make_objective(scheduler)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=generators(1)[0])
    reference = diffusers.DDPMScheduler.from_config(scheduler.config)
    time = objective.time(torch.tensor([0.3, 0.9999]))
    assert time.tolist() == [300.0, 999.0]
    expected = reference.add_noise(latents, noise, time.long())
    torch.testing.assert_close(objective.noisy(latents, noise, time), expected)
    target, weight = objective.target(latents, noise, time)
    velocity = reference.get_velocity(latents, noise, time.long())
    torch.testing.assert_close(target, noise if kind == "epsilon" else velocity)
    assert weight.shape == (2, 1, 1, 1)

    def predict(noisy, timestep):  # of one who knows the latents
        signal, sigma = objective._shares(timestep.expand(2))
        own_noise = (noisy - signal * latents) / sigma
        return objective.target(latents, own_noise, timestep.expand(2))[0]

    *_, (_, found, _) = steps = list(objective.denoise(noise, 5, predict, None))
    torch.testing.assert_close(found, latents, rtol=0, atol=1e-3)
    for _, _, clean in steps:
        torch.testing.assert_close(clean, latents, rtol=0, atol=1e-3)


def test_a_saved_detokenizer_comes_back_as_it_was(detokenizer, features, tmp_path):
    detokenizer.save_pretrained(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in (".json", ".safetensors")]
    again = Detokenizer.from_pretrained(tmp_path)
    assert again.form == "sdxl" and again.scheduler.config.prediction_type == "epsilon"
    one, two = (d(features, generators(1, 2, 3), **FEW, output_type="pt") for d in (detokenizer, again))
    assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_nearly_the_same(detokenizer, features, tmp_path, dtype):
    detokenizer.save_pretrained(tmp_path)
    half = Detokenizer.from_pretrained(tmp_path, dtype=dtype)
    assert half.dtype == dtype and half.autoencoder.vae.dtype == (
        torch.float32 if dtype == torch.float16 else torch.bfloat16  # it says of itself that float16 overflows
    )
    one, two = (d(features, generators(1, 2, 3), **FEW, output_type="pt") for d in (detokenizer, half))
    torch.testing.assert_close(one, two, rtol=0, atol=0.1)
    assert KLAutoencoder(detokenizer.autoencoder.vae).downscale == 2


def test_a_model_folder_may_hold_it(base, tmp_path):
    folder = tiny_model_folder(tmp_path)
    shutil.rmtree(folder / "detokenizer")
    Detokenizer.sdxl(base, **SIZES).save_pretrained(folder / "detokenizer")
    pipeline = StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu")
    story = pipeline("The fox found a lantern.", pages=2, num_inference_steps=2, guidance_scale=3.0)
    assert [page.image.size for page in story.pages] == [(SIDE, SIDE)] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "vae"), "is no SDXL folder of diffusers' layout: it lacks vae/"),
        (lambda folder: shutil.rmtree(folder), "there is no SDXL folder"),
        (lambda folder: (folder / "unet" / "config.json").unlink(), "unet is no part of a model: it has no"),
        (lambda folder: (folder / "vae" / "config.json").write_text("{"), r"config\.json is not valid JSON"),
        (lambda folder: rename(folder / "vae"), "holds a FluxAutoencoder, which is none of AutoencoderKL"),
        (lambda folder: weights(folder).write_bytes(b"no"), "cannot be read as safetensors"),
        (lambda folder: weights(folder).unlink(), "holds no safetensors file"),
        (lambda folder: unet(folder, addition_embed_type=None), "is not the U-Net of an SDXL"),
        (lambda folder: unet(folder, in_channels=9), "is not the U-Net of an SDXL"),
        (lambda folder: scheduler(folder, "LCMSchedulr"), "LCMSchedulr, which is no scheduler of diffusers"),
        (lambda folder: scheduler(folder, "FlowMatchHeunDiscreteScheduler"), "cannot draw with FlowMatchHeun"),
        (lambda folder: scheduler(folder, "DDIMScheduler", prediction_type="sample"), "epsilon or v_prediction, not"),
    ],
)
def test_a_wrong_folder_is_named(base, tmp_path, change, message):
    folder = shutil.copytree(base, tmp_path / "sdxl")
    change(folder)
    with pytest.raises(ValueError, match=message):
        Detokenizer.sdxl(folder, **SIZES)


def weights(folder):
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def unet(folder, **changes):
    tiny_unet(**changes).save_pretrained(folder / "unet")


def rename(folder):
    scheduler(folder, "FluxAutoencoder", "config.json")


def scheduler(folder, name, file="scheduler/scheduler_config.json", **changes):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": name} | changes))


def test_what_the_hub_lacks_is_named():
    with pytest.raises(ValueError, match="nobody/nothing cannot be fetched from the Hugging Face Hub"):
        Detokenizer.sdxl("nobody/nothing")  # no network in tests


def test_parts_of_both_forms_do_not_mix(detokenizer, features, tmp_path):
    detokenizer.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "adapter")
    tiny_detokenizer().adapter.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="parts of this de-tokenizer do not fit: cross_attention_dim is 16"):
        Detokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("sizes", "message"), [({"num_features": 8}, "must be a square number"), ({"width": 30}, "multiple of 4")]
)
def test_sizes_that_do_not_go_are_refused(base, sizes, message):
    with pytest.raises(ValueError, match=message):
        Detokenizer.sdxl(base, **SIZES | sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": torch.zeros(1, 4, 6)}, r"features must be \[B, 9, 6\]"),
        ({"features": torch.full((1, 9, 6), float("nan"))}, "NaN or infinity"),
        ({"features": torch.zeros(1, 9, 6, dtype=torch.int32)}, "must be floats, not torch.int32"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"output_type": "jpeg"}, "unknown output_type"),
        ({"generator": []}, "0 generators for 1 pictures"),
    ],
)
def test_wrong_calls_are_refused(detokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        detokenizer(**{"features": torch.zeros(1, 9, 6)} | options)
