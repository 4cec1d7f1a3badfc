"""Schedulers by name, and guidance in a share of the steps."""

import diffusers
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.guidance import join
from seedstory.detokenizers.objectives import Diffusion, make_objective
from seedstory.detokenizers.schedulers import SCHEDULERS, make_scheduler
from tests.tiny import tiny_detokenizer
from tests.tiny_sdxl import tiny_sdxl_detokenizer

PUBLISHED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def detokenizer():
    return tiny_sdxl_detokenizer()


@pytest.fixture(scope="module")
def features():
    return torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(1))


def drawn(detokenizer, features, **options):
    generator = [torch.Generator().manual_seed(seed) for seed in range(len(features))]
    return detokenizer(features, generator, output_type="latent", **options)


def calls(detokenizer, features, **options):
    """The number of pictures in each pass through the U-Net."""
    seen = []
    handle = detokenizer.unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    drawn(detokenizer, features, **options)
    handle.remove()
    return seen


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_of_a_call_draws_as_if_it_were_the_own_one(detokenizer, features, name):
    asked = {"num_inference_steps": 2, "guidance_scale": 1.0}
    latents = drawn(detokenizer, features[:1], scheduler=name, **asked)
    own = Detokenizer(
        detokenizer.unet, detokenizer.adapter, detokenizer.autoencoder, make_scheduler(name, detokenizer.scheduler)
    )
    assert torch.isfinite(latents).all() and torch.equal(drawn(own, features[:1], **asked), latents)


def test_few_step_schedulers_bring_their_steps_and_no_guidance(detokenizer, features):
    assert calls(detokenizer, features[:1], scheduler="lightning") == [1] * 4
    assert calls(detokenizer, features[:1], scheduler="lightning", num_inference_steps=2, guidance_scale=2) == [1] * 4


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_named_scheduler_depends_on_nothing_that_was_set_before_and_survives_a_folder(name, tmp_path):
    published = EulerDiscreteScheduler(**PUBLISHED, prediction_type="v_prediction", timestep_spacing="trailing")
    made = make_scheduler(name, published)
    for other in ("dpmsolver++", "lcm"):
        assert make_scheduler(name, make_scheduler(other, published)).config == made.config
    assert made.config.prediction_type == "v_prediction" and made.config.beta_end == 0.012
    made.save_pretrained(tmp_path)
    objective = make_objective(type(made).from_pretrained(tmp_path))
    assert objective.num_inference_steps == SCHEDULERS[name].num_inference_steps
    assert objective.guidance_scale == SCHEDULERS[name].guidance_scale


def test_twenty_steps_of_dpmsolver_are_nearer_to_the_truth_than_fifty_of_euler():
    torch.manual_seed(0)
    means, variance = 0.9 * torch.randn(40, 64), 0.05  # a mixture of Gaussians, whose noise is known exactly
    published = EulerDiscreteScheduler(**PUBLISHED)
    noise = torch.randn(64, 64, 1, 1)

    def end(scheduler, steps):
        objective = Diffusion(scheduler)

        def predict(noisy, time):
            kept = objective.scheduler.alphas_cumprod[time.long()]
            spread, x = kept * variance + 1 - kept, noisy[:, :, 0, 0]
            near = torch.softmax(-(x[:, None] - means * kept.sqrt()).square().sum(-1) / (2 * spread), 1)
            return ((1 - kept).sqrt() * (x - near @ means * kept.sqrt()) / spread)[:, :, None, None]

        *_, (_, latents, _) = objective.denoise(noise, steps, predict, None)
        return latents

    truth = end(diffusers.DDIMScheduler(**PUBLISHED, clip_sample=False, timestep_spacing="trailing"), 1000)
    errors = {
        name: (end(make_scheduler(name, published), SCHEDULERS[name].num_inference_steps) - truth).square().mean()
        for name in ("euler", "ddim", "dpmsolver++", "unipc")
    }
    assert errors["dpmsolver++"] < errors["euler"] / 10 and errors["unipc"] < errors["euler"] / 10
    assert errors["dpmsolver++"] < errors["ddim"] / 10


def test_what_does_not_fit_is_refused_in_one_line(detokenizer, features):
    mini = tiny_detokenizer()
    for name in SCHEDULERS:
        if name != "euler":
            with pytest.raises(ValueError, match="does not fit this de-tokenizer, which learned rectified flow"):
                mini(features, scheduler=name)
    assert torch.equal(drawn(mini, features, scheduler="euler"), drawn(mini, features))
    with pytest.raises(ValueError, match="unknown scheduler 'dpm': choose one of euler, euler_ancestral, ddim"):
        detokenizer(features, scheduler="dpm")
    with pytest.raises(ValueError, match="LCMScheduler cannot draw in 60 steps"):
        detokenizer(features, scheduler="lcm", num_inference_steps=60)
    for interval in ((0.5, 0.2), (-0.1, 1), (0.5,), "0.5", (0.0, float("nan"))):
        with pytest.raises(ValueError, match="guidance_interval must be two numbers"):
            detokenizer(features, guidance_interval=interval)


@pytest.mark.parametrize("one_pass", [False, True])
def test_guidance_costs_only_where_it_steers(detokenizer, features, one_pass):
    asked = {"num_inference_steps": 4, "guidance_scale": 3.0}
    whole = drawn(detokenizer, features, **asked) if one_pass else None
    detokenizer.guides_in_one_pass = one_pass
    guided = [4] if one_pass else [2, 2]
    try:
        assert calls(detokenizer, features, **asked) == 4 * guided
        assert calls(detokenizer, features, **asked, guidance_interval=(0.25, 0.75)) == [2, *guided, *guided, 2]
        assert calls(detokenizer, features, **asked, guidance_interval=(0.0, 0.0)) == [2] * 4
        if one_pass:
            torch.testing.assert_close(drawn(detokenizer, features, **asked), whole, rtol=0, atol=1e-4)
        assert calls(detokenizer, features, num_inference_steps=1, guidance_scale=0.0) == [2]  # none, as in diffusers
    finally:
        detokenizer.guides_in_one_pass = False


def test_guidance_in_one_pass_goes_with_the_mini_form_too():
    torch.manual_seed(0)
    mini = tiny_detokenizer()
    features = torch.randn(2, 9, 6)
    apart = drawn(mini, features, guidance_scale=2.0)
    mini.guides_in_one_pass = True
    torch.testing.assert_close(drawn(mini, features, guidance_scale=2.0), apart, rtol=0, atol=1e-5)
    both = join(mini.adapter(features), mini.adapter(features))
    assert both.overlay.shape[0] == 4 and both.inputs["encoder_hidden_states"].shape[0] == 4
