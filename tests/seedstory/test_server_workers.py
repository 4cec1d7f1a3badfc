"""A server whose stories are made by two workers of Ray: what clients see is as without them, whatever dies."""

import io
import json
import time

import pytest
from PIL import Image

from seedstory.errors import ModelError
from seedstory.pipeline import StoryPipeline
from seedstory.ray_cluster import connect
from seedstory.server.remote import RemoteBatches
from seedstory.story import StoryFolder
from tests.seedstory.serving import OPENING, QUICK, serving


@pytest.fixture(scope="module")
def ray():
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    ray = connect(small=True, processes=3)  # one is left for the servers after the first
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def remote(ray, folder):
    remote = RemoteBatches(str(folder), workers=2)
    yield remote
    remote.close()


@pytest.fixture(scope="module")
def same(remote, folder):
    """The pipeline of the server, as the workers have it."""
    return StoryPipeline.from_pretrained(folder, device="cpu", story_dtype=remote.identity.dtype)


@pytest.fixture(scope="module")
def client(remote, same, library):
    with serving(same, library, batches=remote.open_all()) as client:
        yield client


def page_files(folder):
    return {file.name: file.read_bytes() for file in (folder / "pages").iterdir()}


def wait_for_pages(client, story_id, count):
    while client.story(story_id)["pages_done"] < count:
        time.sleep(0.02)


def test_stories_are_made_side_by_side_as_the_pipeline_makes_them(client, same, library, tmp_path):
    data = io.BytesIO()
    Image.new("RGB", (90, 60), "teal").save(data, "PNG")
    form = {"story": json.dumps({"pages": 2, "seed": 5, **QUICK})}
    words = client.make(seed=3)
    image = client.post("/api/stories", files={"image": ("x.png", data.getvalue())}, data=form).json()["id"]
    assert client.wait(words)["pages_done"] == 3 and client.wait(image)["pages_done"] == 2
    list(same.stream(OPENING, pages=3, seed=3, out=tmp_path / "words", **QUICK))
    list(same.stream(image=Image.open(data), pages=2, seed=5, out=tmp_path / "image", **QUICK))
    assert page_files(library / words) == page_files(tmp_path / "words")
    assert page_files(library / image) == page_files(tmp_path / "image")


def test_events_come_as_without_workers(client):
    story_id = client.make(seed=4, pages=12, num_inference_steps=3)
    events = client.events(story_id, "state:done", previews=1)
    kinds = [kind for _, kind, values in events if values.get("number") == 12 and kind != "text"]
    assert list(dict.fromkeys(kinds)) == ["written", "step", "page"]
    assert {"text", "written", "step", "page"} <= {kind for _, kind, _ in events}
    assert any(values.get("preview", "").startswith("data:image/jpeg") for _, _, values in events)


def test_a_story_is_changed_and_stopped_between_pages(client):
    story_id = client.make(pages=20, seed=9)
    wait_for_pages(client, story_id, 2)
    client.post(f"/api/stories/{story_id}/pages/2/edit", json={"caption": "A frog came."}).raise_for_status()
    assert client.post(f"/api/stories/{story_id}/cancel").json()["state"] == "stopped"
    done = [-1, client.story(story_id)["pages_done"]]
    while done[-2] != done[-1]:  # the page under way is still made, which takes its time on a busy machine
        time.sleep(1.5)
        done.append(client.story(story_id)["pages_done"])
    assert done[-1] < 20
    client.post(f"/api/stories/{story_id}/resume").raise_for_status()
    story = client.wait(story_id)
    assert story["pages_done"] == 20 and story["pages"][1]["caption"] == "A frog came."


def test_a_broken_story_fails_in_one_line_and_the_others_go_on(client, library):
    broken = client.make(pages=2)
    client.wait(broken)
    record = json.loads((library / broken / "story.json").read_text())
    record["model"]["fingerprint"] = "0" * 64
    record["settings"]["pages"] = 3
    (library / broken / "story.json").write_text(json.dumps(record))
    client.post(f"/api/stories/{broken}/resume").raise_for_status()
    story = client.wait(broken, "failed")
    assert "begun with the model" in story["error"] and str(library) not in story["error"]
    assert client.wait(client.make())["pages_done"] == 3


def test_a_lost_worker_costs_no_story(ray, remote, client, same, library, tmp_path):
    stories = {client.make(pages=40, seed=seed): seed for seed in (1, 2)}
    for story_id in stories:
        wait_for_pages(client, story_id, 2)
    ray.kill(remote._starting[0][0])
    for story_id, seed in stories.items():
        assert client.wait(story_id)["pages_done"] == 40
        list(same.stream(OPENING, pages=40, seed=seed, out=tmp_path / story_id, **QUICK))
        assert page_files(library / story_id) == page_files(tmp_path / story_id)
    assert client.get("/healthz").status_code == 200


def test_the_next_server_goes_on(folder, same, client, tmp_path):
    remote = RemoteBatches(str(folder), workers=3)  # for one of which there is room beside the others
    with serving(same, tmp_path, batches=remote.open_all()[:1]) as own:
        story_id = own.make(pages=60, seed=1)
        wait_for_pages(own, story_id, 2)
    remote.close()
    assert not StoryFolder.open(tmp_path / story_id).is_complete
    with serving(same, tmp_path) as own:
        assert own.wait(story_id)["pages_done"] == 60


def test_a_model_that_is_not_there_is_one_line(ray):
    with pytest.raises(ModelError, match="a worker cannot load the model: there is no model nowhere"):
        RemoteBatches("nowhere", workers=3)
