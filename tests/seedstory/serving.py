"""A real server for tests: uvicorn in a thread, on a free port."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from seedstory.server import ServerSettings, create_app

QUICK = {"max_caption_tokens": 6, "num_inference_steps": 1}  # a page in a blink
OPENING = "Mia the fox found a key."


class Client(httpx.Client):
    """A client that knows the server's own words."""

    def make(self, **values: Any) -> str:
        """Begins a story; returns its id."""
        answer = self.post("/api/stories", json={"text": OPENING, "pages": 3, **QUICK, **values})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def story(self, story_id: str) -> dict[str, Any]:
        return self.get(f"/api/stories/{story_id}").raise_for_status().json()

    def wait(self, story_id: str, *states: str) -> dict[str, Any]:
        """The story once it is in one of the states; "done" if none is named."""
        for _ in range(600):
            story = self.story(story_id)
            if story["state"] in (states or ("done",)):
                return story
            time.sleep(0.05)
        raise AssertionError(f"{story_id} is {story['state']}: {story['error']}")

    def events(
        self, story_id: str, until: str, last: str | None = None, **query: Any
    ) -> list[tuple[str, str, dict[str, Any]]]:
        """Id, kind and values of the events up to the first of a kind, or to the state `state:NAME`."""
        found, event_id, kind = [], "", ""
        headers = {} if last is None else {"Last-Event-ID": last}
        with self.stream("GET", f"/api/stories/{story_id}/events", params=query, headers=headers) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    event_id = value
                elif name == "event":
                    kind = value
                elif name == "data":
                    values = json.loads(value)
                    found.append((event_id, kind, values))
                    if until in (kind, f"{kind}:{values.get('state')}"):
                        return found
        return found


@contextlib.contextmanager
def serving(pipe: Any, library: Path, *, batches: Any = None, **settings: Any) -> Iterator[Client]:
    """A server of a library, and a client of it."""
    app = create_app(pipe, library, ServerSettings(**settings), batches=batches)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        app.state.service.jobs.stop()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
