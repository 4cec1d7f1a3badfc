"""Stories written and drawn side by side equal those of `stream`, in memory and on disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from seedstory.errors import RequestError, StoryFolderError
from seedstory.pipeline import StoryPipeline
from seedstory.story import Story, StoryFolder
from seedstory.story_batch import StoryBatch

QUICK = {"num_inference_steps": 1, "max_caption_tokens": 6}
FOX = {"text": "The fox found a lantern.", "pages": 4, "seed": 3, **QUICK}
STAR = {"text": "Was it a star?", "pages": 3, "seed": 4, **QUICK}
TEAL = {"image": Image.new("RGB", (60, 40), "teal"), "pages": 3, "seed": 5, **QUICK}
OTHER_WORDS = {"text": "A bear.", "pages": 2, "seed": 6, "policy": "dense", "top_k": 5, **QUICK}


def write_all(batch, pages=None):
    pages = {} if pages is None else pages
    while batch:
        for number, page in batch.step():
            pages.setdefault(number, []).append(page)
    return pages


def assert_same(pages, expected):
    assert [page.index for page in pages] == [page.index for page in expected]
    for one, other in zip(pages, expected, strict=True):
        assert (one.caption, one.state, one.seed, one.next_state) == (
            other.caption,
            other.state,
            other.seed,
            other.next_state,
        )
        assert (one.features - other.features).abs().max() <= 2e-5
        assert (one.image is None) == (other.image is None)
        if one.image is not None:
            assert np.abs(np.int16(one.image) - np.int16(other.image)).max() <= 1


def test_stories_that_join_are_those_of_stream_on_disk_too(pipe, tmp_path, monkeypatch):
    drawn = []
    draw = type(pipe.detokenizer).__call__

    def count(self, features, *args, **kwargs):
        drawn.append(len(features))
        return draw(self, features, *args, **kwargs)

    expected = [list(pipe.stream(**story)) for story in (FOX, STAR, TEAL, OTHER_WORDS)]
    monkeypatch.setattr(type(pipe.detokenizer), "__call__", count)
    heard = []
    with StoryBatch(pipe) as batch:
        assert batch.add(**FOX, out=tmp_path / "0", callback_on_text=lambda *said: heard.append(said)) == 0
        assert batch.add(**STAR, out=tmp_path / "1") == 1
        pages = {0: [], 1: []}
        for number, page in batch.step():
            pages[number].append(page)
        assert drawn == [2] and [len(own) for own in pages.values()] == [1, 1]
        assert batch.add(**TEAL, out=tmp_path / "2") == 2 and batch.add(**OTHER_WORDS, out=tmp_path / "3") == 3
        write_all(batch, pages)
        assert drawn == [2, 3, 4, 2] and len(batch) == 0 and batch.step() == []
    for number, own in enumerate(expected):
        assert_same(pages[number], own)
        assert_same(Story.load(tmp_path / str(number)).pages, own)
        assert StoryFolder.open(tmp_path / str(number)).title
    assert {index for index, _ in heard} == {1, 2, 3} and len(heard[0]) == 2


def test_a_story_that_leaves_is_resumed_later(pipe, tmp_path):
    fox, star = list(pipe.stream(**FOX)), list(pipe.stream(**STAR))
    with StoryBatch(pipe) as batch:
        batch.add(**FOX, out=tmp_path / "fox")
        batch.step()
        batch.add(**STAR)
        batch.step()
        with pytest.raises(StoryFolderError, match="is being written"):
            StoryBatch(pipe).resume(tmp_path / "fox")
        batch.remove(0)
        with pytest.raises(RequestError, match="story 0 is not under way"):
            batch.remove(0)
        assert batch.resume(tmp_path / "fox") == 2
        pages = write_all(batch)
        assert_same(pages[1], star[1:])
        assert_same(pages[2], fox[2:])
        assert batch.resume(tmp_path / "fox") == 3 and not batch, "nothing is left to write"
    assert_same(Story.load(tmp_path / "fox").pages, fox)


def test_what_broke_off_goes_on(pipe, tmp_path, monkeypatch):
    fox, star = list(pipe.stream(**FOX)), list(pipe.stream(**STAR))
    with StoryBatch(pipe) as batch:
        batch.add(**FOX, out=tmp_path / "fox")
        batch.add(**STAR, out=tmp_path / "star")
        pages = {0: [], 1: []}
        for target, name in ((type(pipe.detokenizer), "__call__"), (StoryFolder, "add_page")):
            with monkeypatch.context() as patch, pytest.raises(OSError, match="no room"):
                patch.setattr(target, name, lambda *_, **__: (_ for _ in ()).throw(OSError("no room")))
                batch.step()
            for number, page in batch.step():
                pages[number].append(page)
        write_all(batch, pages)
    assert_same(pages[0], fox)
    assert_same(pages[1], star)


def test_words_alone_and_what_is_undrawn(pipe, tmp_path):
    fox = list(pipe.stream(**FOX))
    words = list(pipe.stream(**FOX, output_type="features", out=tmp_path / "fox"))
    with StoryBatch(pipe) as batch:
        batch.add(**FOX, output_type="features")
        assert_same(write_all(batch)[0], words)
        batch.resume(tmp_path / "fox")
        assert_same(write_all(batch)[1], fox)
    assert_same(Story.load(tmp_path / "fox").pages, fox)


def test_steps_are_told_of_the_pages_that_they_draw(pipe, tmp_path):
    pipe(**FOX, output_type="features", out=tmp_path / "fox")
    folder = StoryFolder.open(tmp_path / "fox")
    folder.entries[2] = replace(folder.entries[2], settings={"num_inference_steps": 3})
    folder.save_record()
    seen, steps = [], {}
    with StoryBatch(pipe, lambda *told: seen.append(told)) as batch:
        batch.resume(folder)
        write_all(batch)
    for pages, step, tensors in seen:
        assert not tensors if step == 0 else {len(rows) for rows in tensors.values()} == {len(pages)}
        for _, page in pages:
            steps.setdefault(page.index, []).append(step)
    assert steps == {0: [0, 1], 1: [0, 1], 2: [0, 1, 2, 3], 3: [0, 1]}


def test_a_page_that_breaks_in_the_middle_lets_its_stories_go(pipe, tmp_path, monkeypatch):
    with StoryBatch(pipe) as batch:
        batch.add(**FOX, out=tmp_path / "fox")
        batch.step()
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(type(pipe.story_model), "decode_features", lambda *_: (_ for _ in ()).throw(RuntimeError()))
            batch.step()
        assert len(batch) == 0
        batch.resume(tmp_path / "fox")
        write_all(batch)
    assert_same(Story.load(tmp_path / "fox").pages, list(pipe.stream(**FOX)))


def test_what_a_batch_refuses(pipe, tmp_path):
    batch = StoryBatch(pipe)
    for options in ({"render_batch": 2}, {"rendering": "ahead"}, {"callback_on_step_end": print}):
        with pytest.raises(RequestError, match="drawn together"):
            batch.add(**FOX, **options, out=tmp_path / "no")
    with pytest.raises(RequestError, match="not trained to follow"):
        batch.add(**FOX, story_state=True, out=tmp_path / "no")
    assert len(batch) == 0 and not (tmp_path / "no").exists()


def test_native_words_too(folder):
    pipe = StoryPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu", decoding="auto")
    with StoryBatch(pipe) as batch:
        batch.add(**STAR)
        batch.add(**TEAL)
        pages = write_all(batch)
    assert_same(pages[0], list(pipe.stream(**STAR)))
    assert_same(pages[1], list(pipe.stream(**TEAL)))
