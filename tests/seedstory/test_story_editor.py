"""Changes of a story on disk: one atomic step each, nothing else touched, made the same way however interrupted."""

import json

import numpy as np
import pytest

from seedstory.errors import ModelError, RequestError, StoryFolderError
from seedstory.io import exclusive_writer
from seedstory.story import StoryFolder
from seedstory.story_batch import StoryBatch
from seedstory.story_editor import StoryEditor

TEXT = "The fox found a lantern near the mill."
QUICK = {"num_inference_steps": 1, "max_caption_tokens": 8}


@pytest.fixture
def story(pipe, tmp_path):
    pipe(TEXT, pages=5, seed=3, title="T", out=tmp_path / "s", **QUICK)
    return tmp_path / "s"


def ending(name: str) -> str:
    return name.rsplit(".")[-1]


def page_files(folder) -> dict[int, tuple]:
    """Of every page: its words and the bytes of its files, by id."""
    found = StoryFolder.open(folder)
    return {
        entry.id: (
            entry.caption,
            *((folder / name).read_bytes() for name in sorted(entry.files, key=lambda name: name.rsplit(".")[-1])),
        )
        for entry in found.entries
    }


def ids(folder) -> list[int]:
    return [entry.id for entry in StoryFolder.open(folder).entries]


def contents(path) -> dict:
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def same(one, other) -> bool:
    return one.caption == other.caption and bool((one.features == other.features).all()) and images_equal(one, other)


def images_equal(one, other) -> bool:
    return np.array_equal(np.asarray(one.image), np.asarray(other.image))


CHANGES = {
    "edit": (lambda editor: editor.edit(2, "The mill was dark."), {3}),
    "edit, redraw what follows": (lambda editor: editor.edit(2, "The mill was dark.", following="redraw"), {3, 4, 5}),
    "redo": (lambda editor: editor.redo(1), {2}),
    "redo the opening": (lambda editor: editor.redo(0), {1}),
    "redo with settings": (lambda editor: editor.redo(1, num_inference_steps=2, temperature=2.0), {2}),
    "redo, rewrite what follows": (lambda editor: editor.redo(2, seed=9, following="rewrite"), {3, 4, 5}),
    "insert": (lambda editor: editor.insert(2), {6}),
    "insert words at the end": (lambda editor: editor.insert(5, caption="The end."), {6}),
    "extend": (lambda editor: editor.extend(7), {6, 7}),
    "rewrite after": (lambda editor: editor.rewrite_after(2, pages=6), {4, 5, 6}),
    "move": (lambda editor: editor.move(1, 3), set()),
    "remove": (lambda editor: editor.remove(3), set()),
    "rename": (lambda editor: editor.rename("Light"), set()),
    "lock": (lambda editor: editor.lock(2), set()),
    "words alone": (lambda editor: editor.edit(4, "Goodbye.", redraw=False), {5}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_touches_the_pages_that_it_is_about(pipe, story, name):
    change, meant = CHANGES[name]
    before, old_ids = page_files(story), ids(story)
    change(StoryEditor(story))
    waiting = page_files(story)
    for page in old_ids:  # what is to be made anew stays as it was until then
        if page in waiting and name != "words alone":
            assert waiting[page] == before[page]
    made = {page.id for page in pipe.resume(story)}
    after = page_files(story)
    assert {page for page in after if after[page] != before.get(page)} == meant
    assert made == (set() if name == "words alone" else meant)
    folder = StoryFolder.open(story)
    assert folder.is_complete and len(folder) == folder.settings.pages
    assert list(pipe.resume(story)) == []


@pytest.mark.parametrize("name", ["edit, redraw what follows", "redo, rewrite what follows", "insert", "extend"])
@pytest.mark.parametrize("rendering", [{}, {"rendering": "after"}, {"render_batch": 2}])
def test_interrupted_changes_come_out_the_same(pipe, story, tmp_path, name, rendering):
    copies = [tmp_path / "whole", tmp_path / "cut"]
    for copy in copies:
        StoryEditor(story).branch(copy)
        CHANGES[name][0](StoryEditor(copy))
    list(pipe.resume(copies[0]))
    for _ in range(10):
        stream = pipe.resume(copies[1], **rendering)
        if next(stream, None) is None:
            break
        stream.close()
    assert contents(copies[1]) == contents(copies[0])


def test_following_pages_are_those_of_a_branch(pipe, story, tmp_path):
    StoryEditor(story).branch(tmp_path / "b", pages=2, seed=9)
    new = list(pipe.resume(tmp_path / "b"))
    StoryEditor(story).rewrite_after(1, seed=9)
    redone = list(pipe.resume(story))
    assert [page.index for page in new] == [page.index for page in redone] == [2, 3, 4]
    assert all(map(same, new, redone))
    pipe(TEXT, pages=5, seed=3, title="T", out=tmp_path / "again", **QUICK)
    StoryEditor(tmp_path / "again").redo(2, seed=9, following="rewrite")
    assert all(map(same, new, pipe.resume(tmp_path / "again")))


def test_a_page_of_another_seed_differs_and_one_of_the_same_seed_does_not(pipe, story):
    before = page_files(story)
    StoryEditor(story).redo(2, seed=3)
    list(pipe.resume(story))
    assert page_files(story) == before
    StoryEditor(story).redo(2)
    list(pipe.resume(story))
    entry = StoryFolder.open(story).entries[2]
    assert entry.caption != before[3][0] and entry.story_seed not in (None, 3)
    StoryEditor(story).redo(2, keep_caption=True)
    list(pipe.resume(story))
    assert StoryFolder.open(story).entries[2].caption == entry.caption


def test_the_seed_0_is_one_like_others(pipe, story, tmp_path):
    StoryEditor(story).redo(2, seed=0, following="rewrite")
    list(pipe.resume(story))
    assert [entry.story_seed for entry in StoryFolder.open(story).entries] == [None, None, 0, 0, 0]
    StoryEditor(story).repeat(tmp_path / "again")
    list(pipe.resume(tmp_path / "again"))
    assert page_files(tmp_path / "again") == page_files(story)


def test_undo_brings_everything_back(pipe, story):
    first = contents(story)
    for number, (change, _) in enumerate(CHANGES.values()):
        if number < 5:
            change(StoryEditor(story))
            list(pipe.resume(story))
    last = page_files(story), ids(story)
    editor = StoryEditor(story)
    for _ in range(5):
        editor.undo()
    back = {name: data for name, data in contents(story).items() if name in first}
    assert back == first
    with pytest.raises(StoryFolderError, match="no change to take back"):
        editor.undo()
    for _ in range(5):
        editor.undo(forward=True)
    assert (page_files(story), ids(story)) == last
    with pytest.raises(StoryFolderError, match="taken back"):
        editor.undo(forward=True)
    editor.undo()
    editor.rename("Another way")
    with pytest.raises(StoryFolderError, match="taken back"):
        editor.undo(forward=True)


def test_ids_are_never_given_twice(pipe, story):
    editor = StoryEditor(story)
    editor.remove(4)
    assert editor.insert(2) == 6
    editor.extend(6)
    assert ids(story) == [1, 2, 6, 3, 4, 7]
    list(pipe.resume(story))
    assert sorted(file.name for file in (story / "pages").glob("*.png"))[-2:] == ["page-006.png", "page-007.png"]


def test_locked_pages_stay(pipe, story):
    before, editor = page_files(story), StoryEditor(story)
    editor.lock(3)
    for refused in (lambda: editor.redo(3), lambda: editor.edit(3, "x"), lambda: editor.remove(3)):
        with pytest.raises(RequestError, match="page 4 is locked"):
            refused()
    with pytest.raises(RequestError, match="page 4 is locked"):
        editor.rewrite_after(1, pages=3)
    editor.redo(1, following="rewrite")
    assert [page.number for page in pipe.resume(story)] == [2, 3, 5]
    assert page_files(story)[4] == before[4]


def test_a_script_can_be_changed(pipe, tmp_path):
    script = ["One.", "Two.", "Three."]
    stream = pipe.stream(TEXT, captions=script, pages=4, title="T", out=tmp_path / "s", **QUICK)
    next(stream), next(stream)
    stream.close()
    editor = StoryEditor(tmp_path / "s")
    editor.insert(2, caption="One and a half.")
    editor.edit(4, "Four.")
    list(pipe.resume(tmp_path / "s"))
    captions = [entry.caption for entry in StoryFolder.open(tmp_path / "s").entries]
    assert captions == [TEXT, "One.", "One and a half.", "Two.", "Four."]


def test_an_opening_picture_stays(pipe, tmp_path):
    from PIL import Image

    pipe(image=Image.new("RGB", (40, 40), "teal"), pages=3, out=tmp_path / "s", **QUICK)
    before, editor = page_files(tmp_path / "s"), StoryEditor(tmp_path / "s")
    with pytest.raises(RequestError, match="was given"):
        editor.redo(0)
    editor.edit(0, "A blue day.")
    after = page_files(tmp_path / "s")
    assert after == before | {1: ("A blue day.", *before[1][1:])}
    assert StoryFolder.open(tmp_path / "s").settings.text == "A blue day."
    assert list(pipe.resume(tmp_path / "s")) == []


def test_what_cannot_be_is_refused_and_changes_nothing(story):
    before, editor = contents(story), StoryEditor(story)
    for refused, words in (
        (lambda: editor.edit(5, "x"), "pages 1 to 5"),
        (lambda: editor.edit(-1, "x"), "pages 1 to 5"),
        (lambda: editor.edit(1, " "), "empty"),
        (lambda: editor.redo(1, caption="x", keep_caption=True), "choose one"),
        (lambda: editor.redo(1, pages=4), "no setting pages"),
        (lambda: editor.redo(1, temperature=-1), "temperature"),
        (lambda: editor.redo(1, min_caption_tokens=20), "20 is more than max_caption_tokens 8"),
        (lambda: editor.insert(1, min_caption_tokens=20), "20 is more than max_caption_tokens 8"),
        (lambda: editor.redo(1, following="all"), "following"),
        (lambda: editor.redo(1, seed=-1), "seed"),
        (lambda: editor.insert(0), "page 2 to 6"),
        (lambda: editor.insert(7), "page 2 to 6"),
        (lambda: editor.remove(0), "opens the story"),
        (lambda: editor.move(0, 2), "opens the story"),
        (lambda: editor.move(2, 0), "opens the story"),
        (lambda: editor.extend(5), "go on to more"),
        (lambda: editor.set_state(2, plan=["x"]), "no plan stand"),
        (lambda: editor.rename(""), "empty"),
    ):
        with pytest.raises(RequestError, match=words):
            refused()
    with exclusive_writer(story), pytest.raises(StoryFolderError, match="being written"):
        editor.edit(1, "x")
    assert contents(story) == before


def test_a_scheduler_that_does_not_fit_is_refused_before_a_page_is_written(pipe, story):
    StoryEditor(story).redo(1, scheduler="lcm")
    before = contents(story)
    with StoryBatch(pipe) as batch:
        for resume in (pipe.resume, batch.resume):
            with pytest.raises(ModelError, match="lcm does not fit"):
                resume(story)
    assert contents(story) == before
    StoryEditor(story).redo(1, scheduler="euler", guidance_interval=[0.2, 1])
    assert [page.settings for page in pipe.resume(story)] == [{"scheduler": "euler", "guidance_interval": [0.2, 1]}]


def test_stories_of_the_first_format_open_and_go_on(pipe, story, tmp_path):
    record = json.loads((story / "story.json").read_text())
    for page in record["pages"]:
        del page["id"]
    (story / "story.json").write_text(json.dumps(record | {"format_version": 1}))
    assert ids(story) == [1, 2, 3, 4, 5]
    StoryEditor(story).extend(6)
    assert [page.number for page in pipe.resume(story)] == [6]


@pytest.mark.parametrize(
    ("place", "value"),
    [("id", 0), ("id", 2), ("id", "x"), ("locked", 1), ("pending", {"x": 1}), ("pending", {"caption": 3})]
    + [("pending", {"settings": {"pages": 3}}), ("settings", {"temperature": -1}), ("story_seed", -1), ("model", 3)],
)
def test_malformed_records_are_refused(story, place, value):
    record = json.loads((story / "story.json").read_text())
    record["pages"][0][place] = value
    (story / "story.json").write_text(json.dumps(record))
    with pytest.raises(StoryFolderError, match="not a readable story"):
        StoryFolder.open(story)


def test_a_batch_makes_the_same_pages(pipe, story, tmp_path):
    from seedstory.story_batch import StoryBatch

    names = ["edit, redraw what follows", "redo with settings", "insert", "extend", "words alone"]
    for name in names:
        for kind in ("alone", "batch"):
            StoryEditor(story).branch(tmp_path / kind / name)
            CHANGES[name][0](StoryEditor(tmp_path / kind / name))
        list(pipe.resume(tmp_path / "alone" / name))
    with StoryBatch(pipe) as batch:
        for name in names:
            batch.resume(tmp_path / "batch" / name)
        while batch:
            batch.step()
    for name in names:
        alone, batched = (StoryFolder.open(tmp_path / kind / name) for kind in ("alone", "batch"))
        assert batched.is_complete and [e.caption for e in batched.entries] == [e.caption for e in alone.entries]
        for index in range(len(alone)):
            one, other = alone.page(index), batched.page(index)
            assert (one.features - other.features).abs().max() < 1e-4, (name, index)


def test_a_story_can_be_repeated_to_the_same_bytes(pipe, story, tmp_path):
    StoryEditor(story).repeat(tmp_path / "plain")
    list(pipe.resume(tmp_path / "plain"))
    assert contents(tmp_path / "plain") == contents(story)
    editor = StoryEditor(story)
    for change in (
        lambda: editor.redo(1, seed=9, temperature=2.0, following="rewrite"),
        lambda: editor.edit(2, "The mill was dark.", following="rewrite"),
        lambda: editor.redo(4, keep_caption=True),
    ):
        change()
        list(pipe.resume(story))
    editor.repeat(tmp_path / "edited")
    list(pipe.resume(tmp_path / "edited"))
    assert page_files(tmp_path / "edited") == page_files(story)


def test_a_story_that_an_image_opened_can_be_repeated(pipe, tmp_path):
    from PIL import Image

    pipe(image=Image.new("RGB", (40, 40), "teal"), pages=3, out=tmp_path / "s", **QUICK)
    StoryEditor(tmp_path / "s").repeat(tmp_path / "again")
    list(pipe.resume(tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(tmp_path / "s")
