"""What a server refuses: strangers, floods, bombs, tricks with names; each in one line, and never with a 5xx."""

import io
import json
import re
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from seedstory.errors import RequestError
from seedstory.server import ServerSettings
from seedstory.server.settings import read_api_keys
from tests.seedstory.serving import OPENING, QUICK, serving

ROOT = Path(__file__).parents[2]
KEY, OTHER = "a-long-and-secret-key", "another-long-secret-key"


@pytest.fixture(scope="module")
def client(pipe, tmp_path_factory):
    limits = {"max_stories": 2, "max_pages": 40, "max_body": 100_000, "max_pixels": 10_000, "body_timeout": 0.5}
    with serving(pipe, tmp_path_factory.mktemp("library"), **limits) as client:
        yield client


def detail(answer, status):
    assert answer.status_code == status, answer.text
    line = answer.json()["detail"]
    assert line and "\n" not in line and len(line) < 600
    return line


def png(size):
    data = io.BytesIO()
    Image.new("RGB", size).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"pages": 3}, "needs an opening"),
        ({"text": "a", "pages": 0}, "pages"),
        ({"text": "a", "pages": "3"}, "pages"),
        ({"text": "a", "pages": 41}, "at most 40"),
        ({"text": "a", "seed": -1}, "seed"),
        ({"text": "a", "temperature": 99}, "temperature"),
        ({"text": "a", "policy": "../x"}, "policy"),
        ({"text": "a" * 5000}, "characters"),
        ({"text": "a", "captions": ["b"]}, "captions"),
        ({"text": "a", "out": "/etc"}, "out"),
        ({"text": "a", "image": "/etc/passwd"}, "image"),
        ({"text": ["a"]}, "text"),
        ({"text": "a", "language": "<script>"}, "language"),
        ({"text": "a", "cast": {"Mia": ""}}, "cast|Mia|look"),
        ([1, 2], "body"),
    ],
)
def test_bad_stories_are_one_line(client, body, words):
    line = detail(client.post("/api/stories", json=body), 422)
    assert any(word in line for word in words.split("|")), line


@pytest.mark.parametrize(
    "data", [b"{", b"\xff\xfe", b'{"text": "\\ud800"}', b"[" * 50_000, b'{"text": NaN}', b"1" * 9000]
)
def test_bad_json_is_one_line(client, data):
    detail(client.post("/api/stories", content=data, headers={"Content-Type": "application/json"}), 422)


def test_bad_forms_are_one_line(client):
    story = {"story": json.dumps({"pages": 2})}
    assert "pixels" in detail(client.post("/api/stories", files={"image": png((200, 100))}, data=story), 422)
    assert "picture" in detail(client.post("/api/stories", files={"image": b"<svg onload=alert(1)>"}, data=story), 422)
    detail(client.post("/api/stories", files={"image": b""}, data=story), 422)
    detail(client.post("/api/stories", files={"other": png((20, 20))}, data=story), 422)
    detail(client.post("/api/stories", files={"image": png((20, 20))}, data={"story": "{"}), 422)
    detail(client.post("/api/stories", content=b"x", headers={"Content-Type": "multipart/form-data"}), 400)
    detail(client.post("/api/stories", content=b"text=a", headers={"Content-Type": "text/plain"}), 415)


@pytest.mark.parametrize(
    "name", ["%2e%2e", "..%2f..%2fetc", "%2e%2e%2fguard.py", "%5c..%5cx", "A", "a.b", "-a", "a" * 65, "%00", "~root"]
)
def test_no_path_leads_out_of_the_library(client, name):
    for path in (name, f"{name}/events", f"{name}/export/html", f"{name}/pages/1/image"):
        assert client.get(f"/api/stories/{path}").status_code in (404, 405, 422)
    assert client.get(f"/static/x/{name}").status_code in (404, 405)


def test_links_in_the_library_are_not_followed(client, pipe, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "story.json").write_text("{}")
    library = tmp_path / "library"
    library.mkdir()
    (library / "link").symlink_to(tmp_path / "outside")
    with serving(pipe, library) as other:
        assert other.get("/api/stories/link").status_code == 404
        assert other.delete("/api/stories/link").status_code == 404
        assert other.get("/api/stories").json()["stories"] == []
    assert (tmp_path / "outside" / "story.json").exists()


def test_a_full_server_says_when_to_come_again(client):
    ids = [client.make(pages=40), client.make(pages=40)]
    refused = client.post("/api/stories", json={"text": OPENING, **QUICK})
    assert "2 at a time" in detail(refused, 429) and int(refused.headers["retry-after"]) > 0
    chat = {"model": "seedstory", "messages": [{"role": "user", "content": "a"}]}
    assert client.post("/v1/chat/completions", json=chat).json()["error"]["type"] == "rate_limit_error"
    for story_id in ids:
        client.post(f"/api/stories/{story_id}/cancel").raise_for_status()
        client.delete(f"/api/stories/{story_id}").raise_for_status()
    assert client.wait(client.make())["state"] == "done"
    metrics = client.get("/metrics").text
    assert 'seedstory_requests_total{method="POST",status="429"}' in metrics
    assert 'seedstory_stories{state="done"}' in metrics and "seedstory_refused_total 2" in metrics


def test_bodies_are_bounded_in_size_and_time(client):
    assert "too large" in detail(client.post("/api/stories", json={"text": "a" * 200_000}), 413)
    chunks = (b"a" * 10_000 for _ in range(50))
    assert client.post("/api/stories", content=chunks, headers={"Content-Type": "application/json"}).status_code == 413
    url = urlsplit(str(client.base_url))
    with socket.create_connection((url.hostname, url.port)) as slow:
        head = f"POST /api/stories HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
        slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        begun = time.monotonic()
        assert b" 408 " in slow.recv(4096).splitlines()[0]
        assert time.monotonic() - begun < 5


def test_other_sites_and_other_names_are_refused(client):
    assert client.get("/api/stories", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/api/stories", headers={"Host": "127.0.0.1.evil.example"}).status_code == 421
    assert client.get("/api/stories", headers={"Host": "localhost:1"}).status_code == 200
    evil = {"Origin": "http://evil.example"}
    detail(client.post("/api/stories", json={"text": "a"}, headers=evil), 403)
    detail(client.post("/api/stories", json={"text": "a"}, headers={"Origin": "null"}), 403)
    detail(client.post("/api/stories", json={"text": "a"}, headers={"Sec-Fetch-Site": "cross-site"}), 403)
    answer = client.get("/api/stories", headers=evil)
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"
    own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/stories", json={}, headers=own).status_code == 422


def test_keys(pipe, tmp_path):
    with serving(pipe, tmp_path, api_keys=(KEY, OTHER)) as client:
        for path in ("/api/stories", "/api/info", "/v1/models", "/metrics", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {OTHER}"}).status_code == 200
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/").status_code == 200
        assert "error" in client.get("/v1/models").json()
        assert client.post("/api/session", json={"key": "wrong"}).status_code == 401
        opened = client.post("/api/session", json={"key": KEY})
        assert opened.status_code == 204
        assert "HttpOnly" in opened.headers["set-cookie"] and "SameSite=strict" in opened.headers["set-cookie"]
        assert client.get("/api/stories").status_code == 200  # with the cookie
        assert client.get("/api/stories", headers={"Cookie": "seedstory_session=x"}).status_code == 401


def test_another_host_needs_keys(tmp_path, monkeypatch):
    with pytest.raises(RequestError, match="API keys"):
        ServerSettings(host="0.0.0.0")
    assert not ServerSettings(host="0.0.0.0", api_keys=(KEY,)).is_local
    assert ServerSettings(host="::1").is_local and ServerSettings(host="localhost").is_local
    with pytest.raises(RequestError, match="at least 16"):
        ServerSettings(api_keys=("short",))
    (tmp_path / "keys").write_text(f"# ours\n{KEY}\n\n{OTHER}\n")
    assert read_api_keys(tmp_path / "keys") == (KEY, OTHER)
    (tmp_path / "empty").write_text("# none\n")
    with pytest.raises(RequestError, match="no API key"):
        read_api_keys(tmp_path / "empty")
    monkeypatch.setenv("SEEDSTORY_API_KEYS", f"{KEY}, {OTHER}")
    assert read_api_keys() == (KEY, OTHER)


def test_pages_load_nothing_from_other_hosts(client):
    docs = client.get("/docs")
    assert docs.status_code == 200 and "http://" not in docs.text and "https://" not in docs.text
    assert "/api/stories/{story_id}/events" in docs.text
    assert "default-src 'self'" in docs.headers["content-security-policy"]


def test_markup_in_words_stays_words(client):
    text = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    story_id = client.make(text=text, title=text, pages=1)
    client.wait(story_id)
    book = client.get(f"/api/stories/{story_id}/export/html").text
    assert "<script>alert" not in book and "<img src=x" not in book


def test_keys_of_the_examples_are_long_enough():
    pages = [*(ROOT / "docs/guides").glob("*.md"), ROOT / "README.md", ROOT / "seedstory/commands/serving.py"]
    keys = {key for page in pages for key in re.findall(r"SEEDSTORY_API_KEYS=([\w-]+)", page.read_text("utf-8"))}
    assert keys and ServerSettings(host="0.0.0.0", api_keys=tuple(keys)).api_keys
