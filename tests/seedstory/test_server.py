"""Stories over HTTP: made, watched, changed, stopped, and gone on with by the next server."""

import errno
import io
import json
import re
import time

import pytest
from PIL import Image

from seedstory.server.library import JobRecord, Library
from seedstory.story import StoryFolder
from tests.seedstory.serving import OPENING, QUICK, serving


@pytest.fixture(scope="module")
def client(pipe, library):
    with serving(pipe, library) as client:
        yield client


def page_files(folder):
    return {file.name: file.read_bytes() for file in (folder / "pages").iterdir()}


def test_a_story_is_made_as_the_pipeline_makes_it(client, library, pipe, tmp_path):
    story_id = client.make(seed=3)
    assert re.fullmatch("[a-z0-9]{12}", story_id)
    story = client.wait(story_id)
    assert [page["number"] for page in story["pages"]] == [1, 2, 3] and story["pages_done"] == 3
    list(pipe.stream(OPENING, pages=3, seed=3, out=tmp_path / "alone", **QUICK))
    assert page_files(library / story_id) == page_files(tmp_path / "alone")
    image = client.get(story["pages"][1]["image"])
    assert image.content == (library / story_id / "pages" / "page-002.png").read_bytes()
    assert image.headers["content-type"] == "image/png" and "immutable" in image.headers["cache-control"]
    again = client.get(story["pages"][1]["image"], headers={"If-None-Match": image.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert story_id in [one["id"] for one in client.get("/api/stories").json()["stories"]]


def test_events_tell_everything_in_order(client):
    story_id = client.make(seed=4, pages=2, num_inference_steps=2)
    now = client.events(story_id, "story")
    assert [kind for _, kind, _ in now] == ["story"]
    client.wait(story_id)
    events = client.events(story_id, "state:done", last=now[0][0].rpartition("-")[0] + "-0")  # also what came before
    assert {"text", "written", "step", "page"} <= {kind for _, kind, _ in events}
    second = [(kind, values) for _, kind, values in events if values.get("number") == 2]
    kinds = [kind for kind, _ in second if kind != "text"]
    assert list(dict.fromkeys(kinds)) == ["written", "step", "page"]  # of steps in a row the last one is kept
    assert [values for kind, values in second if kind == "step"][-1]["step"] == 2
    texts = [values["text"] for kind, values in second if kind == "text"]
    assert texts and all(late.startswith(early[:1]) for early, late in zip(texts, texts[1:], strict=False))
    assert second[-1][1]["image"] and second[-1][1]["state"] == "illustrated"
    ids = [int(event_id.rpartition("-")[2]) for event_id, _, _ in events]
    assert ids == sorted(ids)
    missed = client.events(story_id, "state:done", last=events[-3][0])
    assert [event_id for event_id, _, _ in missed] == [event_id for event_id, _, _ in events[-2:]]
    unknown = client.events(story_id, "story", last="feedbeef-7")
    assert unknown[0][1] == "story" and unknown[0][2]["state"] == "done"


def test_an_image_opens_a_story(client, library, pipe, tmp_path):
    data = io.BytesIO()
    Image.new("RGB", (90, 60), "teal").save(data, "PNG")
    form = {"story": json.dumps({"pages": 2, "seed": 5, **QUICK})}
    answer = client.post("/api/stories", files={"image": ("../../x.png", data.getvalue())}, data=form)
    assert answer.status_code == 201, answer.text
    story = client.wait(answer.json()["id"])
    image = Image.open(io.BytesIO(data.getvalue()))
    list(pipe.stream(image=image, pages=2, seed=5, out=tmp_path / "alone", **QUICK))
    assert page_files(library / story["id"]) == page_files(tmp_path / "alone")
    assert not list((library / ".jobs").glob("*.png"))


def test_pages_are_changed_and_the_others_stay(client, library):
    story_id = client.make(seed=6)
    story = client.wait(story_id)
    ids = [page["id"] for page in story["pages"]]
    before = page_files(library / story_id)
    path = f"/api/stories/{story_id}"

    unfit = client.post(f"{path}/pages/{ids[1]}/redo", json={"settings": {"scheduler": "lcm"}})
    assert unfit.status_code == 422 and "lcm does not fit" in unfit.json()["detail"]
    redone = client.post(f"{path}/pages/{ids[1]}/redo", json={"seed": 11})
    assert redone.status_code == 200 and redone.json()["pages"][1]["pending"] == {"caption": None}
    redone = client.wait(story_id)
    assert redone["pages"][1]["image"] != story["pages"][1]["image"]
    assert [redone["pages"][i]["image"] for i in (0, 2)] == [story["pages"][i]["image"] for i in (0, 2)]
    assert before.items() <= page_files(library / story_id).items()

    client.post(f"{path}/pages/{ids[2]}/edit", json={"caption": "They went home."}).raise_for_status()
    assert client.wait(story_id)["pages"][2]["caption"] == "They went home."

    inserted = client.post(f"{path}/pages/{ids[0]}/insert", json={"caption": "It rained."}).raise_for_status().json()
    assert inserted["pages_total"] == 4 and inserted["pages"][1]["image"] is None
    inserted = client.wait(story_id)
    assert [page["id"] for page in inserted["pages"]] == [ids[0], 4, *ids[1:]]
    assert inserted["pages"][1]["caption"] == "It rained." and inserted["pages"][1]["image"]

    moved = client.post(f"{path}/pages/4/move", json={"to": 4}).raise_for_status().json()
    assert [page["id"] for page in moved["pages"]] == [*ids, 4] and moved["state"] == "done"
    assert client.post(f"{path}/pages/4/lock", json={}).json()["pages"][3]["locked"]
    refused = client.post(f"{path}/pages/4/remove")
    assert refused.status_code == 422 and "locked" in refused.json()["detail"]
    client.post(f"{path}/pages/4/lock", json={"locked": False}).raise_for_status()
    described = client.post(f"{path}/pages/4/describe", json={"alt": "Rain."}).json()
    assert described["pages"][3]["alt"] == "Rain."
    assert len(client.post(f"{path}/pages/4/remove").raise_for_status().json()["pages"]) == 3

    undone = client.post(f"{path}/undo", json={}).raise_for_status().json()
    assert len(undone["pages"]) == 4 and undone["can_redo"]
    assert len(client.post(f"{path}/undo", json={"forward": True}).json()["pages"]) == 3
    assert client.patch(path, json={"title": "The lamp"}).json()["title"] == "The lamp"

    branch = client.post(f"{path}/branch", json={"pages": 2})
    assert branch.status_code == 201 and branch.json()["state"] == "stopped" and len(branch.json()["pages"]) == 2
    client.post(f"/api/stories/{branch.json()['id']}/resume").raise_for_status()
    assert client.wait(branch.json()["id"])["pages_done"] == 3

    longer = client.post(f"{path}/continue", json={"pages": 5}).raise_for_status().json()
    assert longer["pages_total"] == 5 and client.wait(story_id)["pages_done"] == 5


def test_a_book_and_the_end_of_a_story(client):
    story_id = client.make(pages=1)
    client.wait(story_id)
    book = client.get(f"/api/stories/{story_id}/export/html")
    assert book.status_code == 200 and b"<!doctype html>" in book.content[:100].lower()
    assert "attachment" in book.headers["content-disposition"] and "sandbox" in book.headers["content-security-policy"]
    assert client.get(f"/api/stories/{story_id}/export/exe").status_code == 404
    assert client.delete(f"/api/stories/{story_id}").status_code == 204
    assert client.get(f"/api/stories/{story_id}").status_code == 404


def test_a_story_under_way_is_changed_between_pages(client):
    story_id = client.make(pages=30, seed=8)
    while not client.story(story_id)["pages_done"] >= 3:
        time.sleep(0.02)
    changed = client.post(f"/api/stories/{story_id}/pages/2/edit", json={"caption": "A frog came."})
    assert changed.status_code == 200 and changed.json()["state"] in ("waiting", "running")
    assert changed.json()["pages_total"] == 30
    story = client.wait(story_id)
    assert story["pages_done"] == 30 and story["pages"][1]["caption"] == "A frog came."


def test_a_stopped_story_goes_on_to_the_same_bytes(client, library, pipe, tmp_path):
    story_id = client.make(pages=12, seed=9)
    while not client.story(story_id)["pages_done"]:
        time.sleep(0.01)
    assert client.post(f"/api/stories/{story_id}/cancel").json()["state"] == "stopped"
    time.sleep(0.5)
    done = client.story(story_id)["pages_done"]
    time.sleep(0.3)
    assert client.story(story_id)["pages_done"] == done < 12
    client.post(f"/api/stories/{story_id}/resume").raise_for_status()
    client.wait(story_id)
    list(pipe.stream(OPENING, pages=12, seed=9, out=tmp_path / "alone", **QUICK))
    assert page_files(library / story_id) == page_files(tmp_path / "alone")


def test_the_next_server_goes_on(pipe, tmp_path):
    library = tmp_path / "library"
    with serving(pipe, library) as client:
        second = client.make(pages=25, seed=2)
        client.post(f"/api/stories/{second}/cancel").raise_for_status()
        first = client.make(pages=25, seed=1)  # alone: images that are drawn in a batch may differ in the last bit
        while not client.story(first)["pages_done"] >= 2:
            time.sleep(0.01)
        temporary = Library(library).create(pipe, temporary=True, text=OPENING, pages=2)
    assert not StoryFolder.open(library / first).is_complete
    with serving(pipe, library) as client:
        story = client.wait(first)
        assert story["pages_done"] == 25
        assert client.story(second)["state"] == "stopped"
        assert client.get(f"/api/stories/{temporary}").status_code == 404
    list(pipe.stream(OPENING, pages=25, seed=1, out=tmp_path / "alone", **QUICK))
    assert page_files(library / first) == page_files(tmp_path / "alone")


def test_a_broken_story_fails_and_the_others_go_on(pipe, tmp_path):
    with serving(pipe, tmp_path) as client:
        broken = client.make(pages=2)
        client.wait(broken)
        record = json.loads((tmp_path / broken / "story.json").read_text())
        record["model"]["fingerprint"] = "0" * 64
        record["settings"]["pages"] = 3
        (tmp_path / broken / "story.json").write_text(json.dumps(record))
        client.post(f"/api/stories/{broken}/resume").raise_for_status()
        story = client.wait(broken, "failed")
        assert "begun with the model" in story["error"] and str(tmp_path) not in story["error"]
        assert client.wait(client.make())["pages_done"] == 3
        (tmp_path / broken / "story.json").write_text("{")
        assert client.get(f"/api/stories/{broken}").status_code == 409
        assert broken not in [one["id"] for one in client.get("/api/stories").json()["stories"]]


def test_a_folder_that_is_taken_away_ends_its_story_alone(pipe, tmp_path):
    library = tmp_path / "library"
    with serving(pipe, library) as client:
        lost, kept = client.make(pages=60), client.make(pages=30)
        while not client.story(lost)["pages_done"]:
            time.sleep(0.02)
        (library / lost).rename(tmp_path / "elsewhere")
        assert client.wait(kept)["pages_done"] == 30
        assert client.get(f"/api/stories/{lost}").status_code == 404
        assert client.wait(client.make())["state"] == "done" and client.get("/healthz").status_code == 200


def test_a_full_disk_fails_one_story_in_one_line(pipe, tmp_path, monkeypatch):
    with serving(pipe, tmp_path) as client:
        first = client.make(pages=40)
        while not client.story(first)["pages_done"]:
            time.sleep(0.02)
        store = StoryFolder.add_page

        def full(folder, page):
            if folder.path.name == first:
                raise OSError(errno.ENOSPC, "No space left on device")
            store(folder, page)

        monkeypatch.setattr(StoryFolder, "add_page", full)
        story = client.wait(first, "failed")
        assert story["error"] == "No space left on device" and story["pages_done"] >= 1
        assert client.wait(client.make())["state"] == "done"
        monkeypatch.undo()
        client.post(f"/api/stories/{first}/resume").raise_for_status()
        assert client.wait(first)["pages_done"] == 40


def test_what_a_job_record_says_survives(pipe, tmp_path):
    library = Library(tmp_path)
    story_id = library.create(pipe, text=OPENING, pages=2)
    library.write_job(story_id, JobRecord("failed", "no room"))
    assert library.read_job(story_id) == JobRecord("failed", "no room")
    (tmp_path / ".jobs" / f"{story_id}.json").write_text('{"format": "seedstory-job", "state": "root"}')
    assert library.read_job(story_id) == JobRecord("stopped")
