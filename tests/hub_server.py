"""A stand-in of the Hugging Face Hub: the few HTTP calls that pushing and fetching a model need, over real sockets."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_let_me_in"


class Hub:
    """Repositories by name, each a list of commits; a commit is its files by path."""

    def __init__(self) -> None:
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.url = ""

    def sha(self, repo: str, number: int) -> str:
        return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repos[repo]
        if revision == "main" and commits:
            return self.sha(repo, len(commits)), commits[-1]
        for number, files in enumerate(commits, 1):
            if revision in (self.sha(repo, number), f"v{number}"):
                return self.sha(repo, number), files
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _allowed(self, repo: str) -> bool:
        known = repo in self.hub.repos
        if known and (repo not in self.hub.private or self.headers.get("Authorization") == f"Bearer {TOKEN}"):
            return True
        self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        return False

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo, revision = "/".join(parts[2:4]), (parts[5] if len(parts) > 5 else "main")
        else:
            repo, revision = "/".join(parts[:2]), parts[3]
        if not self._allowed(repo):
            return
        found = self.hub.files(repo, revision)
        if found is None:
            self._json({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        sha, files = found
        if parts[0] == "api" and parts[4:5] == ["tree"]:
            self._json(
                [
                    {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                    for n, d in files.items()
                ]
            )
        elif parts[0] == "api":
            self._json({"id": repo, "modelId": repo, "sha": sha, "siblings": [{"rfilename": name} for name in files]})
        else:
            data = files.get("/".join(parts[4:]))
            if data is None:
                self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
                return
            self._send(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": sha})

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"POST {path}")
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "Unauthorized"}, 401)
            return
        parts = path.strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            wanted = json.loads(body)
            repo = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            if repo in self.hub.repos:
                self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"}, 409)
                return
            self.hub.repos[repo] = []
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.hub.private.add(repo)
            self._json({"url": f"{self.hub.url}/{repo}", "name": repo})
        elif parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[4:5] == ["preupload"]:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif parts[4:5] == ["commit"]:
            repo = "/".join(parts[2:4])
            commits = self.hub.repos[repo]
            files = dict(commits[-1]) if commits else {}
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commits.append(files)
            sha = self.hub.sha(repo, len(commits))
            self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}"})
        else:
            self._json({"error": f"no such call: {path}"}, 404)


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serves an empty Hub on this machine until the end of the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask_hub(hub: Hub, monkeypatch: Any) -> None:
    """Lets the Hub's library ask this one."""
    import huggingface_hub

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
