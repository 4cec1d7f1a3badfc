"""Stage 1b in the SDXL form, on a tiny random SDXL and four pictures."""

import json

import pytest
import torch
from safetensors.torch import load_file

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.vision_tower import VisionTower
from tests.tiny import tiny_vision_tower
from tests.tiny_sdxl import SIDE, write_sdxl
from tests.training.test_loop import losses
from tests.training.tiny_data import write_base, write_book, write_model
from training.adapt import AdaptConfig, AdaptStage
from training.backend import Backend
from training.detokenizer import DetokenizerConfig, detokenizer_stage, draw_images, encode_pages
from training.loop import train
from training.pages import PageImages

LEARNS = {
    "kv": lambda name: "attn2.to_k" in name or "attn2.to_v" in name,
    "lora": lambda name: name.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")),
    "full": lambda name: True,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_book(folder / "book", pages=4)
    write_sdxl(folder / "sdxl")
    torch.manual_seed(0)
    tiny_vision_tower().save_pretrained(folder / "tower")
    return folder


def config_of(start, out, **settings):
    return DetokenizerConfig(
        **{
            "form": "sdxl",
            "sdxl": str(start / "sdxl"),
            "tower": str(start / "tower"),
            "data": str(start / "book"),
            "out": str(out),
            "heldout": "train",
            "heldout_limit": 2,
            "heldout_steps": 2,
            "context_tokens": 5,
            "adapter_width": 32,
            "adapter_depth": 1,
            "lora_rank": 4,
            "steps": 20,
            "batch_size": 8,
            "log_every": 1,
            "save_every": 20,
            "optimizer": "adamw",
            "adam_lr": 5e-3,
            "average": 0.0,
            "precision": "fp32",
            "device": "cpu",
        }
        | settings
    )


@pytest.fixture(scope="module")
def trained(parts, tmp_path_factory):
    """Folder after twenty steps of each way to train, made when first asked for."""
    made = {}

    def of(way):
        if way not in made:
            out = tmp_path_factory.mktemp(way)
            stages[way] = train(config_of(parts, out, parts=way), detokenizer_stage)
            made[way] = out
        return made[way]

    return of


stages = {}


def loss_of(stage, **shown):
    """Mean over 64 times and noises, the same ones whichever the weights."""
    batch = stage.batch([(number, number % 4) for number in range(64)], "")
    with torch.no_grad():
        return stage.detokenizer_loss(batch | shown, batch["features"]).item() / 64


def weights(folder, part):
    return load_file(folder / part / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("way", LEARNS)
def test_what_learns_changes_and_all_else_keeps_its_bits(trained, parts, way):
    folder = trained(way) / "detokenizer"
    before, after = weights(parts / "sdxl", "unet"), weights(folder, "unet")
    assert before.keys() == after.keys()  # LoRA is merged
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    learns = {name for name in before if LEARNS[way](name)}
    assert changed <= learns and len(changed) > 0.9 * len(learns)
    vae = weights(parts / "sdxl", "vae"), weights(folder, "autoencoder")
    tower = weights(parts, "tower"), weights(trained(way), "vision_tower")
    for one, two in (vae, tower):
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("way", LEARNS)
def test_the_loss_falls(trained, parts, tmp_path, way):
    found = losses(trained(way))
    config = config_of(parts, tmp_path, parts=way)
    untrained = detokenizer_stage(config, Backend(config))
    assert len(found) == 20 and loss_of(stages[way]) < loss_of(untrained) - 0.01


def test_what_it_writes_draws_images_from_the_towers_features(trained, parts):
    folder = trained("lora")
    detokenizer = Detokenizer.from_pretrained(folder / "detokenizer")
    tower = VisionTower.from_pretrained(folder / "vision_tower")
    assert detokenizer.form == "sdxl"
    with torch.no_grad():
        features = tower(torch.zeros(1, 3, 48, 48))
    (image,) = detokenizer(features, num_inference_steps=2)
    assert image.size == (SIDE, SIDE)
    lines = [json.loads(line) for line in (folder / "detokenizer.jsonl").read_text().splitlines()]
    assert any("heldout_psnr" in line for line in lines) and list((folder / "samples").glob("*.png"))


def test_large_images_are_drawn_few_at_a_time_to_the_same_pixels(trained, monkeypatch):
    detokenizer = Detokenizer.from_pretrained(trained("kv") / "detokenizer")
    features = torch.randn(5, 9, 6)
    at_once = draw_images(detokenizer, features, 2)
    monkeypatch.setattr("training.detokenizer.PIXELS", 2 * SIDE**2)
    in_groups = draw_images(detokenizer, features, 2)
    assert at_once.shape == (5, 3, SIDE, SIDE) and (at_once - in_groups).abs().max() < 2e-3


def test_latents_are_stored_as_they_are_computed_at_once(parts, tmp_path, monkeypatch):
    config = config_of(parts, tmp_path)
    monkeypatch.setattr("training.detokenizer.LATENT_ROWS", 3)
    stage = detokenizer_stage(config, Backend(config))
    images = PageImages(config.data, "train", SIDE, keep=False)
    latents, regions = encode_pages(stage.detokenizer.autoencoder, images, Backend(config))
    assert torch.equal(stage.latents[:], latents) and torch.equal(stage.regions[torch.arange(4)], regions)


def test_dropout_teaches_the_condition_of_guidance(parts, tmp_path):
    """What features of zero give, which guidance steers away from, learns from the pictures shown without tokens."""

    hidden = {"keep": torch.zeros(64)}
    config = config_of(parts, tmp_path, condition_dropout=1.0, parts="kv")
    before = loss_of(detokenizer_stage(config, Backend(config)), **hidden)
    assert loss_of(train(config, detokenizer_stage), **hidden) < before - 0.01


def test_half_of_the_images_have_no_tokens_if_dropout_says_so(parts, tmp_path):
    stage = train(config_of(parts, tmp_path, condition_dropout=0.5, steps=1), detokenizer_stage)
    batch = stage.batch([(number, 0) for number in range(400)], "")
    assert 0.4 < batch["keep"].mean() < 0.6 and set(batch["keep"].tolist()) == {0.0, 1.0}
    times = batch["time"]
    assert torch.equal(times, times.floor()) and times.min() >= 0 and 950 < times.max() <= 999
    assert "coin" in batch and 400 < times.mean() < 600


def test_activations_computed_twice_and_steps_cut_in_two_give_the_same_losses(trained, parts, tmp_path):
    cut = config_of(parts, tmp_path, parts="kv", micro_batch_size=4, gradient_checkpointing=True)
    train(cut, detokenizer_stage)
    assert list(losses(tmp_path).values()) == pytest.approx(list(losses(trained("kv")).values()), abs=1e-4)


def test_a_run_may_begin_with_what_another_one_wrote(trained, parts, tmp_path):
    train(config_of(parts, tmp_path, parts="kv", init=str(trained("kv")), sdxl=None, steps=1), detokenizer_stage)
    assert losses(tmp_path)[0] < losses(trained("kv"))[0]


def test_stage_3_adapts_it_to_regressed_features(parts, tmp_path):
    model = write_model(tmp_path / "model")
    stage1 = tmp_path / "stage1"
    tower = VisionTower.from_pretrained(model / "vision_tower")
    tower.save_pretrained(stage1 / "vision_tower")
    Detokenizer.sdxl(
        parts / "sdxl", tower.num_features, tower.config.feature_dim, context_tokens=5, width=32, depth=1
    ).save_pretrained(stage1 / "detokenizer")
    base = write_base(tmp_path / "base")
    config = AdaptConfig(
        data=str(parts / "book"),
        out=str(tmp_path / "stage3"),
        stage1=str(stage1),
        story_model=str(model / "story_model"),
        base_lm=str(base),
        heldout="train",
        heldout_limit=2,
        heldout_steps=2,
        parts="kv",
        steps=2,
        batch_size=4,
        device="cpu",
    )
    train(config, AdaptStage)
    assert Detokenizer.from_pretrained(tmp_path / "stage3" / "detokenizer").form == "sdxl"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "huge"}, "form must be one of mini, sdxl"),
        ({"tower": None}, "form: sdxl needs tower"),
        ({"sdxl": None}, "form: sdxl needs sdxl"),
        ({"init": "runs/x"}, "form: sdxl has no use for sdxl beside init"),
        ({"autoencoder": "runs/x"}, "form: sdxl has no use for autoencoder"),
        ({"form": "mini", "sdxl": None, "tower": None}, "form: mini needs autoencoder"),
        ({"form": "mini", "autoencoder": "runs/x", "sdxl": None}, "form: mini has no use for tower"),
    ],
)
def test_settings_of_the_other_form_are_refused(parts, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config_of(parts, tmp_path, **settings)


def test_a_detokenizer_of_the_other_form_is_refused(parts, trained, tmp_path):
    model = write_model(tmp_path / "model")
    with pytest.raises(ValueError, match="of the form mini: set form: mini"):
        train(config_of(parts, tmp_path / "out", init=str(model), sdxl=None), detokenizer_stage)
