"""Cast and plan in the product: written, stored, resumed, given by the user, shown."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from seedstory.cli import app
from seedstory.pipeline import StoryPipeline
from seedstory.settings import StorySettings
from seedstory.story import Story, StoryFolder
from seedstory.story_editor import StoryEditor
from seedstory.story_request import state_pages
from seedstory.story_state import StoryState
from tests.tiny import tiny_model_folder

TEXT = "Mia the fox found a key."
QUICK = {"num_inference_steps": 1, "max_caption_tokens": 6, "temperature": 1.0}
CAST = {"Mia": "fox, red coat"}


@pytest.fixture(autouse=True)
def _short_lines(monkeypatch):
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_LINE_TOKENS", 4)
    monkeypatch.setattr("seedstory.generation.state_sampler.MAX_CAST", 2)


@pytest.fixture(scope="module")
def planning_folder(tmp_path_factory):
    """A tiny model that says of itself that it was trained to plan."""
    folder = tiny_model_folder(tmp_path_factory.mktemp("planning"))
    config = folder / "story_model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"story_state": True}))
    return folder


@pytest.fixture(scope="module")
def planning(planning_folder):
    return StoryPipeline.from_pretrained(planning_folder, dtype=torch.float32, device="cpu")


def files(folder):
    record = json.loads((folder / "story.json").read_text())
    return {path.name: path.read_bytes() for path in (folder / "pages").iterdir()} | {"record": record}


@pytest.mark.parametrize("opening", [{"text": TEXT}, {"image": True}, {"text": TEXT, "image": True}])
@pytest.mark.parametrize("policy", ["mm_sink", "recompute"])
def test_resumed_equals_uninterrupted(planning, tmp_path, opening, policy):
    opening = opening | ({"image": Image.new("RGB", (60, 50), "teal")} if "image" in opening else {})
    whole = tmp_path / "whole"
    pages = planning(**opening, pages=13, seed=4, policy=policy, out=whole, **QUICK).story.pages
    states = {page.index: page.next_state for page in Story.load(whole).pages if page.next_state}
    assert sorted(states) == [0, 6] and [len(state.plan) for state in states.values()] == [6, 6]
    assert states[6].cast[: len(states[0].cast)] == states[0].cast
    for kept in (1, 6, 7):
        cut = tmp_path / f"cut-{kept}"
        shutil.copytree(whole, cut)
        record = json.loads((cut / "story.json").read_text())
        record["pages"] = record["pages"][:kept]
        (cut / "story.json").write_text(json.dumps(record))
        assert len(list(planning.resume(cut))) == 13 - kept
        assert files(cut) == files(whole)
    assert len(pages) == 13


def test_an_opening_picture_that_was_stored_alone_gets_its_state(planning, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    planning(TEXT, Image.new("RGB", (60, 50), "teal"), pages=4, seed=4, out=whole, **QUICK)
    shutil.copytree(whole, cut)
    record = json.loads((cut / "story.json").read_text())
    record["pages"] = [{key: value for key, value in record["pages"][0].items() if key != "next_state"}]
    (cut / "story.json").write_text(json.dumps(record))
    assert [page.number for page in planning.resume(cut)] == [2, 3, 4]
    assert files(cut) == files(whole)


def test_what_the_user_gives_is_kept(planning, tmp_path):
    plan = ["Mia tries the key", "", "Mia goes home"]
    out = planning(TEXT, pages=4, cast=CAST, plan=plan, out=tmp_path / "s", **QUICK)
    state = Story.load(out.folder).pages[0].next_state
    assert state.cast[0] == ("Mia", "fox, red coat") and state.plan[0] == plan[0] and state.plan[2] == plan[2]
    assert state.plan[1]
    scripted = planning(TEXT, pages=3, captions=["She smiled.", "The end."], cast=CAST, **QUICK).story
    assert scripted.pages[0].next_state == StoryState(tuple(CAST.items()))
    assert planning(TEXT, pages=3, captions=["She smiled.", "The end."], **QUICK).story.pages[0].next_state is None
    assert planning(TEXT, pages=3, story_state=False, **QUICK).story.pages[0].next_state is None


def test_a_batch_stores_the_states_of_stories_alone(planning, tmp_path):
    requests = [{"text": TEXT, "pages": 4, "seed": seed, "out": tmp_path / str(seed), **QUICK} for seed in (1, 2)]
    assert len(list(planning.write_batch(requests))) == 8
    for request in requests:
        alone = planning(**request | {"out": None}).story
        assert [page.next_state for page in Story.load(request["out"]).pages] == [p.next_state for p in alone.pages]


def test_a_plan_ends_with_the_story(planning, tmp_path):
    planning(TEXT, pages=3, out=tmp_path / "s", **QUICK)
    editor = StoryEditor(tmp_path / "s")
    with pytest.raises(ValueError, match="the plan has 3 lines, but 2 pages stand from page 2 on"):
        editor.set_state(1, plan=["a", "b", "c"])
    editor.set_state(1, plan=["a", "b"], cast=CAST, following="rewrite")
    pages = list(planning.resume(tmp_path / "s"))
    assert [page.index for page in pages] == [1, 2]
    assert Story.load(tmp_path / "s").pages[0].next_state == StoryState(tuple(CAST.items()), ("a", "b"))


def test_models_that_were_not_trained_for_it_refuse(pipe):
    for options in ({"cast": CAST}, {"plan": ["x"]}, {"story_state": True}):
        with pytest.raises(ValueError, match="not trained to follow"):
            pipe(TEXT, pages=2, **options, **QUICK)
    assert pipe(TEXT, pages=3, **QUICK).story.pages[0].next_state is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": ["x"]}, "needs? 9|9: one for each"),
        ({"plan": "x"}, "a list"),
        ({"cast": ["Mia"]}, "name: look"),
        ({"cast": {"Mia": ""}}, "no character"),
        ({"story_state": "yes"}, "true, false or None"),
        ({"story_state": False, "cast": CAST}, "leave one"),
        ({"captions": ["x"] * 9, "plan": ["x"] * 9}, "leave the plan out"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        StorySettings(text=TEXT, **options)


def test_states_stand_before_the_second_page_and_where_chapters_begin():
    settings = StorySettings(text=TEXT, pages=30)
    assert state_pages(settings, True) == (1, 10, 20) and state_pages(settings, False) == ()
    assert state_pages(replace(settings, pages=1), True) == ()
    assert state_pages(replace(settings, story_state=False), True) == ()


@pytest.mark.parametrize(
    "state", [3, {"cast": {"Mia": 3}, "plan": []}, {"cast": {}}, {"cast": {}, "plan": ["x" * 999]}]
)
def test_broken_states_are_refused(planning, tmp_path, state):
    planning(TEXT, pages=2, out=tmp_path / "s", **QUICK)
    record = json.loads((tmp_path / "s" / "story.json").read_text())
    record["pages"][0]["next_state"] = state
    (tmp_path / "s" / "story.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="next_state of page 1"):
        StoryFolder.open(tmp_path / "s")


def test_the_command_takes_and_shows_them(planning_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.txt").write_text("Mia tries the key\nMia goes home\n")
    request = ["generate", "--text", TEXT, "--plan", "plan.txt", "--cast", "Mia: fox, red coat", "--steps", "1"]
    options = ["--model", str(planning_folder), "--max-caption-tokens", "6", "--out", "s"]
    app([*request, *options], standalone_mode=False)
    capsys.readouterr()
    app(["info", "s"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "pages  3 of 3" in shown and "cast\n  Mia: fox, red coat" in shown
    assert "plan\n   2  Mia tries the key\n   3  Mia goes home" in shown
