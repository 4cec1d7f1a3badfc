"""The OpenAI protocol against a server that behaves, and against one that does not."""

import json
import time
from pathlib import Path

import pytest

from data_tools.captioning.backend_settings import ServerSettings
from data_tools.captioning.chat import Answer, AnswerError, Message, ModelUnavailableError, Question
from data_tools.captioning.server import MAX_REPLY, ServerChat
from tests.data_tools.captioning.talking_server import TalkingServer, completion

QUESTION = Question(messages=(Message("user", "The picture shows: A fox."),), field="text", max_tokens=50, seed=3)
ANSWER = Answer('{"text": "On day 1 it so happened: A fox."}', 100, 10)


def chat(server: TalkingServer, tmp_path: Path, **settings: object) -> ServerChat:
    given = {"url": server.url, "model": "tiny", "pause": 0.001, "timeout": 0.5, "retries": 3} | settings
    return ServerChat(ServerSettings(**given), tmp_path)


def test_a_question_is_put_in_the_protocol(
    server: TalkingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "secret")
    asked = chat(server, tmp_path, key_variable="OTHER_KEY", body='{"top_p": null, "max_completion_tokens": 9}')
    assert asked.answer(QUESTION) == ANSWER
    (request,) = server.requests
    assert request["model"] == "tiny" and request["seed"] == 3 and request["max_completion_tokens"] == 9
    assert "top_p" not in request
    assert request["response_format"]["json_schema"]["schema"] == QUESTION.schema
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in asked.identity + repr(asked.settings)


@pytest.mark.parametrize(
    "fault",
    [
        (429, '{"error": {"message": "slow down"}}', ("Retry-After", "0.01")),
        (500, "oops"),
        (503, "", ("Retry-After", "tomorrow")),
        b"",
        b"<html>",
        b'{"choices": []}',
        b'{"error": null}',
        b"[" * 100_000,
        b" " * (MAX_REPLY + 1),
        b"\xff\xfe",
        completion(None),
        completion(["a list"]),
        "disconnect",
        "slow",
        "trickle",
    ],
    ids=lambda fault: str(fault)[:30],
)
def test_faults_that_pass_are_tried_again(fault: object, server: TalkingServer, tmp_path: Path) -> None:
    server.faults = [fault, fault]
    assert chat(server, tmp_path).answer(QUESTION) == ANSWER
    assert len(server.requests) == 3


def test_a_server_that_does_not_come_back_ends_the_run(server: TalkingServer, tmp_path: Path) -> None:
    server.faults = [(500, '{"error": {"message": "out of memory"}}')] * 4
    with pytest.raises(
        ModelUnavailableError, match="4 tries, the last one: HTTP 500: out of memory.*run the same command again"
    ):
        chat(server, tmp_path).answer(QUESTION)


def test_no_server_at_all_ends_the_run(server: TalkingServer, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="ConnectError"):
        chat(server, tmp_path, url="http://127.0.0.1:1/v1", retries=1).answer(QUESTION)


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ((401, '{"error": {"message": "bad key"}}'), "bad key; check the key in OPENAI_API_KEY"),
        ((404, '{"error": "no such model"}'), "check --url"),
        ((400, '{"error": {"message": "Unknown parameter: seed"}}'), "Unknown parameter: seed; .*--body"),
        ((302, "", ("Location", "http://127.0.0.1:1/")), "HTTP 302"),  # never followed: the key would go with it
        ((429, '{"error": {"message": "pay", "code": "insufficient_quota"}}'), "wants money"),
    ],
)
def test_faults_that_stay_end_the_run_at_once(
    fault: object, advice: str, server: TalkingServer, tmp_path: Path
) -> None:
    server.faults = [fault]
    with pytest.raises(ModelUnavailableError, match=advice):
        chat(server, tmp_path).answer(QUESTION)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        (400, '{"error": {"message": "blocked", "code": "content_filter"}}'),
        (400, '{"error": {"message": "This model\'s maximum context length is 8192 tokens"}}'),
        (413, ""),
        completion(None, finish_reason="content_filter"),
        json.dumps({"choices": [{"message": {"content": None, "refusal": "I will not."}}]}).encode(),
    ],
)
def test_a_refused_question_costs_its_page_only(fault: object, server: TalkingServer, tmp_path: Path) -> None:
    server.faults = [fault]
    with pytest.raises(AnswerError) as refused:
        chat(server, tmp_path).answer(QUESTION)
    assert refused.value.reason == "refused-by-server"
    assert len(server.requests) == 1


def test_processes_share_one_pace(server: TalkingServer, tmp_path: Path) -> None:
    one, other = (chat(server, tmp_path, per_minute=600) for _ in range(2))
    start = time.monotonic()
    for asked in (one, other, one, other):
        asked.answer(QUESTION)
    assert time.monotonic() - start >= 0.3  # the fourth turn comes three tenths of a second after the first


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"url": ""}, "--url must be like"),
        ({"url": "http://user:pass@host/v1"}, "--url must be like"),
        ({"url": "file:///etc/passwd"}, "--url must be like"),
        ({"model": ""}, "--model is missing"),
        ({"body": "{"}, "--body is not JSON"),
        ({"body": "[]"}, "--body must be a JSON object"),
    ],
)
def test_wrong_settings_are_reported(settings: dict[str, str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ServerSettings(**({"url": "http://localhost/v1", "model": "tiny"} | settings))
