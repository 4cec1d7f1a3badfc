"""The verb `serve`: a process that is stopped and killed, and goes on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seedstory.cli import app
from seedstory.pipeline import StoryPipeline
from seedstory.story import StoryFolder
from tests.seedstory.serving import OPENING, QUICK, Client

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def process(*options, **environment):
    command = [sys.executable, "-m", "seedstory.cli", "serve", "--port", "0", *map(str, options)]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | environment,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def address(running):
    line = running.stdout.readline()
    assert line.startswith("Stories: http://127.0.0.1:"), running.stderr.read()
    return line.removeprefix("Stories: ").strip()


def wait_for(client, story_id, pages):
    while client.story(story_id)["pages_done"] < pages:
        time.sleep(0.02)


@pytest.mark.slow
def test_a_server_that_is_killed_or_stopped_loses_nothing(folder, tmp_path):
    options = ("--library", tmp_path / "library", "--model", folder, "--device", "cpu")
    with process(*options) as running, Client(base_url=address(running), timeout=60) as client:
        story_id = client.make(pages=24, seed=2)
        wait_for(client, story_id, 3)
        running.send_signal(signal.SIGKILL)
        running.wait(30)
    with process(*options) as running, Client(base_url=address(running), timeout=60) as client:
        assert client.story(story_id)["pages_done"] >= 3
        assert client.wait(story_id)["pages_done"] == 24
        second = CliRunner().invoke(app, ["serve", *map(str, options)])
        assert second.exit_code == 2 and "being written by another" in second.stderr
        other = client.make(pages=100)
        wait_for(client, other, 2)
        with client.stream("GET", f"/api/stories/{story_id}/events") as events:  # an open stream holds nothing up
            next(events.iter_lines())
            running.send_signal(signal.SIGINT)
            assert running.wait(20) in (0, -signal.SIGINT, 130)
        assert running.stderr.read() == ""
    stopped = StoryFolder.open(tmp_path / "library" / other)
    assert 2 <= len(stopped) < 100 and all(page.image is not None for page in list(stopped.pages)[:-1])
    pipe = StoryPipeline.from_pretrained(folder, device="cpu")  # in the types that the command takes
    list(pipe.stream(OPENING, pages=24, seed=2, out=tmp_path / "alone", **QUICK))
    for file in (tmp_path / "alone" / "pages").iterdir():
        assert (tmp_path / "library" / story_id / "pages" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--host", "0.0.0.0"), "API keys"),
        (("--max-stories", "0"), "max_stories"),
        (("--port", "70000"), "port"),
        (("--api-keys", "no-such-file"), "no file"),
        (("--library", "/proc/nowhere"), "library"),
    ],
)
def test_bad_options_are_one_line(folder, tmp_path, options, words):
    place = () if "--library" in options else ("--library", tmp_path)
    result = CliRunner().invoke(app, ["serve", "--model", str(folder), *map(str, place), *options])
    assert result.exit_code == 2 and result.stdout == ""
    assert words in result.stderr and len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_without_the_extra_it_says_what_is_missing(tmp_path):
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('no', name='fastapi')")
    with process("--library", tmp_path / "l", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}") as one:
        _, errors = one.communicate(timeout=60)
    assert one.returncode == 2 and "pip install 'seedstory[server]'" in errors and "fastapi" in errors
