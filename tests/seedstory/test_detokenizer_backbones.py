"""De-tokenizers around Stable Diffusion 1, Stable Diffusion 3 and FLUX.2, against diffusers' own pipelines."""

import inspect
import json
import shutil

import diffusers
import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.from_base import detokenizer_from_base
from seedstory.detokenizers.preview import LatentPreview
from seedstory.memory.estimate import ModelMemory
from seedstory.page import Page
from seedstory.server.job import Job
from seedstory.server.jobs import JobRunner
from seedstory.server.library import JobRecord, Library
from seedstory.settings import StorySettings
from tests.tiny import tiny_pipeline
from tests.tiny_backbones import FORMS, tiny_flux2, tiny_sd3, write_backbone
from tests.tiny_sdxl import SIDE, tiny_unet
from training.detokenizer import draw_images

SIZES = {"num_features": 9, "feature_dim": 6, "context_tokens": 5, "width": 32, "depth": 1, "image_size": SIDE}
FEW = {"num_inference_steps": 4, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {form: write_backbone(form, tmp_path_factory.mktemp(form)) for form in FORMS}


@pytest.fixture(scope="module")
def detokenizers(bases):
    torch.manual_seed(1)
    return {form: detokenizer_from_base(form, base, **SIZES) for form, base in bases.items()}


@pytest.fixture(scope="module")
def features():
    return torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(1))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def own_pipeline(detokenizer, scheduler):
    network, vae = detokenizer.unet, detokenizer.autoencoder.vae
    if detokenizer.form == "sd15":
        made = diffusers.StableDiffusionPipeline(
            vae,
            None,
            None,
            network,
            scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    elif detokenizer.form == "sd3":
        made = diffusers.StableDiffusion3Pipeline(network, scheduler, vae, *(None,) * 6)
    elif network.config.guidance_embeds:
        made = diffusers.Flux2Pipeline(scheduler, vae, None, None, network)
    else:
        made = diffusers.Flux2KleinPipeline(scheduler, vae, None, None, network)
    made.set_progress_bar_config(disable=True)
    return made


def drawn_by_diffusers(detokenizer, features, scheduler, **options):
    with torch.no_grad():
        shown, hidden = (detokenizer.adapter(some).inputs for some in (features, torch.zeros_like(features)))
    embeds = {"prompt_embeds": shown["encoder_hidden_states"]}
    if not getattr(detokenizer.unet.config, "guidance_embeds", False):
        embeds["negative_prompt_embeds"] = hidden["encoder_hidden_states"]
    if detokenizer.form == "sd3":
        embeds["pooled_prompt_embeds"] = shown["pooled_projections"]
        embeds["negative_pooled_prompt_embeds"] = hidden["pooled_projections"]
    # The noise is given, since FLUX.2's pipeline draws it in a shape of its own.
    shape = (len(features), detokenizer.autoencoder.config.latent_channels, *(detokenizer.latent_size,) * 2)
    noise = torch.randn(shape, generator=generators(1)[0])
    pipeline = own_pipeline(detokenizer, scheduler)
    theirs = pipeline(**embeds, latents=noise, **options, height=SIDE, width=SIDE, output_type="pt").images
    return noise, theirs


SCHEDULERS = {
    "sd15": {"as published": {}, "v": {"prediction_type": "v_prediction"}},
    "sd3": {"as published": {}, "dynamic": {"use_dynamic_shifting": True}},
    "flux2": {"as published": {}, "static": {"use_dynamic_shifting": False}},
}


@pytest.mark.parametrize(("form", "kind"), [(form, kind) for form in FORMS for kind in SCHEDULERS[form]])
def test_drawing_is_that_of_diffusers_own_pipeline(detokenizers, features, form, kind):
    detokenizer, changes = detokenizers[form], SCHEDULERS[form][kind]
    schedulers = [type(detokenizer.scheduler).from_config(detokenizer.scheduler.config, **changes) for _ in range(2)]
    own = Detokenizer(detokenizer.unet, detokenizer.adapter, detokenizer.autoencoder, schedulers[0])
    noise, theirs = drawn_by_diffusers(own, features, schedulers[1], **FEW)
    ours = own(features, **FEW, latents=noise, output_type="pt")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_a_flux_that_embeds_guidance_gets_that_of_its_pipeline(bases, features):
    detokenizer = detokenizer_from_base("flux2", bases["flux2"], **SIZES)
    torch.manual_seed(2)
    network = tiny_flux2(guidance_embeds=True)
    own = Detokenizer(network, detokenizer.adapter, detokenizer.autoencoder, detokenizer.scheduler)
    assert own.objective.guidance_scale == 1.0
    scheduler = type(own.scheduler).from_config(own.scheduler.config)
    noise, theirs = drawn_by_diffusers(own, features, scheduler, num_inference_steps=4)
    ours = own(features, num_inference_steps=4, latents=noise, output_type="pt")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_steps_and_guidance_are_those_of_diffusers_pipelines(detokenizers, form):
    pipeline = {"sd15": "StableDiffusionPipeline", "sd3": "StableDiffusion3Pipeline", "flux2": "Flux2KleinPipeline"}[
        form
    ]
    theirs = inspect.signature(getattr(diffusers, pipeline).__call__).parameters
    objective = detokenizers[form].objective
    assert objective.num_inference_steps == theirs["num_inference_steps"].default
    assert objective.guidance_scale == theirs["guidance_scale"].default


@pytest.mark.parametrize("form", FORMS)
def test_everything_that_steers_a_picture_changes_it(detokenizers, features, form):
    detokenizer = detokenizers[form]
    noise = torch.randn(1, detokenizer.autoencoder.config.latent_channels, *(detokenizer.latent_size,) * 2)
    time = detokenizer.objective.time(torch.tensor([0.5]))
    with torch.no_grad():
        shown = detokenizer.adapter(features[:1])
        plain = detokenizer.predict(noise, time, shown)
        for name, tensor in shown.inputs.items():
            other = shown._replace(inputs=shown.inputs | {name: tensor + torch.randn_like(tensor)})
            assert (detokenizer.predict(noise, time, other) - plain).abs().mean() > 1e-3, name
        early = detokenizer.objective.time(torch.tensor([0.05]))
        assert (detokenizer.predict(noise, early, shown) - plain).abs().mean() > 1e-3
    assert ("pooled_projections" in shown.inputs) == (form == "sd3")


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_detokenizer_comes_back_as_it_was(detokenizers, features, tmp_path, form):
    detokenizers[form].save_pretrained(tmp_path)
    assert (tmp_path / ("unet" if form == "sd15" else "transformer")).is_dir()
    again = Detokenizer.from_pretrained(tmp_path)
    assert again.form == form and (again.image_size, again.encoder_image_size) == (SIDE, SIDE)
    one, two = (d(features[:1], generators(1), **FEW, output_type="pt") for d in (detokenizers[form], again))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)  # not bits: sums depend on where weights lie in memory
    half = Detokenizer.from_pretrained(tmp_path, dtype=torch.bfloat16)
    rounded = half(features[:1], generators(1), **FEW, output_type="pt")
    assert half.dtype == torch.bfloat16 and (rounded - one).abs().mean() < 0.05


@pytest.mark.parametrize("form", FORMS)
def test_memory_is_foretold_for_the_size_that_is_drawn(bases, tmp_path, form):
    passes = []
    for size in (SIDE, 2 * SIDE):
        detokenizer_from_base(form, bases[form], **SIZES | {"image_size": size}).save_pretrained(tmp_path)
        sizes = ModelMemory(None, None, Detokenizer.lay_out(tmp_path))
        passes.append(sizes._drawing_pass(torch.float32, False))
    assert passes[1] > 2 * passes[0] > 0


@pytest.mark.parametrize("form", FORMS)
def test_pictures_of_held_out_pages_have_the_size_that_is_drawn(bases, features, form):
    larger = detokenizer_from_base(form, bases[form], **SIZES | {"image_size": 2 * SIDE})
    assert draw_images(larger, features[:1], steps=1).shape == (1, 3, 2 * SIDE, 2 * SIDE)


@pytest.mark.parametrize("form", FORMS)
def test_pictures_in_a_batch_are_those_drawn_alone(detokenizers, features, form):
    batched = detokenizers[form](features, generators(5, 6, 7), **FEW, output_type="pt")
    alone = [detokenizers[form](features[i : i + 1], generators(5 + i), **FEW, output_type="pt") for i in range(3)]
    torch.testing.assert_close(batched, torch.cat(alone), rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_latents_are_scaled_as_the_pipelines_scale_them(detokenizers, form):
    autoencoder = detokenizers[form].autoencoder
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=generators(3)[0]) * 2 - 1
    with torch.no_grad():
        latents = autoencoder.encode(pixels)
        theirs = autoencoder.vae.encode(pixels).latent_dist.mode()
        if form == "flux2":
            pack, norm = diffusers.Flux2KleinPipeline._patchify_latents, autoencoder.vae.bn
            expected = torch.nn.functional.batch_norm(
                pack(theirs), norm.running_mean, norm.running_var, eps=autoencoder.vae.config.batch_norm_eps
            )
        else:
            shift = autoencoder.vae.config.shift_factor or 0.0
            expected = (theirs - shift) * autoencoder.vae.config.scaling_factor
        torch.testing.assert_close(latents, expected)
        torch.testing.assert_close(autoencoder(pixels), autoencoder.vae.decode(theirs).sample, rtol=0, atol=1e-4)
    assert latents.shape[1] == autoencoder.config.latent_channels


@pytest.mark.parametrize("form", FORMS[1:])
def test_a_perfect_velocity_leads_back_to_the_latents(detokenizers, form):
    objective = detokenizers[form].objective
    latents, noise = torch.randn(2, 2, 6, 8, 8, generator=generators(1)[0])

    def predict(noisy, time):
        target, weight = objective.target(latents, (noisy - (1 - time) * latents) / time, time.expand(2))
        assert torch.equal(weight, torch.ones(2, 1, 1, 1))
        return target

    *_, (_, found, _) = steps = list(objective.denoise(noise, 5, predict, None))
    torch.testing.assert_close(found, latents, rtol=0, atol=1e-4)
    for _, _, clean in steps:
        torch.testing.assert_close(clean, latents, rtol=0, atol=1e-4)
    time = torch.tensor([0.25, 1.0])
    expected = torch.stack([0.75 * latents[0] + 0.25 * noise[0], noise[1]])
    torch.testing.assert_close(objective.noisy(latents, noise, time), expected)


def test_times_of_training_are_logit_normal_and_shifted_as_the_scheduler_says(detokenizers):
    """As diffusers' training script draws them: a place in the scheduler's own list of shifted noise levels."""
    torch.manual_seed(0)
    drawn = compute_density_for_timestep_sampling("logit_normal", 100_000, logit_mean=0.0, logit_std=1.0)
    scheduler = detokenizers["sd3"].scheduler
    theirs = scheduler.sigmas[(drawn * scheduler.config.num_train_timesteps).long()]
    ours = detokenizers["sd3"].objective.time((torch.arange(100_000) + 0.5) / 100_000)
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    torch.testing.assert_close(ours.quantile(levels), theirs.quantile(levels), rtol=0, atol=0.01)
    assert detokenizers["flux2"].objective.time(torch.tensor([0.5])).item() == pytest.approx(0.5)
    ends = detokenizers["sd3"].objective.time(torch.tensor([0.0, 0.99999994]))
    assert 0 < ends[0] < 0.1 and 0.9 < ends[1] < 1


def test_another_size_of_pictures_may_be_asked_for(bases, features):
    for form, base in bases.items():
        larger = detokenizer_from_base(form, base, **SIZES | {"image_size": 24})
        (image,) = larger(features[:1], generators(1), num_inference_steps=2)
        assert image.size == (24, 24) and larger.encoder_image_size == 24
    assert detokenizer_from_base("sd3", bases["sd3"], **SIZES | {"image_size": None}).image_size == SIDE


@pytest.mark.parametrize("form", FORMS)
def test_drafts_are_shown_while_it_draws(detokenizers, features, form):
    preview, drafts = LatentPreview(detokenizers[form]), []

    def show(detokenizer, step, timestep, seen):
        drafts.extend(preview(seen["pred_original_sample"]))

    (image,) = detokenizers[form](features[:1], generators(1), **FEW, callback_on_step_end=show)
    assert len(drafts) >= 4 and all(draft.size == image.size for draft in drafts)


def change_config(folder, **changes):
    path = folder / ("scheduler_config.json" if folder.name == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("sd15", lambda folder: shutil.rmtree(folder / "unet"), "no sd15 folder of diffusers' layout: it lacks unet/"),
        ("sd3", lambda folder: shutil.rmtree(folder / "transformer"), "it lacks transformer/"),
        ("flux2", lambda folder: shutil.rmtree(folder), "there is no flux2 folder"),
        ("sd15", lambda folder: tiny_unet().save_pretrained(folder / "unet"), "form sd15: it is of the form sdxl"),
        (
            "sd15",
            lambda folder: tiny_unet(
                in_channels=9, addition_embed_type=None, projection_class_embeddings_input_dim=None
            ).save_pretrained(folder / "unet"),
            "form sd15: it draws from more than latents and context tokens",
        ),
        ("sd3", lambda folder: tiny_flux2().save_pretrained(folder / "transformer"), "holds a Flux2Transformer2DModel"),
        ("sd3", lambda folder: tiny_sd3(in_channels=4).save_pretrained(folder / "transformer"), "latent channels is 6"),
        (
            "sd3",
            lambda folder: change_config(folder / "scheduler", _class_name="DDIMScheduler"),
            "transformer cannot draw with DDIMScheduler: it needs a FlowMatchEulerDiscreteScheduler",
        ),
        (
            "flux2",
            lambda folder: change_config(folder / "transformer", num_layers=3),
            "do not fit its configuration: 32 weights are missing",
        ),
    ],
)
def test_a_wrong_folder_is_named(bases, tmp_path, form, change, message):
    folder = shutil.copytree(bases[form], tmp_path / form)
    change(folder)
    with pytest.raises(ValueError, match=message):
        detokenizer_from_base(form, folder, **SIZES)


@pytest.mark.parametrize(
    ("form", "sizes", "message"),
    [
        ("sdxl", {}, "form must be one of sd15, sd3, flux2, not 'sdxl'"),
        ("sd3", {"image_size": 18}, "image_size must be a multiple of 4, not 18"),
        ("sd3", {"image_size": 64}, "image_size must be at most 48, not 64: the network has no more positions"),
        ("sd15", {"num_features": 8}, "must be a square number"),
        ("flux2", {"width": 30}, "multiple of 4"),
    ],
)
def test_sizes_that_do_not_go_are_refused(bases, form, sizes, message):
    with pytest.raises(ValueError, match=message):
        detokenizer_from_base(form, bases.get(form, "x"), **SIZES | sizes)


def test_parts_of_two_forms_do_not_mix(detokenizers):
    one, two = detokenizers["sd3"], detokenizers["flux2"]  # their context tokens are equally wide
    with pytest.raises(ValueError, match="form is flux2, its network has sd3"):
        Detokenizer(one.unet, two.adapter, one.autoencoder, one.scheduler)
    with pytest.raises(ValueError, match="latent channels is 16"):
        Detokenizer(one.unet, one.adapter, two.autoencoder, one.scheduler)
    with pytest.raises(ValueError, match="a de-tokenizer cannot draw with a Linear"):
        Detokenizer(torch.nn.Linear(2, 2), one.adapter, one.autoencoder, one.scheduler)


def test_one_form_is_saved_over_another(detokenizers, tmp_path):
    pipeline = tiny_pipeline(tmp_path)
    own = pipeline.detokenizer
    for detokenizer, network in ((detokenizers["sd3"], "transformer"), (own, "unet")):
        pipeline.detokenizer = detokenizer
        pipeline.save_pretrained(tmp_path / "model")
        folder = tmp_path / "model" / "detokenizer"
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            {network, "adapter", "autoencoder", "scheduler"}
        )
        assert Detokenizer.from_pretrained(folder).form == detokenizer.form


def test_a_server_says_no_step_beyond_those_that_it_announces(detokenizers, tmp_path):
    pipeline = tiny_pipeline(tmp_path)
    pipeline.detokenizer = detokenizers["sd15"]  # with PNDM, which predicts once more than there are steps
    runner, said = JobRunner(pipeline, Library(tmp_path / "library")), []
    job = Job("story", JobRecord("waiting"))
    job.log.add = lambda kind, values, **_: said.append((kind, values["steps"], values.get("step", 0)))
    page, job.settings = Page(index=0, caption="A fox."), StorySettings(text="A fox.", num_inference_steps=2)
    for step in range(4):
        runner._drawing({0: job}, [(0, page)], step, lambda row: "")
    assert said == [("written", 2, 0), ("step", 2, 1), ("step", 2, 2), ("step", 2, 2)]


def test_a_folder_that_names_no_form_is_refused(detokenizers, tmp_path):
    detokenizers["sd3"].save_pretrained(tmp_path)
    change_config(tmp_path / "adapter", form="sd9")
    with pytest.raises(ValueError, match="adapter is of the form sd9, not mini, sd15, sdxl, sd3, flux2"):
        Detokenizer.from_pretrained(tmp_path)
