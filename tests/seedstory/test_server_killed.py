"""A server that is killed at any moment while stories are made, changed and watched loses nothing that it announced."""

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import httpx
import numpy as np
import pytest
import torch

from seedstory.commands import serving as verbs
from seedstory.image import load_image
from seedstory.io import is_leftover, parse_json
from seedstory.server.views import image_version
from seedstory.story import StoryFolder
from seedstory.story_editor import StoryEditor
from tests.seedstory.serving import OPENING, QUICK, Client

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes"),
    pytest.mark.timeout(600),
]
KILLS = int(os.environ.get("SEEDSTORY_SERVER_KILLS", "25"))
STORY = {"pages": 4, "seed": 3, "title": "T", **QUICK}
# What is asked of a story one after the other: the route with its body, and the same by the library.
CHANGES = [
    ("pages/2/redo", {"seed": 9, "following": "rewrite"}, lambda one: one.redo(1, seed=9, following="rewrite")),
    ("pages/3/edit", {"caption": "The mill was dark."}, lambda one: one.edit(2, "The mill was dark.")),
    ("pages/1/insert", {"seed": 5}, lambda one: one.insert(1, seed=5)),
    ("continue", {"pages": 6, "seed": 7}, lambda one: one.extend(6, seed=7)),
]


class Author:
    """A client that makes and changes a story, and remembers what it was told.

    Attributes:
        announced: Id, words and image address of pages.
        is_finished: Whether all of `CHANGES` are made.
    """

    def __init__(self, story_id: str | None = None) -> None:
        self.story_id = story_id
        self.announced: set[tuple[int, str, str | None]] = set()
        self.revision, self.is_under_way, self.is_finished = 0, False, False

    def note(self, story: dict) -> dict:
        """Takes in what the server says of the story; it never falls back behind what it has said."""
        assert story["revision"] >= self.revision and story["state"] != "failed", story
        self.revision = story["revision"]
        for page in story["pages"]:
            self.note_page(page)
        return story

    def note_page(self, page: dict) -> None:
        if page["image"] or (page["caption"] and not page["pending"]):
            self.announced.add((page["id"], page["caption"], page["image"]))

    def work(self, address: str) -> None:
        with Client(base_url=address, timeout=60) as client:
            try:
                self._work(client)
            except httpx.TransportError:  # the server was killed
                return

    def _work(self, client: Client) -> None:
        if self.story_id is None:
            while (answer := client.post("/api/stories", json={"text": OPENING, **STORY})).status_code == 429:
                time.sleep(0.02)
            assert answer.status_code == 201, answer.text
            self.story_id, self.is_under_way = answer.json()["id"], True
        path = f"/api/stories/{self.story_id}"
        while True:
            story = self.note(client.story(self.story_id))
            if story["state"] == "stopped":
                assert not self.is_under_way, "a story that was under way does not go on by itself"
                client.post(f"{path}/resume")
            elif story["state"] == "done":
                self.is_under_way = False
                assert story["pages_done"] == story["pages_total"] and not any(
                    page["pending"] for page in story["pages"]
                )
                if story["revision"] == len(CHANGES):
                    self.is_finished = True
                    return
                route, body, _ = CHANGES[story["revision"]]
                answer = client.post(f"{path}/{route}", json=body)
                if answer.status_code != 429:
                    self.note(answer.raise_for_status().json())
                    self.is_under_way = True
            else:
                self.is_under_way = True
            time.sleep(0.02)

    def watch(self, address: str) -> None:
        with Client(base_url=address, timeout=60) as client:
            try:
                while self.story_id is None:
                    client.get("/healthz")
                    time.sleep(0.02)
                with client.stream("GET", f"/api/stories/{self.story_id}/events") as events:
                    kind = ""
                    for line in events.iter_lines():
                        name, _, value = line.partition(": ")
                        if name == "event":
                            kind = value
                        elif name == "data" and kind == "page":
                            self.note_page(parse_json(value, "the event"))
            except httpx.TransportError:
                return


def serve(pipe, library, max_stories: int) -> tuple[int, int]:
    """Starts the server in a process of its own; its id, and where it says its address."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            verbs.load_pipeline = lambda *_, **__: pipe
            model = ("tiny", None, False, "auto")
            verbs._run(
                library,
                lambda where: os.write(writer, where.encode()),
                port=0,
                api_keys=None,
                model=model,
                host="127.0.0.1",
                max_stories=max_stories,
            )
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    return child, reader


def live(pipe, library, authors: list[Author], max_stories: int, seconds: float | None, *, early: bool = False) -> None:
    """One life of a server with its clients: killed after some seconds, or stopped when they have done all.

    The seconds count from where it listens, or with `early` from its start.
    """
    child, reader = serve(pipe, library, max_stories)
    killer = threading.Timer(seconds or 0, os.kill, (child, signal.SIGKILL))
    if early:
        killer.start()
    with ThreadPoolExecutor() as pool:
        address = os.read(reader, 200).decode()  # empty when it was killed before
        os.close(reader)
        if seconds is not None and not early:
            killer.start()
        working = [pool.submit(author.work, address) for author in adopt(address, authors)] if address else []
        watching = [pool.submit(author.watch, address) for author in authors] if address else []
        if seconds is None:
            wait(working, timeout=120)
            os.kill(child, signal.SIGTERM)
        else:
            killer.join()
        status = os.waitpid(child, 0)[1]
        for done in [*working, *watching]:
            done.result(timeout=60)
    if seconds is not None:
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "the server ended by itself"


def adopt(address: str, authors: list[Author]) -> list[Author]:
    """Gives stories whose authors were not told of them before the end to these authors."""
    try:
        known = {author.story_id for author in authors}
        with Client(base_url=address, timeout=60) as client:
            found = [one["id"] for one in client.get("/api/stories?limit=500").json()["stories"]]
            new = [story_id for story_id in found if story_id not in known]
            for author in authors:
                if author.story_id is None and new:
                    author.story_id = new.pop()
            assert not new, "stories that nobody asked for"
    except httpx.TransportError:
        return []
    return authors


def check(library, authors: list[Author]) -> None:
    """What was announced is on the disk, whole, and nothing is torn."""
    for author in authors:
        if author.story_id is None:
            continue
        folder = StoryFolder.open(library / author.story_id)
        assert folder.revision >= author.revision
        for index in range(len(folder)):
            folder.page(index)
        entries = [*folder.entries, *folder.history.entries()]
        there = {(one.id, one.caption, address_of(author.story_id, folder, one)) for one in entries}
        words = {(one.id, one.caption) for one in entries}
        for page_id, caption, image in author.announced:
            assert (page_id, caption, image) in there if image else (page_id, caption) in words
    for file in (library / ".jobs").iterdir():
        assert is_leftover(file) or parse_json(file.read_bytes(), file.name)["state"]


def address_of(story_id, folder, entry) -> str | None:
    if entry.image_file is None:
        return None
    load_image(folder.path / entry.image_file)
    return f"/api/stories/{story_id}/pages/{entry.id}/image?v={image_version(folder.path / entry.image_file)}"


def page_files(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "pages").iterdir()}


def words(folder) -> list:
    return [(entry.id, entry.caption, entry.state, entry.files) for entry in StoryFolder.open(folder).entries]


@pytest.mark.slow
@pytest.mark.parametrize("max_stories", [1, 3], ids=["one_at_a_time", "side_by_side"])
def test_a_server_that_is_killed_at_any_moment_loses_nothing(pipe, tmp_path, max_stories):
    choice, library = random.Random(max_stories), tmp_path / "library"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process has no other threads
    try:
        whole, start = tmp_path / "whole", time.perf_counter()
        list(pipe.stream(OPENING, out=whole, **STORY))
        for _, _, change in CHANGES:
            change(StoryEditor(whole))
            list(pipe.resume(whole))
        longest = 0.5 * (time.perf_counter() - start)  # a busy machine takes its time
        authors: list[Author] = []
        for _ in range(KILLS):
            authors += [Author() for _ in range(max_stories - sum(not author.is_finished for author in authors))]
            live(pipe, library, authors, max_stories, choice.uniform(0, longest), early=choice.random() < 0.2)
            check(library, authors)
        live(pipe, library, authors, max_stories, None)
        assert all(author.is_finished for author in authors)
        for author in authors:
            made = library / author.story_id
            assert words(made) == words(whole)
            assert not [file for file in made.rglob("*") if is_leftover(file)]
            if max_stories == 1:
                assert page_files(made) == page_files(whole)
                continue
            for name in page_files(whole):  # pictures that are drawn together may differ in the last bit
                if name.endswith(".png"):
                    one, other = (np.asarray(load_image(path / "pages" / name), int) for path in (made, whole))
                    assert abs(one - other).max() <= 1, name
        assert sum(len(author.announced) for author in authors) > 10
    finally:
        torch.set_num_threads(threads)
