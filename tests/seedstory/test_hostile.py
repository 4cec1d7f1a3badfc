"""Folders and files that mean harm: each is refused in one line, in no time, and nothing of it is run or built."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from seedstory.detokenizers.detokenizer import Detokenizer
from seedstory.modeling.base_lm import base_lm_config, load_base_lm
from seedstory.modeling.story_model import StoryModel
from seedstory.modeling.vision_tower import VisionTower
from seedstory.pipeline import StoryPipeline
from seedstory.story import StoryFolder
from tests.tiny import tiny_model_folder, tiny_pipeline

pytestmark = pytest.mark.timeout(300)

CONFIGS = (
    "model/story_model/config.json",
    "model/vision_tower/config.json",
    "model/detokenizer/unet/config.json",
    "model/detokenizer/adapter/config.json",
    "model/detokenizer/autoencoder/config.json",
    "model/detokenizer/scheduler/scheduler_config.json",
    "base/config.json",
)
BAD = ("text", None, True, 1.5, -1, 0, 10**9, 10**30, [1, 2, 3], {"a": 1})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny model and its base, written once."""
    return tiny_model_folder(tmp_path_factory.mktemp("tiny")).parent


@pytest.fixture
def home(made, tmp_path):
    """A copy of them to damage."""
    shutil.copytree(made, tmp_path / "home")
    config = tmp_path / "home/model/story_model/config.json"
    change(config, lambda settings: settings | {"base_lm": "../../base"})
    return tmp_path / "home"


def change(path: Path, how) -> None:
    path.write_text(json.dumps(how(json.loads(path.read_text("utf-8")))), "utf-8")


def load(home: Path, file: str):
    """Loads what a configuration belongs to."""
    if file.startswith("base"):
        return load_base_lm(home / "base", torch.float32)
    if "vision_tower" in file:
        return VisionTower.from_pretrained(home / "model/vision_tower")
    if "detokenizer" in file:
        return Detokenizer.from_pretrained(home / "model/detokenizer")
    return StoryModel.from_pretrained(home / "model/story_model", dtype=torch.float32)


def refused(home: Path, file: str) -> str:
    """The one line with which it is refused."""
    with pytest.raises(ValueError) as caught:
        load(home, file)
    line = str(caught.value)
    assert line, "an empty message helps nobody"
    assert len(line) < 1_500
    return line


def settings_of(settings: dict, path: tuple = ()):
    """Every plain setting, by its path."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from settings_of(value, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("file", CONFIGS)
def test_any_setting_of_any_type_and_size_loads_or_is_refused_in_one_line(home, file):
    path = home / file
    before, refusals = json.loads(path.read_text("utf-8")), 0
    for place in settings_of(before):
        for value in BAD:
            settings = copy.deepcopy(before)
            holder = settings
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = value
            path.write_text(json.dumps(settings), "utf-8")
            try:
                load(home, file)
            except ValueError as error:
                assert "\n" not in str(error), (place, value)
                refusals += 1
            except Exception as error:  # noqa: BLE001 - the test is about which kind it is
                pytest.fail(f"{file}: {place} = {value!r} ends in {type(error).__name__}: {error}")
    assert refusals > 10


@pytest.mark.parametrize("file", CONFIGS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b"\xff\xfe{}",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    ],
    ids=["empty", "cut", "list", "number", "null", "bytes", "nan", "brackets", "deep"],
)
def test_what_is_no_configuration_is_refused(home, file, content):
    (home / file).write_bytes(content)
    assert file.rpartition("/")[2] in refused(home, file)


@pytest.mark.parametrize("file", [file for file in CONFIGS if "scheduler" not in file])
def test_weights_that_do_not_fit_are_refused_before_anything_is_built(home, file, monkeypatch):
    weights = next((home / file).parent.glob("*.safetensors"))
    tensors = load_file(weights)
    name = max(tensors, key=lambda name: tensors[name].numel())
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: pytest.fail("it was built"))
    for damaged in (
        {key: tensor for key, tensor in tensors.items() if key != name},
        tensors | {name: torch.cat([tensors[name]] * 9)},
        tensors | {name: tensors[name].to(torch.int32)},
        {},
    ):
        save_file(damaged, weights)
        refused(home, file)
    weights.write_bytes(b"\x00" * 7)
    refused(home, file)
    weights.write_bytes((10**12).to_bytes(8, "little") + b"{}")
    refused(home, file)


@pytest.mark.parametrize("file", [file for file in CONFIGS if "scheduler" not in file])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(home, file, bad):
    weights = next((home / file).parent.glob("*.safetensors"))
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = bad
    save_file(tensors, weights)
    assert "holds NaN or infinity" in refused(home, file)


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("file", [file for file in CONFIGS if "scheduler" not in file])
def test_pickles_are_never_read(home, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = next((home / file).parent.glob("*.safetensors"))
    name = "diffusion_pytorch_model.bin" if "diffusion" in weights.name else "pytorch_model.bin"
    torch.save({"bomb": Bomb()}, weights.with_name(name))
    weights.unlink()
    assert "never loaded" in refused(home, file)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("file", CONFIGS)
def test_quantized_weights_and_code_of_ones_own_are_refused(home, file):
    for extra in (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"},
    ):
        change(home / file, lambda settings, extra=extra: settings | extra)
        (home / file).with_name("evil.py").write_text("raise SystemExit('it was run')")
        if "quantization_config" in extra or "story_model" in file or "base" in file:
            refused(home, file)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "sub/../../x.safetensors", "a\\b.safetensors"])
def test_an_index_of_weights_stays_in_its_folder(home, name):
    (home / "base/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "unsafe" in refused(home, "base/config.json")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("put", [pipe, device])
@pytest.mark.parametrize(
    "file",
    [
        *CONFIGS,
        "model/model_index.json",
        "model/story_model/model.safetensors",
        "model/vision_tower/diffusion_pytorch_model.safetensors",
        "base/model.safetensors",
        "base/tokenizer.json",
    ],
)
def test_pipes_and_devices_in_a_model_are_never_read(home, file, put):
    put(home / file)
    with pytest.raises(ValueError, match="not a plain file"):
        StoryPipeline.from_pretrained(home / "model", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A story of two pages, the second of which is missing in the copy that is damaged, and its pipeline."""
    home = tmp_path_factory.mktemp("told")
    pipeline = tiny_pipeline(home)
    pipeline("The fox found a lantern.", pages=2, num_inference_steps=1, out=home / "story")
    return home, pipeline


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("put", [pipe, device])
@pytest.mark.parametrize("file", ["story.json", "pages/page-001.png", "pages/page-001.safetensors"])
def test_pipes_and_devices_in_a_story_are_never_read(generated, tmp_path, file, put):
    home, pipeline = generated
    shutil.copytree(home / "story", tmp_path / "story")
    put(tmp_path / "story" / file)
    with pytest.raises(ValueError, match="not a plain file"):
        list(pipeline.resume(tmp_path / "story"))


def test_a_link_in_place_of_the_pages_folder_is_not_followed(generated, tmp_path):
    home, pipeline = generated
    shutil.copytree(home / "story", tmp_path / "story")
    (tmp_path / "story/pages").rename(tmp_path / "precious")
    (tmp_path / "precious/page-007.png").write_bytes(b"mine")
    (tmp_path / "story/pages").symlink_to(tmp_path / "precious")
    before = sorted(path.name for path in (tmp_path / "precious").iterdir())
    for act in (
        lambda: list(pipeline.resume(tmp_path / "story")),
        lambda: pipeline("Another day.", pages=1, out=tmp_path / "story", overwrite=True),
        lambda: StoryFolder.open(tmp_path / "story"),
    ):
        with pytest.raises(ValueError, match="is a link or a file"):
            act()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/pages").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match="other files"):
        pipeline("Another day.", pages=1, out=tmp_path / "empty")
    assert sorted(path.name for path in (tmp_path / "precious").iterdir()) == before


def test_a_huge_page_is_refused_by_its_header(generated, tmp_path):
    home, pipeline = generated
    shutil.copytree(home / "story", tmp_path / "story")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "story/pages/page-001.png")
    with pytest.raises(ValueError, match="page 1 .* too large"):
        list(pipeline.resume(tmp_path / "story"))


def test_the_base_is_looked_at_without_memory(home):
    assert base_lm_config(home / "base").model_type == "llama"
    change(home / "base/config.json", lambda settings: settings | {"vocab_size": 10**12})
    assert "describes" in refused(home, "base/config.json")
