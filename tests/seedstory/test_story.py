"""The story folder: pages land whole or not at all, and what is broken is refused with a reason."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from seedstory.settings import MAX_PAGES, StorySettings
from seedstory.story import Page, Story, StoryFolder, make_title, page_seed, write_atomic

TEXT = "A small fox finds a lantern. It is warm."


def make_page(index: int, shade: int = 0) -> Page:
    return Page(
        index=index,
        caption=f"Page {index} — “früh”.",
        image=Image.new("RGB", (16, 16), (index, shade, 7)),
        features=torch.full((4, 3), float(index + shade), dtype=torch.bfloat16),
        seed=page_seed(0, index),
        state="illustrated" if index else "opening",
    )


def make_folder(path, pages: int = 3) -> StoryFolder:
    folder = StoryFolder.create(
        path, title="The Lantern", settings=StorySettings(text=TEXT, pages=5), model={"name": "tiny"}
    )
    for index in range(pages):
        folder.add_page(make_page(index))
    return folder


def files(path) -> set[str]:
    return {f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file()}


def test_round_trip(tmp_path):
    make_folder(tmp_path / "story")
    story = Story.load(tmp_path / "story")
    assert (story.title, len(story.pages), story.settings.pages) == ("The Lantern", 3, 5)
    for index, page in enumerate(story.pages):
        expected = make_page(index)
        assert (page.index, page.caption, page.seed, page.state) == (
            index,
            expected.caption,
            expected.seed,
            expected.state,
        )
        assert np.array_equal(np.asarray(page.image), np.asarray(expected.image))
        assert page.features.dtype == torch.bfloat16 and torch.equal(page.features, expected.features)
    story.save(tmp_path / "copy")
    assert files(tmp_path / "copy") == files(tmp_path / "story")
    for name in files(tmp_path / "story"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "story" / name).read_bytes()


def test_image_records_how_it_was_made(tmp_path):
    make_folder(tmp_path)
    with Image.open(tmp_path / "pages/page-002.png") as image:
        text = image.text
    assert text["seedstory.seed"] == str(page_seed(0, 1)) and text["seedstory.prompt"] == TEXT
    assert json.loads(text["seedstory.settings"])["policy"] == "mm_sink"
    assert text["Description"] == make_page(1).caption


def test_written_page_is_illustrated_later_and_a_page_can_be_redone(tmp_path):
    folder = make_folder(tmp_path, pages=1)
    page = make_page(1)
    page.image, page.state = None, "written"
    folder.add_page(page)
    assert folder.page(1).image is None and folder.page(1).state == "written"
    folder.add_page(make_page(1))
    folder.add_page(make_page(1, shade=9))
    again = StoryFolder.open(tmp_path)
    assert again.page(1).image.getpixel((0, 0)) == (1, 9, 7) and again.page(1).features[0, 0] == 10
    assert len(files(tmp_path)) == 1 + 2 * 2  # nothing old is left
    with pytest.raises(ValueError, match="before the others"):
        folder.add_page(make_page(3))


@pytest.mark.parametrize("victim", ["page-002.png", "page-002.safetensors", "story.json"])
@pytest.mark.parametrize("moment", ["write", "replace"])
def test_failure_at_any_write_leaves_the_page_absent(tmp_path, monkeypatch, victim, moment):
    folder = make_folder(tmp_path, pages=1)
    replace, sync = os.replace, os.fsync

    def failing_replace(source, target):
        if str(target).endswith(victim):
            raise OSError(28, "No space left on device")
        replace(source, target)

    def failing_sync(descriptor):
        if victim in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        sync(descriptor)

    if moment == "replace":
        monkeypatch.setattr(os, "replace", failing_replace)
    else:
        monkeypatch.setattr(os, "fsync", failing_sync)
    with pytest.raises(OSError, match="space"):
        folder.add_page(make_page(1))
    monkeypatch.undo()
    again = StoryFolder.open(tmp_path)
    assert len(again) == 1 and again.page(0).caption == make_page(0).caption
    assert len(folder) == 1, "the folder in memory must not know a page that the disk does not"
    again.remove_leftovers()
    assert files(tmp_path) == {"story.json", "pages/page-001.png", "pages/page-001.safetensors"}


WRITER = """
import sys
from PIL import Image
from seedstory.settings import StorySettings
from seedstory.story import Page, StoryFolder
folder = StoryFolder.create(sys.argv[1], title="t", settings=StorySettings(text="x", pages=10000))
print("ready", flush=True)
for i in range(10000):
    folder.add_page(Page(index=i, caption=f"page {i}", image=Image.effect_noise((160, 160), 90)))
"""


def test_killed_writer_leaves_a_readable_folder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    for _ in range(100):
        time.sleep(0.02)
        if (tmp_path / "s/pages/page-003.png").exists():
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = StoryFolder.open(tmp_path / "s")
    assert len(folder) >= 2
    for index in range(len(folder)):
        assert folder.page(index).caption == f"page {index}" and folder.page(index).image.size == (160, 160)
    folder.remove_leftovers()
    assert len(files(tmp_path / "s")) == len(folder) + 1


def test_create_guards_what_is_there(tmp_path):
    make_folder(tmp_path / "story")
    with pytest.raises(ValueError, match="resume"):
        make_folder(tmp_path / "story")
    fresh = StoryFolder.create(
        tmp_path / "story", title="New", settings=StorySettings(text="x", pages=2), overwrite=True
    )
    assert len(fresh) == 0 and files(tmp_path / "story") == {"story.json"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="other files"):
            StoryFolder.create(tmp_path / "other", title="t", settings=StorySettings(text="x"), overwrite=overwrite)
    with pytest.raises(ValueError, match="is a file"):
        StoryFolder.create(tmp_path / "other" / "thesis.txt", title="t", settings=StorySettings(text="x"))
    assert files(tmp_path / "other") == {"thesis.txt"}


def change(record, path, value):
    *parents, last = path
    for key in parents:
        record = record[key]
    if value is None:
        del record[last]
    else:
        record[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], "comic", "not written by seedstory"),
        (["format_version"], 99, "update"),
        (["pages", 0, "picture"], "../../etc/passwd.png", "page 1"),
        (["pages", 0, "picture"], "/pages/page-001.png", "page 1"),
        (["pages", 0, "features"], "pages/page-001.png", "page 1"),
        (["pages", 1, "state"], "burnt", "page 2"),
        (["pages", 1, "caption"], 7, "page 2"),
        (["pages", 1, "seed"], None, "seed"),
        (["pages"], None, "pages"),
        (["settings", "policy"], "magic", "policy"),
        (["settings", "wings"], 2, "wings"),
        (["title"], None, "title"),
        (["model"], 3, "model must be an object"),
        (["model"], {"name": ["mini"]}, "model must be an object"),
        (["versions"], {"torch": 2}, "versions must be an object"),
        (["format_version"], "1", "whole number, not '1'"),
        (["format_version"], True, "whole number, not True"),
        (["settings"], [], "settings must be an object"),
        (["pages"], {"0": {}}, "pages a list"),
        (["pages", 0], "page", "page 1 is not well formed"),
        (["pages", 0, "picture"], 5, "page 1 is not well formed"),
        (["pages"], [{}] * 60_000, "at most 10,000"),
        (["settings", "pages"], 1, r"set that to \d"),
        (["settings", "captions"], 5, "list of texts"),
        (["title"], "half \ud83d", "half a character"),
    ],
)
def test_broken_story_json_is_refused_with_a_reason(tmp_path, path, value, message):
    make_folder(tmp_path)
    record = json.loads((tmp_path / "story.json").read_text())
    change(record, path, value)
    (tmp_path / "story.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message) as error:
        StoryFolder.open(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", "[" * 100_000])
def test_what_is_no_story_json_is_refused(tmp_path, text):
    (tmp_path / "story.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="not a readable story"):
        StoryFolder.open(tmp_path)


def test_missing_folder_and_damaged_pages(tmp_path):
    with pytest.raises(ValueError, match="no story"):
        StoryFolder.open(tmp_path / "nowhere")
    make_folder(tmp_path)
    (tmp_path / "pages/page-002.png").write_bytes(b"not a picture")
    (tmp_path / "pages/page-003.safetensors").unlink()
    for index in (1, 2):
        with pytest.raises(ValueError, match=f"page {index + 1} .* damaged or missing"):
            StoryFolder.open(tmp_path).page(index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "  \n"}, "empty"),
        ({"text": None}, "opening"),
        ({"text": "a" * 5000}, "at most"),
        ({"pages": 0}, "pages must be"),
        ({"pages": MAX_PAGES + 1}, "10,000"),
        ({"pages": True}, "pages must be"),
        ({"seed": -1}, "seed"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"policy": "magic"}, "mm_sink"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"captions": ["one"], "pages": 3}, "one for each page"),
        ({"captions": [" "], "pages": 2}, "caption 1"),
    ],
)
def test_settings_check_themselves(change, message):
    with pytest.raises(ValueError, match=message):
        StorySettings(**{"text": TEXT, **change})


def test_text_is_cleaned():
    assert StorySettings(text=" a\tfox\x00\n ran ").text == "a fox ran"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("A fox finds a lantern. It is warm.", "A fox finds a lantern"),
        ("Once upon a time there was a brave mouse. The end.", "A brave mouse"),
        ("“Who is there?” said the owl. Nobody spoke.", "Who is there?"),
        (
            "In the village lived a bear who had so many balloons that they filled the house.",
            "In the village lived a bear who had so many balloons",
        ),
        ("word " * 40, "Word" + " word" * 10 + "…"),
        ("...", ""),
        ("Mr. Bear baked a cake. It was blue.", "Mr. Bear baked a cake"),
        ("“Dr. Owl and Mrs. J. Hen!” they said. Then", "Dr. Owl and Mrs. J. Hen!"),
        ("It was only I. Then came Tom.", "It was only I"),
        ("Was it no. 7? No. It was not.", "Was it no. 7?"),
    ],
)
def test_title_from_the_first_sentence(text, title):
    assert make_title(text) == title


def test_page_seeds_depend_on_both():
    seeds = {page_seed(seed, index) for seed in range(20) for index in range(50)}
    assert len(seeds) == 1000 and page_seed(0, 0) == page_seed(0, 0)


def test_write_atomic_keeps_the_old_file_on_failure(tmp_path, monkeypatch):
    file = tmp_path / "a"
    write_atomic(file, b"old")

    def failing(*_):
        raise OSError("broken")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="broken"):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old" and files(tmp_path) == {"a"}
