"""A small Stable Diffusion of one's own: trained at toy length, read by diffusers, drawn with consistent attention."""

import random
from collections import Counter

import pytest
import torch
from diffusers import StableDiffusionPipeline

from seedstory.consistent_attention import ConsistentAttention, PageSharing
from seedstory.detokenizers.autoencoder import ImageAutoencoder
from seedstory.detokenizers.diffusers_autoencoder import DiffusersAutoencoder
from tests.training.tiny_data import write_theatre
from training.clip_tokenizer import learn_merges, make_tokenizer
from training.loop import train
from training.text_to_image import TextToImageConfig, TextToImageStage
from training.theatre.prompts import scene_prompt

ACTOR = {"name": "Mia", "species": "owl", "outfit": "red coat", "hat": "crown", "pose": "waving", "expression": "sad"}
TRUTH = {"place": "forest", "time": "night", "view": "near", "props": ["ball", "map"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("lab")
    write_theatre(out / "data", stories=1, loose=12)
    torch.manual_seed(0)
    ImageAutoencoder(2, (8, 8), (1, 1), decoder_widths=(8, 8, 8), decoder_depths=(1, 1, 1)).save_pretrained(out / "ae")
    return out


def run(runs, name, steps, **changes):
    small = {
        "widths": (32,),
        "text_width": 64,
        "text_depth": 1,
        "vocabulary": 700,
        "max_tokens": 77,
        "heldout_steps": 2,
    }
    config = TextToImageConfig(
        data=str(runs / "data"), out=str(runs / name), autoencoder=str(runs / "ae"), split="loose-train",
        heldout="loose-heldout", image_size=64, batch_size=4, steps=steps, log_every=1, save_every=1, device="cpu",
        recipe="theatre", precision="fp32", **small | changes,
    )  # fmt: skip
    return train(config, TextToImageStage)


def draw(pipe, **changes):
    pipe.set_progress_bar_config(disable=True)
    arguments = {"prompt": "Mia waves.", "num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "latent"}
    return pipe(**arguments | changes, generator=torch.Generator().manual_seed(0)).images


def test_diffusers_reads_what_was_trained_and_the_same_run_is_the_same(runs):
    stage = run(runs, "once", 2)
    run(runs, "twice", 2)
    pipes = [StableDiffusionPipeline.from_pretrained(runs / name / "pipeline") for name in ("once", "twice")]
    once, twice = (draw(pipe) for pipe in pipes)
    assert torch.equal(once, twice)
    assert draw(pipes[0], output_type="pil")[0].size == (128, 128)  # the decoder draws twice what is read
    assert not torch.equal(draw(pipes[0], prompt="Mia sits."), once)
    assert sorted((runs / "once" / "samples").iterdir()) and stage.unet.training
    attention = ConsistentAttention(pipes[0].unet)
    with attention.sharing([PageSharing("1", writes=True)], pipes[0].scheduler):
        assert torch.allclose(draw(pipes[0]), once, atol=1e-5)
    with attention.sharing([PageSharing("2", ("1",))], pipes[0].scheduler):
        assert (draw(pipes[0]) - once).abs().max() > 1e-4


def test_the_autoencoder_is_the_same_by_the_calls_of_diffusers():
    torch.manual_seed(0)
    ours = ImageAutoencoder(2, (8, 8), (1, 1), decoder_widths=(8, 8, 8), decoder_depths=(1, 1, 1), scaling_factor=0.7)
    theirs = DiffusersAutoencoder.of(ours)
    pixels = torch.rand(1, 3, 64, 64)
    large = torch.nn.functional.interpolate(pixels, scale_factor=2)
    latents = theirs.encode(large).latent_dist.sample()
    assert torch.allclose(latents, ours.latents(pixels), atol=1e-6)
    assert torch.allclose(theirs.decode(latents).sample, ours.decode(latents * 0.7), atol=1e-5)
    assert 2 ** (len(theirs.config.block_out_channels) - 1) == 16


def test_prompts_say_what_the_page_shows_or_leave_looks_unsaid():
    prompts = {scene_prompt({**TRUTH, "actors": [ACTOR]}, random.Random(number)) for number in range(40)}
    scene = "waving, sad. Forest, night. Near view. Ball, map."
    assert prompts == {
        f"Mia, an owl in red coat and crown, {scene}",
        f"Mia, an owl, {scene}",
        f"Mia, {scene}",
    }


def test_a_tokenizer_made_of_prompts_can_read_any_other():
    tokenizer = make_tokenizer(["a fox in a red coat"] * 3, 600, 77)
    for words in ("a fox in a red coat", "zoë's QUIZ: 7 kites!"):
        assert tokenizer.decode(tokenizer(words).input_ids, skip_special_tokens=True).replace(
            " ", ""
        ) == words.lower().replace(" ", "")
    assert len(tokenizer("fox").input_ids) == 3 and len(tokenizer("owl").input_ids) == 5
    assert tokenizer("x" * 200, truncation=True).input_ids[-1] == tokenizer.eos_token_id
    assert learn_merges(Counter({"aba": 2, "ab": 3}), 9) == [("a", "b</w>"), ("a", "b"), ("ab", "a</w>")]


def test_settings_that_no_network_can_have_are_refused(runs):
    for change, words in (({"widths": (40,)}, "widths must be"), ({"condition_dropout": 1.0}, "condition_dropout")):
        with pytest.raises(ValueError, match=words):
            run(runs, "wrong", 1, **change)
