"""The SDXL form with SEED-Story's adapter: what reaches the U-Net, and what guidance steers away from."""

import diffusers
import pytest
import torch

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.detokenizers.perceiver_adapter import PerceiverAdapter
from tests.tiny_sdxl import SIDE, write_sdxl

SIZES = {"num_features": 9, "feature_dim": 6, "context_tokens": 5, "width": 32, "depth": 1, "adapter": "perceiver"}
FEW = {"num_inference_steps": 3, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def detokenizer(tmp_path_factory):
    torch.manual_seed(1)
    made = Detokenizer.sdxl(write_sdxl(tmp_path_factory.mktemp("sdxl")), **SIZES)
    made.adapter.blank_features.copy_(torch.randn(9, 6))
    return made


@pytest.fixture(scope="module")
def features():
    return torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(1))


def generators():
    return [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]


def test_context_tokens_pooled_embedding_and_time_ids_reach_the_unet(detokenizer, features):
    condition = detokenizer.adapter(features)
    added = condition.inputs["added_cond_kwargs"]
    assert detokenizer.form == "sdxl" and condition.overlay is None
    assert condition.inputs["encoder_hidden_states"].shape == (3, 5, 64) and added["text_embeds"].shape == (3, 24)
    assert added["time_ids"].tolist() == [[SIDE, SIDE, 0, 0, SIDE, SIDE]] * 3


def test_a_channels_size_over_all_tokens_does_not_matter_and_a_tokens_does(detokenizer, features):
    def context(features):
        return detokenizer.adapter(features).inputs["encoder_hidden_states"]

    with torch.no_grad():
        torch.testing.assert_close(context(features * torch.rand(6).add(0.5)), context(features))
        scaled = context(features * torch.rand(9, 1).add(0.5))
        assert not torch.allclose(scaled, context(features), atol=1e-3)


def test_guidance_steers_away_from_the_blank_features_as_diffusers_own_pipeline_would(detokenizer, features):
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
    blank = detokenizer.adapter.blank_features.expand(3, -1, -1)
    with torch.no_grad():
        shown, hidden = (detokenizer.adapter(some).inputs for some in (features, blank))
    theirs = pipeline(
        prompt_embeds=shown["encoder_hidden_states"],
        pooled_prompt_embeds=shown["added_cond_kwargs"]["text_embeds"],
        negative_prompt_embeds=hidden["encoder_hidden_states"],
        negative_pooled_prompt_embeds=hidden["added_cond_kwargs"]["text_embeds"],
        generator=generators(),
        **FEW,
        height=SIDE,
        width=SIDE,
        output_type="pt",
    ).images
    ours = detokenizer(features, generators(), **FEW, output_type="pt")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_blank_features_are_stored_with_the_adapter(detokenizer, features, tmp_path):
    detokenizer.save_pretrained(tmp_path)
    again = Detokenizer.from_pretrained(tmp_path)
    assert isinstance(again.adapter, PerceiverAdapter)
    assert torch.equal(again.adapter.blank_features, detokenizer.adapter.blank_features)
    one, two = (d(features, generators(), **FEW, output_type="pt") for d in (detokenizer, again))
    assert torch.equal(one, two)


def test_an_unknown_adapter_is_refused():
    with pytest.raises(ValueError, match="adapter must be one of resampler, perceiver, not 'perciever'"):
        Detokenizer.sdxl("nowhere", adapter="perciever")
