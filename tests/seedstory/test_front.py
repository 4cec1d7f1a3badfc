"""The front that diffusers' users know: parameters, outputs, devices, saving, the Hub, identities and errors."""

import inspect
import json
import os
import re
import time
from dataclasses import fields

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi

import seedstory
from seedstory import identity as identities
from seedstory.errors import (
    DataError,
    ModelError,
    OtherModelError,
    RequestError,
    SeedStoryError,
    StoryExistsError,
    StoryFolderError,
)
from seedstory.identity import ModelIdentity, file_sha256, fingerprint
from seedstory.outputs import StoryOutput
from seedstory.pipeline import StoryPipeline
from seedstory.salience import no_salience
from seedstory.settings import StorySettings
from seedstory.story import StoryFolder
from tests.hub_server import TOKEN, ask_hub, serve_hub

TEXT = "The fox found a lantern near the mill."
QUICK = {"num_inference_steps": 1}


def load(folder, **options):
    return StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu", **options)


def captions_and_pixels(output):
    return [(page.caption, page.image.tobytes()) for page in output.pages]


# ------------------------------------------------------------------------------------------------- parameters, outputs


def test_every_setting_is_a_parameter_with_its_default_and_its_documentation():
    call, stream = (inspect.signature(method).parameters for method in (StoryPipeline.__call__, StoryPipeline.stream))
    assert set(call) - set(stream) == {"callback_on_page"} and set(stream) <= set(call)
    assert all(call[name].default == stream[name].default for name in stream)
    for parameters in (call, stream, inspect.signature(StoryPipeline.resume).parameters):
        assert all(
            one.kind != one.VAR_KEYWORD and one.annotation is not one.empty for one in list(parameters.values())[1:]
        )
    defaults = {field.name: field.default for field in fields(StorySettings)} | {"image_name": None}
    del defaults["image_name"]
    assert {name: stream[name].default for name in defaults} == defaults
    documented = set(
        re.findall(r"^            (\w+): ", inspect.getdoc(StoryPipeline.stream) and StoryPipeline.stream.__doc__, re.M)
    )
    assert documented >= set(stream) - {"self"}


def test_the_output_has_every_form(pipe, tmp_path):
    pil = pipe(TEXT, pages=2, out=tmp_path / "s", **QUICK)
    assert isinstance(pil, StoryOutput) and pil.folder == tmp_path / "s" and pil.title == pil.story.title
    assert pil.captions == [page.caption for page in pil.story.pages]
    array, tensor = (pipe(TEXT, pages=2, output_type=form, **QUICK).images for form in ("np", "pt"))
    side = pipe.image_size
    assert array.shape == (2, side, side, 3) and tensor.shape == (2, 3, side, side) and pil.features.shape == (2, 9, 6)
    assert np.array_equal(array[1] * 255, np.asarray(pil.images[1], dtype=np.float32))
    assert torch.equal(tensor.permute(0, 2, 3, 1), torch.from_numpy(array))
    bare = pipe(TEXT, pages=2, output_type="features", **QUICK)
    assert bare.images is None and torch.equal(bare.features, pil.features)


def test_callbacks_hear_of_steps_and_pages_and_the_bar_can_be_switched_off(pipe, capsys):
    steps, pages = [], []
    pipe.set_progress_bar_config(disable=False)
    try:
        pipe(
            TEXT,
            pages=2,
            num_inference_steps=3,
            callback_on_page=lambda page: pages.append(page.number),
            callback_on_step_end=lambda model, step, timestep, kwargs: steps.append((step, kwargs["latents"].shape)),
        )
        assert pages == [1, 2] and [step for step, _ in steps] == [0, 1, 2] * 2
        assert "2/2" in capsys.readouterr().err
        pipe.set_progress_bar_config(disable=True)
        pipe(TEXT, pages=2, **QUICK)
        assert capsys.readouterr().err == ""
    finally:
        pipe.set_progress_bar_config()


# -------------------------------------------------------------------------------------------------- devices and memory


def test_components_are_what_the_constructor_takes(pipe):
    assert list(pipe.components) == ["story_model", "vision_tower", "detokenizer"]
    again = StoryPipeline(**pipe.components)
    assert captions_and_pixels(again(TEXT, pages=2, **QUICK)) == captions_and_pixels(pipe(TEXT, pages=2, **QUICK))


def test_device_maps(folder):
    assert load(folder, device_map="auto").device.type == "cpu"
    assert load(folder, device_map={"detokenizer": "cpu"}).device.type == "cpu"
    for wrong, message in (({"unet": "cpu"}, "device_map names unet"), ("moon", "there is no device 'moon'")):
        with pytest.raises(RequestError, match=message):
            StoryPipeline.from_pretrained(folder, device_map=wrong)


@pytest.mark.parametrize("rendering", ["inline", "after"])
def test_offloading_moves_one_component_at_a_time_and_changes_nothing(pipe, folder, monkeypatch, rendering):
    expected = captions_and_pixels(pipe(TEXT, pages=3, **QUICK))
    offloaded = load(folder)
    offloaded.enable_model_cpu_offload("cpu:0")  # a device of another name: moves are real, and bits the same
    moves = []
    for name, component in offloaded.components.items():
        move = component.to
        monkeypatch.setattr(
            component, "to", lambda device, name=name, move=move: (moves.append((name, str(device))), move(device))[1]
        )
    assert captions_and_pixels(offloaded(TEXT, pages=3, rendering=rendering, **QUICK)) == expected
    order = [name for name, device in moves if device == "cpu:0"]
    assert order[0] == "story_model" and "detokenizer" in order
    assert offloaded._story_model is not None, "an offloaded model is not freed"
    with pytest.raises(RequestError, match="needs all components at once"):
        offloaded(TEXT, pages=2, rendering="ahead")


# -------------------------------------------------------------------------------------------------------------- saving


def test_what_is_in_memory_is_saved_onto_its_own_folder_too(folder, tmp_path):
    first = load(folder)
    first.save_pretrained(tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == fingerprint(folder), "LoRA that was merged is written as it was"
    mine = load(tmp_path / "copy")
    before, seen = mine.identity, captions_and_pixels(mine(TEXT, pages=2, **QUICK))
    with torch.no_grad():
        next(mine.detokenizer.autoencoder.parameters()).add_(0.5)
        mine.story_model.token_rows.mul_(3.0)
    changed = captions_and_pixels(mine(TEXT, pages=2, **QUICK))
    assert changed != seen
    mine.save_pretrained(tmp_path / "copy")
    again = load(tmp_path / "copy")
    assert captions_and_pixels(again(TEXT, pages=2, **QUICK)) == changed
    assert mine.identity.fingerprint == again.identity.fingerprint != before.fingerprint
    mine.free_story_model()  # its folder is what was saved: it may come back from there
    assert captions_and_pixels(mine(TEXT, pages=2, **QUICK)) == changed


# ------------------------------------------------------------------------------------------------------------- the Hub


@pytest.fixture
def hub(monkeypatch):
    with serve_hub() as served:
        ask_hub(served, monkeypatch)
        yield served


def test_a_model_goes_to_the_hub_and_comes_back(pipe, folder, hub, tmp_path, monkeypatch):
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo("me/base")
    api.upload_folder(repo_id="me/base", folder_path=folder.parent / "base")
    with pytest.raises(ModelError, match="give base_lm, its Hub id"):
        pipe.push_to_hub("me/tiny", token=TOKEN)
    url = pipe.push_to_hub("me/tiny", base_lm="me/base", private=True, token=TOKEN)
    assert url.startswith(f"{hub.url}/me/tiny/commit/") and "me/tiny" in hub.private
    files = hub.repos["me/tiny"][-1]
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: seedstory\n") and "base_model: me/base" in card
    weights = {path for path in files if path.endswith(".safetensors")}
    assert weights and all(f"| `{path}` | `" in card for path in weights)
    assert not any(str(folder.parent).encode() in data for data in files.values()), "no path of this machine leaks"

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    options = {"token": TOKEN, "cache_dir": tmp_path / "cache"}
    fetched = load("me/tiny", **options)
    assert captions_and_pixels(fetched(TEXT, pages=2, **QUICK)) == captions_and_pixels(pipe(TEXT, pages=2, **QUICK))
    hub.requests.clear()
    assert load("me/tiny", local_files_only=True, **options).identity.fingerprint == fetched.identity.fingerprint
    assert not [one for one in hub.requests if "me/tiny" in one]

    pipe.push_to_hub("me/tiny", base_lm="me/base", token=TOKEN, commit_message="again")
    assert len(hub.repos["me/tiny"]) == 2
    load("me/tiny", revision="v1", **options)
    for arguments, message in (
        ({"revision": "v9", **options}, "it has no revision v9"),
        ({"cache_dir": tmp_path / "other"}, "there is no such model, or it is private"),
        ({"cache_dir": tmp_path / "other", "local_files_only": True}, "only the cache was to be searched"),
    ):
        with pytest.raises(ModelError, match=message):
            load("me/tiny", **arguments)
    with pytest.raises(ModelError, match="cannot be pushed"):
        pipe.push_to_hub("me/tiny", base_lm="me/base", token="wrong")


# ---------------------------------------------------------------------------------------------------------- identities


def test_the_identity_names_every_weight_file_and_goes_into_the_story(pipe, folder, tmp_path):
    identity = pipe.identity
    ours = {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}
    assert set(identity.files) == {*ours, "base_lm/model.safetensors"} and len(ours) >= 4
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in identity.files.values())
    pipe(TEXT, pages=1, out=tmp_path / "s", **QUICK)
    record = json.loads((tmp_path / "s/story.json").read_text())["model"]
    assert ModelIdentity.from_dict(record) == identity == StoryFolder.open(tmp_path / "s").model


def test_a_weight_file_is_hashed_once_while_size_and_times_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDSTORY_CACHE", str(tmp_path / "cache"))
    file, hashed = tmp_path / "model.safetensors", []
    file.write_bytes(b"one")
    digest = identities.hashlib.file_digest
    monkeypatch.setattr(identities.hashlib, "file_digest", lambda *args: (hashed.append(1), digest(*args))[1])
    first = file_sha256(file)
    assert file_sha256(file) == first and len(hashed) == 1
    file.write_bytes(b"two")  # of the same size
    assert file_sha256(file) != first and len(hashed) == 2
    time.sleep(0.01)
    os.utime(file)
    assert file_sha256(file) != first and len(hashed) == 3
    (tmp_path / "cache/sha256.json").write_text("[]")
    assert file_sha256(file) != first and len(hashed) == 4


def test_another_model_goes_on_only_if_that_is_allowed_and_both_stay_on_record(pipe, folder, tmp_path):
    stream = pipe.stream(TEXT, pages=3, out=tmp_path / "s", **QUICK)
    next(stream)
    stream.close()
    pipe.save_pretrained(tmp_path / "other")
    other = load(tmp_path / "other")
    with torch.no_grad():
        other.story_model.token_rows.mul_(2.0)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(OtherModelError, match="load the model that began it"):
        other.resume(tmp_path / "s")
    assert len(list(other.resume(tmp_path / "s", allow_other_model=True))) == 2
    story = StoryFolder.open(tmp_path / "s")
    assert story.model == other.identity and story.earlier_models == [pipe.identity]


# ------------------------------------------------------------------------------------------------- errors and salience


def test_errors_say_what_kind_they_are_and_never_speak_of_options(pipe, folder, tmp_path):
    pipe(TEXT, pages=1, out=tmp_path / "s", **QUICK)
    (tmp_path / "words.txt").write_text("no picture")
    cases = [
        (RequestError, lambda: pipe(TEXT, pages=0)),
        (RequestError, lambda: pipe("A <img> here.")),
        (DataError, lambda: pipe(image=tmp_path / "words.txt")),
        (StoryExistsError, lambda: pipe(TEXT, out=tmp_path / "s")),
        (StoryFolderError, lambda: pipe.resume(tmp_path / "none")),
        (ModelError, lambda: StoryPipeline.from_pretrained(tmp_path)),
        (ModelError, lambda: StoryPipeline.from_pretrained("nowhere")),
    ]
    for kind, act in cases:
        with pytest.raises(kind) as caught:
            act()
        assert isinstance(caught.value, SeedStoryError) and isinstance(caught.value, ValueError)
        assert not re.search(r"--\w|`seedstory ", str(caught.value)) and "\n" not in str(caught.value)


def test_the_library_raises_no_bare_value_error_and_names_no_option():
    root = os.path.dirname(seedstory.__file__)
    wrong = []
    for where, _, names in os.walk(root):
        for name in names:
            if not name.endswith(".py") or name in ("cli.py", "error_reporting.py", "progress_display.py"):
                continue
            text = open(os.path.join(where, name), encoding="utf-8").read()
            bare = re.findall(r"raise (?:ValueError|Exception|RuntimeError)\(", text)
            bare = bare if name not in ("identity.py", "story_cache.py") else []  # a parser's, and transformers' own
            options = re.findall(r"(?<![-\w`])--[a-z][a-z-]+|seedstory (?:resume|continue)", text)
            options = options if os.path.basename(where) != "commands" else []  # the command line, in files of its own
            wrong += [f"{name}: {hit}" for hit in bare + options]
    others = ("build.py: --version", "base_lm.py: --no-deps", "narration.py: --stdin", "narration.py: --stdout")
    others += ("ray_cluster.py: --head",)
    assert [one for one in wrong if one not in others] == []  # options of other programs


def test_the_salience_is_the_callers(folder):
    seen = []

    def salience(caption):
        seen.append(caption)
        return no_salience(caption)

    output = load(folder, salience=salience)(TEXT, pages=4, **QUICK)
    assert seen == output.captions[:3]
