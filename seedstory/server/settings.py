"""What a server is allowed to do, checked before a model is loaded."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seedstory.errors import RequestError
from seedstory.image import MAX_PIXELS
from seedstory.io import read_regular
from seedstory.settings import MAX_PAGES, check_float, check_int

KEYS_VARIABLE = "SEEDSTORY_API_KEYS"
MIN_KEY = 16  # characters
_MAX_KEY_FILE = 2**20  # bytes


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits of a server, and who may use it.

    Args:
        host: Address that it listens on. Any but this machine's own needs `api_keys`.
        api_keys: Whoever sends one of them may use the server; none: whoever reaches it.
        allowed_hosts: Names by which clients may address the server, beside those of this machine; "*" is any.
        max_stories: Stories under way at a time; further ones are refused with 429.
        max_pages: Pages of a story.
        max_body: Bytes of a request.
        max_pixels: Pixels of an uploaded image.
        max_streams: Event streams open at a time.
        max_images: Images of one request to `/v1/images/generations`.
        body_timeout: Seconds to wait for the next part of a request's body.
        page_timeout: Seconds that a change waits for the page under way.

    Raises:
        RequestError: A value is out of range, or another host is given without a key.
    """

    host: str = "127.0.0.1"
    api_keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    max_stories: int = 8
    max_pages: int = 200
    max_body: int = 32 * 2**20
    max_pixels: int = 40_000_000
    max_streams: int = 100
    max_images: int = 4
    body_timeout: float = 30.0
    page_timeout: float = 300.0

    def __post_init__(self) -> None:
        check_int("max_stories", self.max_stories, 1, 1000)
        check_int("max_pages", self.max_pages, 1, MAX_PAGES)
        check_int("max_body", self.max_body, 1024, 2**31)
        check_int("max_pixels", self.max_pixels, 64, MAX_PIXELS)
        check_int("max_streams", self.max_streams, 1, 10_000)
        check_int("max_images", self.max_images, 1, 100)
        check_float("body_timeout", self.body_timeout, 0.01, 3600)
        check_float("page_timeout", self.page_timeout, 0.01, 86_400)
        if not all(map(_is_strong, self.api_keys)):
            raise RequestError(f"an API key has at least {MIN_KEY} letters, digits or signs, and no spaces")
        if not self.is_local and not self.api_keys:
            raise RequestError(
                f"the host {self.host} can be reached by others: give API keys, or listen on 127.0.0.1 alone"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_api_keys(file: Path | None = None) -> tuple[str, ...]:
    """API keys of a file, one a line (`#` begins a comment), or else of the variable `SEEDSTORY_API_KEYS`, by commas.

    Raises:
        RequestError: The file holds no key.
        DataError: The file cannot be read.
    """
    if file is None:
        return _keys(os.environ.get(KEYS_VARIABLE, "").split(","))
    keys = _keys(read_regular(file, limit=_MAX_KEY_FILE).decode("utf-8", "replace").splitlines())
    if not keys:
        raise RequestError(f"{file} holds no API key: write one a line")
    return keys


def _is_strong(key: str) -> bool:
    return len(key) >= MIN_KEY and key.isascii() and key.isprintable() and " " not in key


def _keys(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(key for line in lines if (key := line.strip()) and not key.startswith("#"))
