"""A server whose disk is full or read-only: 507 in one line, nothing is lost, and stories go on later."""

import errno
import io
import json
import os
import tempfile
import time

import numpy as np
import pytest
from PIL import Image

from seedstory.io import exclusive_writer, is_leftover
from seedstory.server.library import JobRecord, Library
from seedstory.story import StoryFolder
from seedstory.story_editor import StoryEditor
from tests.seedstory.serving import OPENING, QUICK, serving
from tests.seedstory.small_disk import contents, disk, fill, read_only

CHAT = {"model": "seedstory", "messages": [{"role": "user", "content": OPENING}]}


def noise(side: int) -> bytes:
    """A picture that does not get smaller."""
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(data, "PNG")
    return data.getvalue()


def line_of(answer, *statuses: int) -> str:
    """The one line of a refusal."""
    assert answer.status_code in statuses, (answer.request.url, answer.status_code, answer.text)
    body = answer.json()
    line = body["detail"] if "detail" in body else body["error"]["message"]
    assert line and "\n" not in line and len(line) < 300 and "/tmp" not in line
    return line


def requests_that_write(client, story_id):
    """All that a client can ask for that needs room."""
    path = f"/api/stories/{story_id}"
    yield client.post("/api/stories", json={"text": OPENING, "pages": 2, **QUICK})
    yield client.post("/api/stories", files={"image": noise(64)}, data={"story": json.dumps(QUICK)})
    yield client.post(f"{path}/pages/2/redo", json={"seed": 9})
    yield client.post(f"{path}/pages/2/edit", json={"caption": "A frog came."})
    yield client.post(f"{path}/pages/1/insert", json={"seed": 5})
    yield client.post(f"{path}/continue", json={"pages": 9})
    yield client.post(f"{path}/pages/2/lock", json={})
    yield client.post(f"{path}/pages/2/remove")
    yield client.patch(path, json={"title": "Another"})
    yield client.post(f"{path}/branch", json={})
    yield client.post("/v1/chat/completions", json=CHAT)
    yield client.post("/v1/images/generations", json={"prompt": OPENING})


def all_still_reads(client, story_id, pages):
    story = client.story(story_id)
    assert story["pages_done"] == pages == len(story["pages"]) and story["state"] == "done"
    assert all(client.get(page["image"]).status_code == 200 for page in story["pages"])
    assert client.get(f"/api/stories/{story_id}/export/html").status_code == 200
    assert client.get("/healthz").json() == {"status": "ok"} and client.get("/metrics").status_code == 200


@pytest.mark.parametrize("left", [0, 4096])
def test_a_full_disk_is_507_and_the_story_goes_on_later(pipe, tmp_path, left):
    with disk(tmp_path / "disk") as small, serving(pipe, small / "library", page_timeout=20) as client:
        done = client.make(pages=3, seed=1)
        client.wait(done)
        before = contents(small / "library" / done)
        filler = fill(small, 60_000)
        story_id = client.make(pages=20, seed=2, title="T")
        story = client.wait(story_id, "failed")
        assert story["error"] == "No space left on device" and 1 <= story["pages_done"] < 20
        filler.unlink()
        filler = fill(small, left)
        ids = client.get("/api/stories").json()["total"]
        for answer in requests_that_write(client, done):
            assert "No space left on device" in line_of(answer, 507)
        assert client.get("/api/stories").json()["total"] == ids
        assert before.items() <= contents(small / "library" / done).items()
        all_still_reads(client, done, 3)
        line_of(client.post(f"/api/stories/{story_id}/resume"), 507) if left == 0 else None
        filler.unlink()
        client.post(f"/api/stories/{story_id}/resume").raise_for_status()
        assert client.wait(story_id)["pages_done"] == 20
        assert client.post(f"/api/stories/{done}/pages/2/redo", json={"seed": 9}).status_code == 200
        assert client.wait(done)["pages_done"] == 3
        list(pipe.stream(OPENING, pages=20, seed=2, title="T", out=tmp_path / "alone", **QUICK))
        assert contents(small / "library" / story_id / "pages") == contents(tmp_path / "alone" / "pages")
        assert not [file for file in (small / "library").rglob("*") if is_leftover(file)]


def test_a_read_only_disk_is_507_and_the_story_goes_on_later(pipe, tmp_path):
    with disk(tmp_path / "disk") as small, serving(pipe, small / "library", page_timeout=20) as client:
        done = client.make(pages=3, seed=1)
        client.wait(done)
        story_id = client.make(pages=40, seed=2)
        while client.story(story_id)["pages_done"] < 2:
            time.sleep(0.02)
        with read_only(small):
            assert client.wait(story_id, "failed")["error"] == "Read-only file system"
            for answer in requests_that_write(client, done):
                assert "Read-only file system" in line_of(answer, 507)
            line_of(client.post(f"/api/stories/{story_id}/resume"), 507)
            line_of(client.delete(f"/api/stories/{done}"), 507)
            all_still_reads(client, done, 3)
        client.post(f"/api/stories/{story_id}/resume").raise_for_status()
        assert client.wait(story_id)["pages_done"] == 40


def test_no_room_for_temporary_files(pipe, tmp_path, monkeypatch):
    with disk(tmp_path / "disk") as small, serving(pipe, tmp_path / "library") as client:
        story_id = client.make(pages=1)
        client.wait(story_id)
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        filler = fill(small, 4096)
        line_of(client.get(f"/api/stories/{story_id}/export/html"), 507)
        upload = {"files": {"image": noise(900)}, "data": {"story": json.dumps({"pages": 1, **QUICK})}}
        line_of(client.post("/api/stories", **upload), 507)
        filler.unlink()
        assert os.listdir(small) == []
        assert client.get(f"/api/stories/{story_id}/export/html").status_code == 200


def test_a_story_that_another_process_writes_is_409_and_goes_on_later(pipe, tmp_path):
    with serving(pipe, tmp_path, page_timeout=20) as client:
        story_id = client.make(pages=3)
        client.wait(story_id)
        path = f"/api/stories/{story_id}"
        with exclusive_writer(tmp_path / story_id):
            for answer in (
                client.post(f"{path}/pages/2/redo", json={}),
                client.post(f"{path}/continue", json={"pages": 5}),
                client.post(f"{path}/undo", json={}),
                client.patch(path, json={"title": "Another"}),
            ):
                assert "being written by another" in line_of(answer, 409)
            assert client.story(story_id)["state"] == "done"
        client.post(f"{path}/continue", json={"pages": 5}).raise_for_status()
        assert client.wait(story_id)["pages_done"] == 5
        assert StoryFolder.open(tmp_path / story_id).revision == 1


def test_a_story_with_a_lost_file_is_409(pipe, tmp_path):
    with serving(pipe, tmp_path, page_timeout=20) as client:
        story_id = client.make(pages=2)
        client.wait(story_id)
        (tmp_path / story_id / "pages" / "page-002.png").unlink()
        assert "page-002.png" in line_of(client.post(f"/api/stories/{story_id}/branch", json={}), 409)
        line_of(client.get(f"/api/stories/{story_id}/export/html"), 409)
        line_of(client.get(f"/api/stories/{story_id}/pages/2/image"), 404)
        assert client.story(story_id)["pages"][1]["image"] is None
        assert client.get("/api/stories").json()["total"] == 1


def test_a_change_whose_job_record_finds_no_room_can_go_on(pipe, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(pipe, tmp_path, page_timeout=20) as client:
        story_id = client.make(pages=2)
        client.wait(story_id)
        monkeypatch.setattr(Library, "write_job", full)
        line_of(client.post(f"/api/stories/{story_id}/pages/2/redo", json={"seed": 9}), 507)
        assert client.story(story_id)["state"] == "stopped" and client.story(story_id)["pages_done"] == 1
        monkeypatch.undo()
        client.post(f"/api/stories/{story_id}/resume").raise_for_status()
        assert client.wait(story_id)["pages_done"] == 2


def test_the_folder_has_the_last_word_when_a_server_starts(pipe, tmp_path):
    with serving(pipe, tmp_path) as client:
        changed, finished = client.make(pages=2), client.make(pages=2)
        client.wait(changed), client.wait(finished)
    StoryEditor(tmp_path / changed).redo(1, seed=9)  # what a killed server or a command leaves
    Library(tmp_path).write_job(finished, JobRecord("waiting"))
    with serving(pipe, tmp_path) as client:
        assert client.story(changed)["state"] == "stopped" and client.story(finished)["state"] == "done"
        client.post(f"/api/stories/{changed}/resume").raise_for_status()
        assert client.wait(changed)["pages_done"] == 2
