"""Input that means harm, to pictures, the command and the server: one clear line, no 5xx, nothing outside."""

import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from typer.testing import CliRunner

from seedstory.cli import app
from seedstory.commands.running import free_folder
from seedstory.errors import SeedStoryError
from seedstory.image import load_image
from seedstory.story import StoryFolder
from tests.seedstory import bad_input
from tests.seedstory.serving import OPENING, QUICK, serving
from tests.seedstory.small_disk import contents

resource = pytest.importorskip("resource", reason="measures memory as POSIX does")
pytestmark = pytest.mark.timeout(120)
BAD, ODD = bad_input.bad_pictures(), bad_input.odd_pictures()
MOST_MEMORY = 700 * 2**20  # bytes that one picture may take; the largest that is read has 80 million pixels
MOST_SECONDS = 20  # of a processor


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def client(pipe, place):
    limits = {"max_body": 2**20, "max_pixels": 100_000, "body_timeout": 1.0, "max_pages": 20, "page_timeout": 20.0}
    with serving(pipe, place / "library", **limits) as client:
        yield client


@pytest.fixture(scope="module")
def story_id(client) -> str:
    story_id = client.make(pages=2)
    client.wait(story_id)
    return story_id


def memory() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def line_of(answer, *statuses: int) -> str:
    """The one line of a refusal, which names no folder of this machine."""
    assert answer.status_code in (statuses or range(400, 500)), (answer.status_code, answer.text[:500])
    body = answer.json()
    line = body["detail"] if "detail" in body else body["error"]["message"]
    assert isinstance(line, str) and line and len(line) < 600 and "\n" not in line and "/tmp" not in line
    return line


def test_bad_pictures_are_one_line_in_little_memory():
    before, start = memory(), time.process_time()
    for name, data in BAD.items():
        with pytest.raises(SeedStoryError) as caught:
            load_image(data, "it")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300, name
    for name, data in ODD.items():
        assert load_image(data, "it").mode == "RGB", name
    assert memory() - before < MOST_MEMORY and time.process_time() - start < MOST_SECONDS


def test_no_damage_to_a_picture_is_a_bug():
    import random

    choice, kinds = random.Random(0), [data for data in (*ODD.values(), *BAD.values()) if 20 < len(data) < 4000]
    for _ in range(1500):
        data = bytearray(choice.choice(kinds))
        for _ in range(choice.randint(1, 6)):
            data[choice.randrange(len(data))] = choice.choice((0, 1, 127, 128, 255, choice.randrange(256)))
        try:
            load_image(bytes(data), "it")
        except SeedStoryError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", [*BAD, *ODD])
def test_uploaded_pictures(client, place, name):
    data = (BAD | ODD)[name]
    form = {"story": json.dumps({"pages": 1, **QUICK})}
    answer = client.post("/api/stories", files={"image": ("x.png", data[: 2**20 - 4096], "image/png")}, data=form)
    if name in BAD:
        line_of(answer, 413, 422)
        return
    assert answer.status_code == 201, answer.text
    story = client.wait(answer.json()["id"])
    stored = client.get(story["pages"][0]["image"])
    assert stored.headers["content-type"] == "image/png" and stored.headers["x-content-type-options"] == "nosniff"
    assert b"__ran" not in stored.content and b"PK\x03\x04" not in stored.content
    assert load_image(stored.content).size[0] == client.get("/api/info").json()["image_size"]


def test_pictures_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, (name, data) in enumerate(BAD.items()):
        (tmp_path / "x.png").write_bytes(data)
        result = CliRunner().invoke(app, ["generate", "--image", "x.png", "--out", f"out{number}"])
        assert result.exit_code == 2 and re.fullmatch(r"error: [^\n]{1,300}\n", result.stderr), (name, result.stderr)
    assert os.listdir(tmp_path) == ["x.png"]


@pytest.mark.parametrize("name", bad_input.bad_json())
def test_bodies(client, story_id, name):
    data = bad_input.bad_json()[name]
    before = client.story(story_id)
    for route in ("redo", "edit", "insert", "move", "describe", "state"):
        answer = client.post(
            f"/api/stories/{story_id}/pages/2/{route}", content=data, headers={"Content-Type": "application/json"}
        )
        line_of(answer, 400, 422)
    for path in ("", f"/{story_id}/continue", f"/{story_id}/branch", f"/{story_id}/undo"):
        if path.endswith(("undo", "branch")) and name in ("nothing",):
            continue
        answer = client.post(f"/api/stories{path}", content=data, headers={"Content-Type": "application/json"})
        line_of(answer, 400, 409, 422)
    for path in ("chat/completions", "images/generations"):
        line_of(client.post(f"/v1/{path}", content=data, headers={"Content-Type": "application/json"}), 400, 422)
    assert client.story(story_id) == before


@pytest.mark.parametrize("name", bad_input.bad_forms())
def test_forms(client, place, name):
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    line_of(client.post("/api/stories", content=bad_input.bad_forms()[name], headers=headers), 400, 413, 422)
    assert not [file for file in place.rglob("*") if "escaped" in file.name]


@pytest.mark.parametrize("name", bad_input.raw_requests("x"))
def test_requests_as_bytes(client, name):
    url = urlsplit(str(client.base_url))
    answer = b""
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        try:
            connection.sendall(bad_input.raw_requests(url.netloc)[name])
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except OSError:
            pass
    statuses = [int(status) for status in re.findall(rb"(?:^|\r\n\r\n[^\r\n]*)HTTP/1\.1 (\d+)", answer)]
    assert all(200 <= status < 500 for status in statuses), answer[:300]
    if not name.startswith(("bytes in a header", "line break", "two requests", "null", "websocket", "length b'0x")):
        assert 200 not in statuses and 201 not in statuses, answer[:300]
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("word", bad_input.NAMES, ids=range(len(bad_input.NAMES)))
def test_names_as_ids_titles_and_words(client, place, story_id, word):
    outside = {path for path in place.parent.rglob("*") if place / "library" not in path.parents}
    for path in (f"/api/stories/{quote(word, safe='')}", f"/api/stories/{story_id}/export/{quote(word, safe='')}"):
        answer = client.get(path)
        assert answer.status_code in (200, 404, 405, 422)  # "." and ".." are other routes
    made = client.post("/api/stories", json={"text": OPENING, "pages": 1, "title": word, **QUICK})
    if made.status_code != 201:
        line_of(made, 422)
    else:
        assert re.fullmatch(r"[a-z0-9]{12}", made.json()["id"])
        client.wait(made.json()["id"])
        book = client.get(f"/api/stories/{made.json()['id']}/export/html")
        assert book.status_code == 200 and f'"{made.json()["id"]}.html"' in book.headers["content-disposition"]
        client.delete(f"/api/stories/{made.json()['id']}").raise_for_status()
    for body in ({"cast": {word: "fox"}}, {"language": word}, {"policy": word}, {"stop": word}, {word: 1}):
        answer = client.post("/api/stories", json={"text": OPENING, "pages": 1, **QUICK} | body)
        if answer.status_code == 201:
            client.wait(answer.json()["id"])
            client.delete(f"/api/stories/{answer.json()['id']}").raise_for_status()
        else:
            line_of(answer, 422)
    assert {path for path in place.parent.rglob("*") if place / "library" not in path.parents} == outside


@pytest.mark.parametrize("word", [*bad_input.NAMES, *bad_input.WORDS])
def test_a_title_names_a_folder_of_its_own(word):
    folder = free_folder(Path("stories"), word)
    assert folder.parent == Path("stories") and re.fullmatch(r"[a-z0-9][a-z0-9-]{0,60}", folder.name)
    assert folder.name.partition("-")[0] not in ("con", "nul", "aux", "prn", "com1", "lpt9") or "-" in folder.name


def test_names_of_the_command(tmp_path, monkeypatch, story_id, place):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    StoryFolder.open(place / "library" / story_id)
    before = contents(tmp_path)
    for word in bad_input.NAMES:
        if word in (".", "..") or "\0" in word:
            continue
        for arguments in (
            ["export", str(place / "library" / story_id), "--format", "vistorybench", "--story-id", word],
            ["visualize", word],
        ):
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 2 and len(result.stderr) < 6000 and "Traceback" not in result.stderr, arguments
            assert "bug" not in result.stderr, result.stderr
    assert contents(tmp_path) == before


SCRIPTS = {
    "million.txt": "word\n" * 1_000_000,
    "million.md": "word\n" * 1_000_000,
    "paragraphs.md": "word\n\n" * 100_000,
    "million.jsonl": '{"caption": "a"}\n' * 1_000_000,
    "long.txt": "x" * 10_000_000,
    "brackets.md": "[" * 100_000,
    "images.md": "![a](" * 100_000,
    "stars.md": "*a " * 100_000,
    "many stars.md": ("*a " * 5000 + "\n\n") * 20,
    "many links.md": ("[a](" * 3900 + "\n\n") * 20,
    "many words.md": ('_a_a **a **a* __a __a_ [a](b "[a](b "' * 380 + "\n\n") * 20,
    "lines.md": "_a " * 100_000,
    "heading.md": "# " + " #" * 100_000 + "x",
    "rule.md": "* " * 100_000 + "x",
    "deep.jsonl": "[" * 100_000,
    "null.txt": "\0\1\2\u202e\u2028",
    "key.jsonl": '{"caption": "a", "caption": 3}',
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_take_no_time(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(SCRIPTS[name], "utf-8")
    start = time.process_time()
    result = CliRunner().invoke(app, ["visualize", name, "--model", "nowhere"])
    assert result.exit_code == 2 and re.fullmatch(r"error: [^\n]{1,300}\n", result.stderr), result.stderr[:500]
    assert time.process_time() - start < MOST_SECONDS and os.listdir(tmp_path) == [name]
