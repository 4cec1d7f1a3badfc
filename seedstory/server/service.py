"""What the routes share: the parts of a running server, and errors as answers."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from seedstory.error_reporting import one_line
from seedstory.errors import RequestError, SeedStoryError, StoryFolderError
from seedstory.server.bodies import Body, describe
from seedstory.server.guard import error_body
from seedstory.server.job import RETRY_AFTER, BusyError, ServerFullError
from seedstory.server.jobs import JobRunner
from seedstory.server.library import Library, NotFoundError
from seedstory.server.settings import ServerSettings

if TYPE_CHECKING:
    from seedstory.pipeline import StoryPipeline

logger = logging.getLogger(__name__)

_MAX_LINE = 500  # characters of an error
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class ErrorView(Body):
    """What went wrong, in one line."""

    detail: str


@dataclass
class Service:
    """The parts of a running server.

    Attributes:
        pipeline: Used by the job runner's thread.
        library: The stories.
        settings: Limits.
        jobs: Makes stories.
        counts: Requests by method and status.
        streams: Event streams that are open.
    """

    pipeline: StoryPipeline
    library: Library
    settings: ServerSettings
    jobs: JobRunner
    counts: Counter[str] = field(default_factory=Counter)
    streams: int = 0

    def check_pages(self, pages: int | None) -> None:
        """Checks that a story of so many pages may be made here.

        Raises:
            RequestError: It may not.
        """
        if isinstance(pages, int) and pages > self.settings.max_pages:
            raise RequestError(f"this server makes stories of at most {self.settings.max_pages:,} pages, not {pages:,}")


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the OpenAPI page."""
    reasons = {
        404: "There is no such story or page.",
        409: "The story is being changed by somebody else, or is not in a state that allows it.",
        413: "The request is too large.",
        422: "The request is not well formed, or a value is out of range.",
        429: "As many stories are under way as the server allows.",
        507: "The library's disk is full or read-only.",
    }
    always = {400: "The body cannot be read.", 401: "An API key is needed.", 403: "The request came from another site."}
    said = always | {status: reasons[status] for status in (*statuses, 413, 507)}
    return {status: {"model": ErrorView, "description": text} for status, text in said.items()}


def status_of(error: Exception) -> int:
    """The status of an error of the library or of the disk."""
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, ServerFullError):
        return 429
    if isinstance(error, BusyError | StoryFolderError):
        return 409
    if isinstance(error, OSError):
        return 507 if error.errno in _FULL else 500
    return 422 if isinstance(error, SeedStoryError) else 500


def line_of(error: Exception, library: Path) -> str:
    """An error in one line that names no path of this machine."""
    if isinstance(error, OSError):
        return f"cannot write to the library: {error.strerror or 'the disk has failed'}"
    words = one_line(str(error)).replace(f"{library}/", "").replace(str(library), "the library")
    return words[:_MAX_LINE].encode("utf-8", "replace").decode()


def add_error_handlers(app: FastAPI, service: Callable[[], Service]) -> None:
    """Has every error answered in one line of JSON."""

    def answer(request: Request, status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse(error_body(request.url.path, status, line), status, headers)

    def from_library(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error.__cause__, OSError):  # a place of the server's that it cannot write to
            error = error.__cause__
        status = status_of(error)
        if status >= 500:
            logger.error("a request failed", exc_info=error)
        if isinstance(error, OSError) and status == 500:
            return answer(request, status, "the server has failed: see its log")
        headers = {"Retry-After": str(RETRY_AFTER)} if status == 429 else None
        if request.url.path.startswith("/v1/") and status == 422:
            status = 400  # what OpenAI's clients know
        return answer(request, status, line_of(error, service().library.path), headers)

    def malformed(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return answer(request, 422, describe(error.errors()[0]))

    def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return answer(request, error.status_code, str(error.detail), dict(error.headers or {}))

    app.add_exception_handler(SeedStoryError, from_library)
    app.add_exception_handler(OSError, from_library)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http_error)
