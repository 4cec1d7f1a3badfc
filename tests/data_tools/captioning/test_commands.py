"""The two commands over whole data sets: what they write, what they drop, and that they go on after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from data_tools.captioning.__main__ import app
from data_tools.drops import Tally
from seedstory.storystream import StoryRecord, read_jsonl, write_jsonl
from tests.data_tools.captioning.talking_server import TalkingServer, completion

SERVER = ("--backend", "openai", "--model", "tiny", "--retries", "1", "--timeout", "5")


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code in (0, 1, 2), result.exception
    return result


def contents(folder: Path) -> dict[str, bytes]:
    kept = (path for path in sorted(folder.rglob("*")) if ".answers" not in path.parts and path.suffix != ".tmp")
    files = (path for path in kept if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def stories(folder: Path) -> list[StoryRecord]:
    return list(read_jsonl(folder / "train.jsonl"))


def test_images_are_described_then_narrated(data: Path, tmp_path: Path, server: TalkingServer) -> None:
    before = contents(data)
    described, history = tmp_path / "described", tmp_path / "told"
    result = call("describe", data, "--out", described, "--url", server.url, *SERVER, "--hint", "The fox is Mia.")
    assert result.exit_code == 0, result.output
    assert "12 answers, 12 of them new (1200 tokens read, 120 written)" in result.output
    assert "Nothing was dropped." in result.output
    first = stories(described)[0]
    assert [page["description"].split()[2] for page in first.pages] == ["red:", "blue:", "red:", "blue:"]
    assert first.captions == stories(data)[0].captions
    asked = server.requests[0]["messages"][1]["content"][1]["text"]
    assert "The fox is Mia." in asked and "“Tale 0”" in asked and "A fox finds a lantern" in asked

    price = ("--price", 1, 2)
    result = call("narrate", described, "--out", history, "--url", server.url, *SERVER, *price, "--language", "sw")
    assert result.exit_code == 0, result.output
    first = stories(history)[0]
    assert first.captions[0] == "On day 2 it so happened: All in red: A fox finds a lantern 0 miles from the mill."
    assert first.language == "sw"
    assert first.extra["models"] == {"description": "tiny", "caption": "tiny"}
    assert contents(data) == before
    assert contents(history) | before == contents(history) | {"train.jsonl": before["train.jsonl"]}


def test_described_pages_are_left_alone_unless_wanted(data: Path, tmp_path: Path, server: TalkingServer) -> None:
    described = tmp_path / "described"
    call("describe", data, "--out", described, "--backend", "none", "--from", "caption")
    arguments = ("describe", described, "--out", tmp_path / "again", "--url", server.url, *SERVER)
    assert "0 answers" in call(*arguments).output and server.requests == []
    assert contents(tmp_path / "again").keys() == contents(described).keys()
    assert "12 answers" in call(*arguments, "--again").output
    assert "blue" in stories(tmp_path / "again")[0].pages[1]["description"]


def test_without_a_model_the_words_of_the_source_serve(data: Path, tmp_path: Path) -> None:
    record = stories(data)[0]
    alts = ["A red fox.", "", "An owl.", " "]
    truth = {"mask": record.images[0], "coreference": [[0, 3, 0]]}
    write_jsonl(data / "train.jsonl", [replace(record, alts=alts, pages=[truth, None, None, None], language="en")])
    result = call("describe", data, "--out", tmp_path / "out", "--backend", "none")
    (described,) = stories(tmp_path / "out")
    assert described.images == [record.images[0], record.images[2]]
    assert described.orders == [0, 2] and described.alts == ["A red fox.", "An owl."]
    assert described.pages == [truth | {"description": "A red fox."}, {"description": "An owl."}]
    assert [drop.page for drop in Tally.read(tmp_path / "out")] == [1, 3]
    assert "no-description" in result.output

    call("narrate", tmp_path / "out", "--out", tmp_path / "told", "--backend", "none")
    (history,) = stories(tmp_path / "told")
    assert history.captions == ["A red fox.", "An owl."]
    assert "coreference" not in history.pages[0]  # it spoke of the words that are gone
    assert len(Tally.read(tmp_path / "told")) == 2  # what was dropped before travels on


def test_a_page_that_stays_bad_is_dropped_and_the_story_goes_on(
    data: Path, tmp_path: Path, server: TalkingServer
) -> None:
    bad = completion("Here is your page!")
    refused = (400, '{"error": {"message": "blocked", "code": "content_filter"}}')
    server.faults = [None, bad, bad, bad, bad, None, refused]
    arguments = ("narrate", data, "--from", "caption", "--url", server.url, *SERVER)
    result = call(*arguments, "--out", tmp_path / "told")
    assert result.exit_code == 0, result.output
    # page 1 stayed bad, page 2 was mended once, page 3 was refused
    assert [(d.story, d.page, d.reason) for d in Tally.read(tmp_path / "told")] == [
        ("story-0", 1, "unusable-reply"),
        ("story-0", 3, "refused-by-server"),
    ]
    assert stories(tmp_path / "told")[0].orders == [0, 2]
    assert "3 replies sent back" in result.output
    again = server.requests[2]["messages"]
    assert again[-2] == {"role": "assistant", "content": "Here is your page!"}
    assert "not a JSON object" in again[-1]["content"]
    assert "Here is your page!" not in json.dumps(server.requests[5]["messages"][:-2])


def test_a_large_model_sees_all_that_was_narrated_and_what_comes(
    data: Path, tmp_path: Path, server: TalkingServer
) -> None:
    arguments = ("narrate", data, "--from", "caption", "--url", server.url, *SERVER)
    call(*arguments, "--out", tmp_path / "all")
    second, last = server.requests[1]["messages"], server.requests[3]["messages"]
    assert [turn["role"] for turn in last] == ["system", *["user", "assistant"] * 3, "user"]
    assert "mice row" in second[-1]["content"].partition("not to be told yet")[2]
    assert "umbrella" not in json.dumps(last) and "the end. The picture shows: Two mice" in last[-1]["content"]
    server.requests.clear()
    call(*arguments, "--out", tmp_path / "few", "--memory", 1, "--lookahead", 0)
    assert [turn["role"] for turn in server.requests[3]["messages"]] == ["system", "user", "assistant", "user"]
    assert "not to be told" not in json.dumps(server.requests)


def test_hostile_folders_cost_their_pages_only(data: Path, tmp_path: Path, server: TalkingServer) -> None:
    secret = tmp_path / "secret.png"
    shutil.copy(data / "images/0/0.png", secret)
    (data / "images/link.png").symlink_to(secret)
    (data / "images/empty.png").write_bytes(b"")
    (data / "images/cut.png").write_bytes((data / "images/0/0.png").read_bytes()[:60])
    (data / "images/pipe.png").unlink(missing_ok=True)
    os.mkfifo(data / "images/pipe.png")
    names = ["link", "empty", "cut", "pipe", "none", "0/1"]
    images = [f"images/{name}.png" for name in names] + ["../secret.png", str(secret), "images/x.pkl"]
    pages = [None] * 5 + [{"mask": "../secret.png"}] + [None] * 3
    odd = StoryRecord(id="odd", images=images, captions=["A fox."] * 9, orders=[*range(9)], pages=pages)
    whole = (data / "train.jsonl").read_bytes()
    write_jsonl(data / "odd.jsonl", [odd])
    (data / "train.jsonl").write_bytes(b'\xff\n{"id": "x"}\n' + whole)
    result = call("describe", data, "--out", tmp_path / "out", "--url", server.url, *SERVER)
    assert result.exit_code == 0, result.output
    drops = Tally.read(tmp_path / "out")
    assert drops.counts() == {
        "unsafe-path": 5,
        "broken-line": 2,
        "missing-picture": 2,
        "unreadable-picture": 2,
        "no-pages": 1,
    }
    assert len(stories(tmp_path / "out")) == 3 and list(read_jsonl(tmp_path / "out/odd.jsonl")) == []
    assert not any("secret" in name or "link" in name for name in contents(tmp_path / "out"))


def test_engines_write_the_same_bytes(data: Path, tmp_path: Path, server: TalkingServer) -> None:
    (data / "images/1/2.png").write_bytes(b"")
    for name, *engine in (("one", "inline"), ("two", "processes", "--workers", "2")):
        result = call("describe", data, "--out", tmp_path / name, "--url", server.url, *SERVER, "--engine", *engine)
        assert result.exit_code == 0, result.output
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_killed_run_goes_on_for_free_to_the_same_bytes(data: Path, tmp_path: Path, server: TalkingServer) -> None:
    def command(name: str) -> list[str]:
        return ["narrate", str(data), "--from", "caption", "--out", str(tmp_path / name), "--url", server.url, *SERVER]

    whole = call(*command("whole"))
    assert whole.exit_code == 0 and len(server.requests) == 12
    server.requests.clear()
    server.faults = [None] * 6 + ["hang"]
    killed = subprocess.Popen([sys.executable, "-m", "data_tools.captioning", *command("killed")])
    end = time.monotonic() + 60
    while len(server.requests) < 7 and time.monotonic() < end:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed/train.jsonl").exists()
    assert call(*command("killed")).exit_code == 0
    assert len(server.requests) == 7 + 6  # the six answers before the kill are not asked for again
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert list((tmp_path / "killed").rglob("*.tmp")) == []
    assert "12 answers, 0 of them new" in call(*command("killed")).output


def test_a_server_that_is_gone_ends_the_run_in_one_line(data: Path, tmp_path: Path, server: TalkingServer) -> None:
    server.faults = [None, *[(500, "")] * 2]
    result = call("describe", data, "--out", tmp_path / "out", "--url", server.url, *SERVER)
    assert result.exit_code == 2
    assert "story-0" in result.output and "run the same command again" in result.output
    assert "Traceback" not in result.output and not (tmp_path / "out/train.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("narrate", "nowhere", "--out", "x", "--backend", "none"), "there is no folder nowhere"),
        (("narrate", "DATA", "--out", "DATA", "--backend", "none"), "never changed in place"),
        (("describe", "DATA", "--out", "x", "--backend", "hf"), "--model is missing"),
        (("describe", "DATA", "--out", "x", "--backend", "openai", "--model", "m"), "--url must be like"),
        (("describe", "DATA", "--out", "x", "--from", "description"), "describes nothing"),
        (("describe", "DATA", "--out", "x", "--words", "9", "3"), "--words must be"),
        (("narrate", "DATA", "--out", "x", "--language", "plain English"), "--language must be a tag"),
    ],
)
def test_wrong_requests_are_reported_in_one_line(
    arguments: tuple[str, ...], fault: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    result = call(*(str(data) if argument == "DATA" else argument for argument in arguments))
    assert result.exit_code == 2
    assert fault in " ".join(result.output.replace("│", " ").split())
