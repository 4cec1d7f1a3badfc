"""Requests made up from the OpenAPI schema: none may break the server."""

import contextlib

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from tests.seedstory.serving import serving

EXAMPLES = 6  # for each route; `python -m inference.load` and longer runs find more


@pytest.fixture(scope="module")
def client(pipe, tmp_path_factory):
    limits = {"max_stories": 3, "max_pages": 4, "max_body": 50_000}
    with serving(pipe, tmp_path_factory.mktemp("library"), **limits) as client:
        yield client


@pytest.fixture(scope="module")
def operations(client):
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    return [one.ok() for one in schema.get_all_operations()]


def test_no_request_breaks_the_server(client, operations):
    story_id = client.make(pages=2)
    client.wait(story_id)
    assert len(operations) >= 25
    for operation in operations:
        if operation.path.endswith("/events"):
            continue  # its answer has no end
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            with contextlib.suppress(Unsatisfiable):  # nothing of an operation without parameters can be wrong
                _try(client, operation.as_strategy(generation_mode=mode), story_id)
    assert client.get("/healthz").status_code == 200
    assert client.wait(client.make(pages=1))["state"] == "done"


def _try(client, cases, story_id):
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases, st.booleans())
    def run(case, real):
        if real and "story_id" in (case.path_parameters or {}):
            case.path_parameters["story_id"] = story_id
            case.path_parameters.setdefault("page_id", 1)
        if case.method.upper() == "DELETE":
            return
        answer = case.call(base_url=str(client.base_url), timeout=30)
        assert answer.status_code < 500, (case.method, answer.url, answer.text)
        if answer.status_code >= 400 and "json" in answer.headers.get("content-type", ""):
            values = answer.json()
            line = values["error"]["message"] if "error" in values else values["detail"]
            assert isinstance(line, str) and "\n" not in line

    run()
