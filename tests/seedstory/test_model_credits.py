"""A converted model goes to the Hub whole, with who made it and under which terms, and comes back the same."""

import json

import huggingface_hub
import pytest
import torch

from seedstory.convert.seed_story import SeedStoryConversion
from seedstory.errors import ModelError
from seedstory.identity import fingerprint
from seedstory.model_credits import read_credits, write_credits
from seedstory.pipeline import StoryPipeline
from tests.hub_server import TOKEN, ask_hub, serve_hub
from tests.seedstory.seed_story_checkpoints import tiny_form, write_released

TELL = {"pages": 2, "max_caption_tokens": 4, "num_inference_steps": 1}


def load(name, **options):
    return StoryPipeline.from_pretrained(name, dtype=torch.float32, device="cpu", decoding="eager", **options)


def test_a_converted_model_goes_to_the_hub_with_its_base_and_its_credits(tmp_path, monkeypatch):
    files, _ = write_released(tmp_path)
    folder = tmp_path / "model"
    SeedStoryConversion(files, dtype=torch.float32, form=tiny_form()).write(folder)
    credits = read_credits(folder)
    assert credits["license"] == "other" and "LLAMA 2 Community License" in " ".join(credits["credits"])
    pipe = load(folder)
    with serve_hub() as hub:
        ask_hub(hub, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        pipe.push_to_hub("me/seed-story", token=TOKEN)
        pushed = hub.repos["me/seed-story"][-1]
        fetched = load("me/seed-story", cache_dir=tmp_path / "cache")
    card = pushed["README.md"].decode()
    assert "license: other" in card and "The base language model is in `story_model/base_lm`." in card
    assert "base_model:" not in card and all(f"- {line}" in card for line in credits["credits"])
    assert (
        pushed["story_model/base_lm/model.safetensors"] and "| base language model | in this repository (llama)" in card
    )
    assert json.loads(pushed["story_model/config.json"])["base_lm"] == "base_lm"
    assert not any(str(tmp_path).encode() in data for data in pushed.values()), "no path of this machine leaks"
    text = "The fox found a lantern."
    assert fetched(text, **TELL).captions == pipe(text, **TELL).captions
    pipe.save_pretrained(tmp_path / "copy")
    assert read_credits(tmp_path / "copy") == credits, "they travel with the weights"


def test_credits_do_not_change_which_model_it_is_and_must_be_what_they_say(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = fingerprint(tmp_path)
    write_credits(tmp_path, {"license": "mit", "credits": ["Made by hand."]})
    assert fingerprint(tmp_path) == before
    for wrong, message in (
        ({"license": "My terms\n---", "credits": []}, "license must be the short name"),
        ({"license": "mit", "credits": ["two\nlines"]}, "credits must be a list of single lines"),
        ([], "license must be the short name"),
    ):
        (tmp_path / "credits.json").write_text(json.dumps(wrong))
        with pytest.raises(ModelError, match=message):
            read_credits(tmp_path)
    write_credits(tmp_path, {})
    assert read_credits(tmp_path) == {}
