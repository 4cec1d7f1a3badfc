"""The stage "reading": context embeddings come to say what a picture shows, and stage 2 starts from them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from seedstory.modeling.story_model import StoryModel
from seedstory.resampler import InputResampler
from seedstory.storystream import read_jsonl, write_jsonl
from tests.training.test_loop import losses
from tests.training.tiny_data import write_model, write_parts
from training.loop import train
from training.mllm import MllmConfig, MllmStage
from training.theatre.context_words import ContextWords
from training.theatre.input_resampler import load_input_resampler, read_vocabulary, save_input_resampler
from training.theatre.reading import ReadingConfig, ReadingStage
from training.theatre.recipe import TheatreSettings
from training.theatre.scene_codes import ROLES, TABLES

SIZES = {"input_resampler_width": 32, "input_resampler_depth": 1, "input_resampler_heads": 2}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("parts"), stories=2, loose=150)


def settings_of(parts, out, **settings):
    folders = {"data": parts / "data", "stage1": parts / "stage1", "base_lm": parts / "base", "out": out}
    common = {name: str(folder) for name, folder in folders.items()} | SIZES
    common |= {"precision": "fp32", "device": "cpu", "log_every": 1, "steps": 4, "batch_size": 4}
    return common | settings


def read(parts, out, **settings):
    own = {"split": "loose-train", "heldout": "loose-heldout", "average": 0.0}
    return train(ReadingConfig(**settings_of(parts, out, **own | settings)), ReadingStage)


def write_stories(parts, out, **settings):
    """Stage 2 on what stage "reading" wrote."""
    own = {"recipe": "theatre", "heldout": "train", "optimizer": "adamw", "batch_size": 1}
    return train(MllmConfig(**settings_of(parts, out, **own | settings)), MllmStage)


@pytest.fixture(scope="module")
def reading(parts, tmp_path_factory):
    """A run long enough to learn something."""
    out = tmp_path_factory.mktemp("reading")
    read(parts, out, steps=100, batch_size=16, eval_every=50, save_every=100, context_noise=0.1)
    return out


def heldout(folder):
    lines = [json.loads(line) for line in (folder / "reading.jsonl").read_text().splitlines()]
    return [line for line in lines if "heldout_read" in line]


def random_words(width=24, words=9):
    """Embeddings of a language model that share a large part, and the words of tables among them."""
    torch.manual_seed(0)
    embedding = 3 * torch.randn(1, width) + torch.randn(64, width)

    class Letters:
        def encode(self, text, add_special_tokens):
            return [int(text)]

    vocabulary = {table.kind: [str(number) for number in range(words)] for table in TABLES}
    return embedding, ContextWords(vocabulary, embedding, Letters())


def test_the_loss_falls_and_pages_never_seen_are_read(reading):
    steps = list(losses(reading, "read").values())
    assert len(steps) == 100 and sum(steps[-10:]) < 0.75 * sum(steps[:10])
    early, late = heldout(reading)
    assert late["heldout_read"] < early["heldout_read"] and late["heldout_right"] > early["heldout_right"]
    assert late["heldout_page_time"] > 0.5, "four times of day"
    assert {f"heldout_{table.name.replace(' ', '_')}" for table in TABLES if table.owner == "first"} <= late.keys()


def test_embeddings_have_the_scale_of_words(reading):
    assert all(0.99 < line["heldout_spread"] < 1.01 for line in heldout(reading))


def test_a_run_that_is_resumed_ends_with_the_same_bits(parts, tmp_path):
    read(parts, tmp_path / "whole", save_every=2)
    read(parts, tmp_path / "halves", save_every=2)
    shutil.rmtree(tmp_path / "halves/checkpoints/reading/step-000004")
    (tmp_path / "halves/input_resampler.safetensors").unlink()
    torch.manual_seed(99)
    read(parts, tmp_path / "halves", save_every=2)
    one, two = (load_file(tmp_path / name / "input_resampler.safetensors") for name in ("whole", "halves"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert losses(tmp_path / "whole", "read") == losses(tmp_path / "halves", "read")


def test_a_run_is_not_resumed_on_other_files(parts, tmp_path):
    data = shutil.copytree(parts / "data", tmp_path / "data")
    read(parts, tmp_path / "out", data=str(data), steps=1)
    records = list(read_jsonl(data / "loose-heldout.jsonl"))
    write_jsonl(data / "loose-heldout.jsonl", records[:-1])
    with pytest.raises(ValueError, match="loose-heldout.jsonl changed since"):
        read(parts, tmp_path / "out", data=str(data), steps=1)


@pytest.mark.parametrize("again", [False, True], ids=["fresh", "init"])
def test_stage_2_starts_from_what_was_read(again, parts, reading, tmp_path):
    frozen = {"muon_lr": 0.0, "adam_lr": 0.0, "weight_decay": 0.0, "steps": 1}
    settings = {"recipe_settings": {"reading": str(reading), "read_loss_weight": 1.0}}
    if again:
        write_stories(parts, tmp_path / "earlier", **frozen)
        settings |= {"init": str(tmp_path / "earlier" / "story_model")}
    stage = write_stories(parts, tmp_path / "stories", **settings, **frozen)
    expected = load_file(reading / "input_resampler.safetensors")
    found = stage.model.input_resampler.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert reading / "input_resampler.safetensors" in stage.sources
    assert next(iter(losses(tmp_path / "stories", "story_read").values())) < losses(reading, "read")[0]


def test_the_read_loss_trains_the_input_resampler_alone(parts, reading, tmp_path):
    settings = {"recipe_settings": {"reading": str(reading), "read_loss_weight": 1.0}}
    settings |= {"lm_loss_weight": 0.0, "visual_loss_weight": 0.0, "own_features_from": 1.0, "image_only": 0.0}
    stage = write_stories(parts, tmp_path, **settings, steps=12, adam_lr=0.003)
    assert losses(tmp_path, "heldout_characters_read") and "heldout_characters_named" not in heldout_keys(tmp_path)
    steps = list(losses(tmp_path, "story_read").values())
    assert sum(steps[-4:]) < sum(steps[:4])
    expected = load_file(reading / "input_resampler.safetensors")
    assert not torch.equal(stage.model.input_resampler.queries, expected["queries"])


def heldout_keys(folder):
    return {key for line in (folder / "mllm.jsonl").read_text().splitlines() for key in json.loads(line)}


def test_it_goes_on_from_an_earlier_run_and_from_a_story_model(parts, reading, tmp_path):
    frozen = {"muon_lr": 0.0, "adam_lr": 0.0, "weight_decay": 0.0, "steps": 1, "context_noise": 0.0}
    stage = read(parts, tmp_path / "again", init=str(reading), **frozen)
    expected = load_file(reading / "input_resampler.safetensors")
    assert torch.equal(stage.resampler.queries, expected["queries"])
    assert heldout(tmp_path / "again")[0]["heldout_right"] == pytest.approx(heldout(reading)[-1]["heldout_right"])

    write_stories(parts, tmp_path / "stories", steps=1)
    stage = read(parts, tmp_path / "third", init=str(tmp_path / "stories" / "story_model"), **frozen)
    model = StoryModel.from_pretrained(tmp_path / "stories" / "story_model", dtype=torch.float32)
    assert torch.equal(stage.resampler.queries, model.input_resampler.queries)
    assert heldout(tmp_path / "third")[0]["heldout_spread"] == pytest.approx(1, abs=0.01), "brought to that of words"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_resampler_width": 16}, "other sizes: input_resampler_width 32 instead of 16"),
        ({"input_resampler_heads": 4}, "other sizes: input_resampler_heads 2 instead of 4"),
        ({"input_resampler_depth": 2}, "other sizes: input_resampler_depth 1 instead of 2"),
        ({"num_visual_tokens": 4}, "of 16 visual tokens, the story model has 4: set num_visual_tokens: 16"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_sizes_are_refused_in_one_line(settings, message, parts, reading, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        write_stories(parts, tmp_path, recipe_settings={"reading": str(reading)}, **settings)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_gone_on_from_is_refused_in_one_line(parts, reading, tmp_path):
    other = write_model(tmp_path / "other") / "story_model"  # of 4 visual tokens
    with pytest.raises(ValueError, match="other sizes: num_visual_tokens 4 instead of 16"):
        read(parts, tmp_path / "out", init=str(other))
    with pytest.raises(ValueError, match="holds neither input_resampler.safetensors nor a story model"):
        read(parts, tmp_path / "out", init=str(parts / "data"))
    with pytest.raises(ValueError, match="nowhere has no vision_tower: run python -m training.detokenizer first"):
        read(parts, tmp_path / "out", stage1=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="has no input_resampler.safetensors: run python -m training.theatre.reading"):
        write_stories(parts, tmp_path / "out", recipe_settings={"reading": str(tmp_path)})
    with pytest.raises(ValueError, match="read_loss_weight needs the words of an earlier stage"):
        TheatreSettings(read_loss_weight=1.0)
    with pytest.raises(ValueError, match="context_noise must be 0 or more"):
        ReadingConfig(**settings_of(parts, tmp_path, context_noise=-1.0))


def test_a_word_itself_is_read_whatever_all_words_share(tmp_path):
    embedding, words = random_words()
    indices = torch.arange(9)[:, None].expand(9, len(TABLES))
    said = embedding[:9, None].expand(9, len(ROLES), -1)
    assert words.right(said, indices).all()
    assert words.spread_of(embedding[:, None]) == pytest.approx(1, abs=1e-4)
    assert words.alignment(said, indices) == pytest.approx(1, abs=1e-4)
    shared = embedding.mean(0).expand(9, len(ROLES), -1)
    assert words.right(shared + 1e-3 * torch.randn(9, len(ROLES), 24), indices).float().mean() < 0.3
    torch.testing.assert_close(words.loss(2 * (said - words.center) + words.center, indices), words.loss(said, indices))


def test_fitting_the_scale_gives_any_embedding_the_spread_of_words():
    embedding, words = random_words()
    resampler = InputResampler(9, 6, 4, 24, width=16, depth=1, heads=2, embedding_rms=7.0)
    features = torch.randn(32, 9, 6)
    assert words.spread_of(resampler(features)) > 5
    words.fit_scale(resampler)
    distances = (resampler(features) - embedding.mean(0)).norm(dim=-1) / words.spread
    torch.testing.assert_close(distances, torch.ones_like(distances), atol=1e-3, rtol=0)
    once = resampler(features)
    words.fit_scale(resampler)
    torch.testing.assert_close(resampler(features), once)


def test_weights_and_words_come_back_from_disk(tmp_path):
    one, two = (InputResampler(9, 6, 4, 24, width=16, depth=1, heads=2) for _ in range(2))
    save_input_resampler(one, {"species": ["nothing", "fox"]}, tmp_path)
    load_input_resampler(two, tmp_path)
    assert all(torch.equal(weight, two.state_dict()[name]) for name, weight in one.state_dict().items())
    assert read_vocabulary(tmp_path) == {"species": ["nothing", "fox"]}
    with pytest.raises(ValueError, match="feature_tokens 9 instead of 16, feature_dim 6 instead of 8"):
        load_input_resampler(InputResampler(16, 8, 4, 24, width=16, depth=1, heads=2), tmp_path)
