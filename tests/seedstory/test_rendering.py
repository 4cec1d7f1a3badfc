"""When pictures are drawn does not change them, and whatever goes wrong ends both sides cleanly."""

import gc
import shutil
import threading
import weakref

import numpy as np
import pytest
import torch

from seedstory.pipeline import StoryPipeline
from seedstory.rendering import Rendering
from seedstory.story import StoryFolder
from tests.seedstory.test_pipeline import QUICK, TEXT, contents, same
from tests.tiny import tiny_pipeline

REQUEST = {"text": TEXT, "pages": 5, "title": "T", **QUICK}
DEFERRED = [
    {"rendering": "ahead"},
    {"rendering": "ahead", "render_queue": 1, "render_batch": 2},
    {"rendering": "after"},
    {"rendering": "after", "render_batch": 3},
    {"render_batch": 4},
]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def plain(pipe, tmp_path_factory):
    """The story and its folder, drawn page by page."""
    folder = tmp_path_factory.mktemp("plain") / "s"
    return pipe(**REQUEST, out=folder), folder


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    gc.collect()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("seedstory")] == []


@pytest.mark.parametrize("rendering", DEFERRED, ids=str)
def test_the_story_is_the_same_however_it_is_drawn(pipe, plain, tmp_path, rendering):
    story, folder = plain
    seen = []
    other = pipe(**REQUEST, **rendering, out=tmp_path / "s", callback_on_page=seen.append)
    assert [page.index for page in seen] == [0, 1, 2, 3, 4] and other.model == story.model
    for one, two in zip(story.pages, other.pages, strict=True):
        assert (one.caption, one.state) == (two.caption, two.state) and torch.equal(one.features, two.features)
        assert np.abs(np.asarray(one.image, int) - np.asarray(two.image, int)).max() <= 1
    if rendering.get("render_batch", 1) == 1:
        assert contents(tmp_path / "s") == contents(folder)
    assert set(contents(tmp_path / "s")) == set(contents(folder))


@pytest.mark.parametrize("rendering", DEFERRED, ids=str)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_story_cut_short_is_resumed_to_the_same_bytes(pipe, tmp_path, rendering, stop):
    stream = pipe.stream(**REQUEST, **rendering, out=tmp_path / "cut")
    came = [next(stream).index for _ in range(stop)]
    stream.close()
    cut = StoryFolder.open(tmp_path / "cut")
    assert all(cut.page(i).image is not None for i in came)
    assert all(cut.page(i).features is not None for i in range(len(cut)))
    list(pipe.resume(tmp_path / "cut", **rendering))
    pipe(**REQUEST, **rendering, out=tmp_path / "whole")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_ahead_writes_while_it_draws_but_not_too_far(pipe, monkeypatch):
    may_draw, written = threading.Event(), []
    draw, write = type(pipe.detokenizer).__call__, StoryPipeline._write

    def slow(self, *args, **options):
        assert threading.current_thread() is not threading.main_thread() and may_draw.wait(60)
        return draw(self, *args, **options)

    def watched(self, *args):
        for page in write(self, *args):
            assert threading.current_thread() is threading.main_thread()
            written.append(page.index)
            if len(written) == 6:  # (queue + 1) * batch: the writer waits from here on, or never would
                threading.Timer(0.2, lambda: (counts.append(len(written)), may_draw.set())).start()
            yield page

    counts: list[int] = []
    monkeypatch.setattr(type(pipe.detokenizer), "__call__", slow)
    monkeypatch.setattr(StoryPipeline, "_write", watched)
    stream = pipe.stream(
        **{**REQUEST, "pages": 12}, rendering="ahead", render_batch=2, render_queue=2, captions=["Mia ran."] * 11
    )
    assert len(list(stream)) == 12 and counts == [6]


def test_after_frees_the_language_model_before_it_draws(pipe, plain, monkeypatch):
    draw, alive = type(pipe.detokenizer).__call__, []
    model = weakref.ref(pipe.story_model)

    def watched(self, *args, **options):
        alive.append(model() is not None)
        return draw(self, *args, **options)

    monkeypatch.setattr(type(pipe.detokenizer), "__call__", watched)
    story = pipe(**REQUEST, rendering="after")
    assert alive == [False] * 5
    monkeypatch.undo()
    assert all(map(same, story.pages, pipe(**REQUEST).pages)), "it comes back by itself"


def test_a_freed_model_must_be_able_to_come_back(pipe):
    made = StoryPipeline(pipe.story_model, pipe.vision_tower, pipe.detokenizer)
    with pytest.raises(ValueError, match="from_pretrained"):
        made.stream(**REQUEST, rendering="after")
    with pytest.raises(ValueError, match="not loaded from a folder"):
        made.free_story_model()


@pytest.mark.parametrize(
    ("rendering", "error"),
    [(rendering, RuntimeError) for rendering in DEFERRED] + [({"rendering": "ahead"}, KeyboardInterrupt)],
    ids=str,
)
@pytest.mark.parametrize("place", ["draw", "write", "keep"])
def test_an_error_anywhere_ends_everything(pipe, plain, tmp_path, monkeypatch, rendering, error, place):
    def failing(function, at):
        calls = []

        def wrapped(*args, **options):
            calls.append(1)
            if len(calls) == at:
                raise error("it broke")
            return function(*args, **options)

        return wrapped

    owner, name, at = {
        "draw": (type(pipe.detokenizer), "predict", 2),
        "write": (type(pipe.story_model), "decode_features", 4),
        "keep": (StoryFolder, "add_page", 4),
    }[place]
    monkeypatch.setattr(owner, name, failing(getattr(owner, name), at))
    if place == "draw" and rendering.get("render_batch", 1) > 2:
        monkeypatch.setattr(owner, name, failing(getattr(owner, name), 1))
    with pytest.raises(error, match="it broke"):
        pipe(**REQUEST, **rendering, out=tmp_path / "s")
    monkeypatch.undo()
    StoryFolder.open(tmp_path / "s").remove_leftovers()
    list(pipe.resume(tmp_path / "s"))
    if rendering.get("render_batch", 1) == 1:
        assert contents(tmp_path / "s") == contents(plain[1])
    assert len(StoryFolder.open(tmp_path / "s")) == 5


def test_words_come_in_the_callers_thread(pipe):
    seen = set()
    pipe(
        **REQUEST, rendering="ahead", callback_on_text=lambda index, text: seen.add((index, threading.current_thread()))
    )
    assert seen == {(index, threading.main_thread()) for index in range(1, 5)}


def test_two_stories_of_one_pipeline_may_take_turns(pipe, plain):
    one = pipe.stream(**REQUEST, rendering="ahead")
    two = pipe.stream(**REQUEST)
    pages = [page for pair in zip(one, two, strict=True) for page in pair]
    assert all(same(pages[i], plain[0].pages[i // 2]) for i in range(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rendering": "later"}, "unknown rendering 'later': choose one of inline, ahead, after"),
        ({"render_batch": 0}, "render_batch must be a whole number"),
        ({"render_queue": 1.5}, "render_queue must be a whole number"),
    ],
)
def test_bad_values_are_refused_at_once(pipe, plain, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Rendering(**options)
    with pytest.raises(ValueError, match=message):
        pipe.stream(**REQUEST, **options)
    shutil.copytree(plain[1], tmp_path / "s")
    with pytest.raises(ValueError, match=message):
        pipe.resume(tmp_path / "s", **options)
