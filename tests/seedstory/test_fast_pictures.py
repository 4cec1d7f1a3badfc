"""Stories with a scheduler, guidance in a share of the steps, and LoRA: settings, record, identity, command line."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from inference import fast_images
from seedstory.cli import main
from seedstory.detokenizers import schedulers
from seedstory.pipeline import StoryPipeline
from seedstory.rendering import drawing_steps
from seedstory.settings import SCHEDULERS, StorySettings
from seedstory.story import StoryFolder
from tests.tiny import tiny_model_folder
from tests.tiny_sdxl import tiny_sdxl_detokenizer

TEXT = "The fox found a lantern."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model that draws with a tiny SDXL, in the four steps of its weights."""
    torch.manual_seed(0)
    folder = tiny_model_folder(tmp_path_factory.mktemp("model"))
    shutil.rmtree(folder / "detokenizer")
    detokenizer = tiny_sdxl_detokenizer()
    detokenizer.set_scheduler("lightning")
    detokenizer.save_pretrained(folder / "detokenizer")
    return folder


@pytest.fixture(scope="module")
def pipe(folder):
    return StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu")


def steps(pipe, **settings):
    seen = []
    pipe(TEXT, pages=1, callback_on_step_end=lambda *step: seen.append(step[1]), **settings)
    return len(seen)


def test_the_names_of_settings_are_those_of_the_schedulers():
    assert tuple(schedulers.SCHEDULERS) == SCHEDULERS


def test_a_story_is_drawn_with_the_steps_of_its_scheduler(pipe):
    assert steps(pipe) == 4  # by the model's configuration
    assert steps(pipe, scheduler="tcd", num_inference_steps=2) == 2
    for settings, expected in (({}, 4), ({"scheduler": "dpmsolver++"}, 20), ({"num_inference_steps": 3}, 3)):
        assert drawing_steps(pipe.detokenizer, StorySettings(text=TEXT, **settings)) == expected


def test_the_record_keeps_how_it_was_drawn_and_the_story_comes_again(pipe, tmp_path):
    asked = {"scheduler": "euler", "num_inference_steps": 2, "guidance_scale": 2.0, "guidance_interval": [0.0, 0.5]}
    one = pipe(TEXT, pages=1, out=tmp_path / "one", **asked)
    settings = StoryFolder.open(tmp_path / "one").settings
    assert (settings.scheduler, settings.guidance_interval) == ("euler", (0.0, 0.5)) and settings == one.story.settings
    again = pipe(TEXT, pages=1, **asked | {"guidance_interval": settings.guidance_interval})
    other = pipe(TEXT, pages=1, **asked | {"guidance_interval": (0.0, 1.0)})
    assert one.images[0].tobytes() == again.images[0].tobytes() != other.images[0].tobytes()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"scheduler": "heun"}, "unknown scheduler 'heun': choose one of euler"),
        ({"guidance_interval": (0.5,)}, "guidance_interval must be two numbers"),
        ({"guidance_interval": (0.5, 1.5)}, "guidance_interval must be a number from 0 to 1"),
        ({"guidance_interval": (0.5, 0.2)}, "must not end, at 0.2, before it begins"),
    ],
)
def test_wrong_settings_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        StorySettings(text=TEXT, **asked)


def test_a_lora_is_part_of_what_made_a_story(pipe):
    bare = pipe.identity
    name = "unet.mid_block.attentions.0.proj_in"
    weights = {f"{name}.lora_A.weight": torch.ones(1, 64), f"{name}.lora_B.weight": torch.ones(64, 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pipe.source)
        save_file(weights, "few.safetensors")
        pipe.detokenizer.load_lora_weights("few.safetensors")
    with_lora = pipe.identity
    assert with_lora.fingerprint != bare.fingerprint and set(with_lora.files) - set(bare.files) == {"lora/few"}
    pipe.detokenizer.unload_lora_weights()
    assert pipe.identity == bare
    (pipe.source / "few.safetensors").unlink()


def test_the_measure_runs_and_finds_equal_pictures():
    detokenizer = tiny_sdxl_detokenizer()
    exact = [way for way in fast_images.ways("sdxl", 1, 2, compiles=False) if way.exact]
    some = [exact[0], *exact[-3:]]
    figures = fast_images.measure(detokenizer, some, turns=1)
    assert figures["plain"]["ratio"] == 1 and len(figures) == 4
    assert all(found["difference"] < 1e-4 and found["seconds"] > 0 for found in figures.values())


def test_the_command_takes_them_all(folder, tmp_path, monkeypatch, capsys):
    asked = ["--scheduler", "euler", "--steps", "2", "--guidance-interval", "0", "0.5", "--fast-images"]
    out = str(tmp_path / "story")
    monkeypatch.setattr(
        "sys.argv", ["seedstory", "generate", "--text", TEXT, "--pages", "1", "--model", str(folder), "-o", out, *asked]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0, capsys.readouterr().err
    settings = StoryFolder.open(out).settings
    assert (settings.scheduler, settings.num_inference_steps, settings.guidance_scale) == ("euler", 2, None)
    assert settings.guidance_interval == (0.0, 0.5)
