"""Who may ask what: checked before a request reaches a route, by its headers and its size."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from seedstory.server.settings import ServerSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

SESSION_COOKIE = "seedstory_session"
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_OPEN = ("/healthz", "/api/session", "/favicon.ico")
# The page may load from its own server alone; books bring a policy of their own.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", _POLICY.encode()),
)


class _RefusedError(Exception):
    """A request is refused with a status and a line."""

    def __init__(self, status: int, line: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(line)
        self.status, self.line, self.headers = status, line, headers or {}


class Guard:
    """Lets requests through to an application.

    It checks the Host header (a foreign name that resolves to this machine is refused), that a browser sends changes
    from the server's own pages only, the API key, and the size of the body and the time it takes.

    Args:
        settings: Limits and keys.
        counts: Counts requests by method and status.

    Attributes:
        seconds: Until answers began, of all requests.
    """

    def __init__(self, settings: ServerSettings, counts: Counter[str]) -> None:
        self.settings, self.counts = settings, counts
        self.seconds = 0.0
        self._secret = secrets.token_bytes(32)

    async def admit(self, app: Application, scope: Message, receive: Receive, send: Send) -> None:
        """Passes a request on to an application, or refuses it."""
        started, began = False, time.monotonic()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self.counts[f"{scope['method']} {message['status']}"] += 1
                self.seconds += time.monotonic() - began
                have = {name.lower() for name, _ in message["headers"]}
                extra = [pair for pair in _HEADERS if pair[0] not in have]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            self._check(scope, headers)
            await app(scope, self._bounded(headers, receive), send_on)
        except _RefusedError as refused:
            if started:
                raise
            await _answer(scope["path"], refused, send_on)

    def session_cookie(self, key: str) -> str | None:
        """The cookie of a browser that has shown a key; None if the key is wrong."""
        if not self._is_key(key):
            return None
        return self._session(key)

    def _session(self, key: str) -> str:
        return hmac.new(self._secret, key.encode(), "sha256").hexdigest()

    def _check(self, scope: Message, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        allowed = self.settings.allowed_hosts
        local = self.settings.is_local or bool(allowed)
        if local and "*" not in allowed and name.lower() not in (*LOCAL_NAMES, *map(str.lower, allowed)):
            raise _RefusedError(421, "this server is not known by that name: use its address, or allow the name")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
            if (origin is not None and _authority(origin) != host.lower()) or site not in ("none", "same-origin"):
                raise _RefusedError(403, "requests from pages of other sites are refused")
        path = scope["path"]
        is_open = path in _OPEN or not path.startswith(("/api/", "/v1/", "/metrics", "/docs", "/openapi.json"))
        if self.settings.api_keys and not is_open and not self._is_known(headers):
            raise _RefusedError(401, "an API key is needed: send it as a Bearer token", {"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 15 or int(length) > self.settings.max_body:
            raise self._too_large()

    def _is_known(self, headers: dict[str, str]) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_key(key.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(SESSION_COOKIE)
        except CookieError:
            return False
        if cookie is None:
            return False
        return _is_among(cookie.value, map(self._session, self.settings.api_keys))

    def _is_key(self, key: str) -> bool:
        return _is_among(key, self.settings.api_keys)

    def _bounded(self, headers: dict[str, str], receive: Receive) -> Receive:
        read, whole = 0, False

        async def receive_part() -> Message:
            nonlocal read, whole
            if whole:  # what comes now is that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self.settings.body_timeout)
            except TimeoutError:
                raise _RefusedError(408, "the body of the request took too long") from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self.settings.max_body:
                raise self._too_large()
            return message

        return receive_part

    def _too_large(self) -> _RefusedError:
        return _RefusedError(413, f"the request is too large: at most {self.settings.max_body:,} bytes")


class GuardMiddleware:
    """A guard as a layer of an ASGI application.

    Args:
        app: The application.
        guard: Decides.
    """

    def __init__(self, app: Application, guard: Guard) -> None:
        self.app, self.guard = app, guard

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.guard.admit(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_among(given: str, known: Iterable[str]) -> bool:
    """Compares with each, in a time that says nothing of them."""
    data = given.encode("utf-8", "replace")
    return sum(hmac.compare_digest(data, one.encode()) for one in known) > 0


def _authority(origin: str) -> str | None:
    """Host and port of an origin, as a Host header says them."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


async def _answer(path: str, refused: _RefusedError, send: Send) -> None:
    body = json.dumps(error_body(path, refused.status, refused.line)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    pairs = [(name.encode(), value.encode()) for name, value in (headers | refused.headers).items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def error_body(path: str, status: int, line: str) -> dict[str, Any]:
    """An error as the clients of a path read it."""
    if not path.startswith("/v1/"):
        return {"detail": line}
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": line, "type": kind, "param": None, "code": None}}
