"""A process that is killed at any moment loses no page that it announced; another one goes on to the same bytes."""

import os
import random
import signal
import time

import pytest
import torch

from seedstory.io import exclusive_writer
from seedstory.story import StoryFolder
from seedstory.story_editor import StoryEditor

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
TEXT = "The fox found a lantern near the mill."
QUICK = {"num_inference_steps": 1, "max_caption_tokens": 8}
KILLS = 50
CHANGES = {
    "generate": None,
    "redo": lambda editor: editor.redo(1, seed=9, following="rewrite"),
    "edit": lambda editor: editor.edit(2, "The mill was dark.", following="redraw"),
    "insert": lambda editor: editor.insert(2),
}


def contents(path) -> dict:
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def work(pipe, folder, change, announce) -> None:
    """What a user's processes do one after the other: begin, or go on."""
    if not (folder / "story.json").exists():
        pages = pipe.stream(TEXT, pages=6, seed=3, title="T", out=folder, **QUICK)
    else:
        if change is not None and StoryFolder.open(folder).revision == 0:
            change(StoryEditor(folder))
        pages = pipe.resume(folder)
    for page in pages:
        announce(page)


def killed_after(seconds, pipe, folder, change) -> tuple[bool, list[tuple[int, str]]]:
    """Works in a process of its own that is killed; whether it had ended before, and what it had announced."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(
                pipe,
                folder,
                change,
                lambda page: os.write(writer, f"{page.id} {page.caption.encode().hex()}\n".encode()),
            )
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reader) as lines:
        announced = [(int(line.split()[0]), line.rstrip("\n").split(" ")[1]) for line in lines if line.endswith("\n")]
    assert status == 0 or os.WIFSIGNALED(status), "the process failed by itself"
    return status == 0, announced


@pytest.mark.parametrize("name", CHANGES)
def test_killed_at_any_moment(pipe, tmp_path, name):
    change, choice = CHANGES[name], random.Random(name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process has no other threads
    try:
        begun = tmp_path / "begun"
        if change is not None:
            list(pipe.stream(TEXT, pages=6, seed=3, title="T", out=begun, **QUICK))
        whole, cut = tmp_path / "whole", tmp_path / "cut"
        for folder in (whole, cut) if change is not None else ():
            StoryEditor(begun).branch(folder)
        start = time.perf_counter()
        work(pipe, whole, change, lambda page: None)
        length = time.perf_counter() - start
        kills = runs = 0
        limit = 0.5 * length
        while kills < KILLS or not runs:
            ended, announced = killed_after(choice.uniform(0, limit), pipe, cut, change)
            limit = 0.5 * length if ended else 1.1 * limit  # on a machine that is busy now each gets its chance to end
            if (cut / "story.json").exists():
                story = StoryFolder.open(cut)
                there = {entry.id: entry for entry in story.entries}
                for page_id, words in announced:
                    entry = there[page_id]
                    assert entry.caption.encode().hex() == words and entry.pending is None
                    assert story.page(story.index_of(page_id)).image is not None
                for index in range(len(story)):
                    story.page(index)  # none is torn
                with exclusive_writer(cut):
                    pass  # the lock went with its process
            kills += not ended
            if ended:
                assert contents(cut) == contents(whole)
                runs += 1
                cut = tmp_path / f"cut{runs}"
                if change is not None:
                    StoryEditor(begun).branch(cut)
        if (cut / "story.json").exists():
            work(pipe, cut, change, lambda page: None)
            assert contents(cut) == contents(whole)
        assert runs, "none came to its end"
    finally:
        torch.set_num_threads(threads)
