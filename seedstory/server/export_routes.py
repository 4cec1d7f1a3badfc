"""Books of a story, written when they are asked for."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from seedstory.export import EXPORTS, write_book
from seedstory.server.library import NotFoundError
from seedstory.server.service import Service, errors_of
from seedstory.server.story_routes import StoryId
from seedstory.story import StoryFolder

# A book runs its own script at most, in an origin of its own.
_BOOK_POLICY = "sandbox allow-scripts; frame-ancestors 'self'"
_PATIENCE = 20.0  # seconds to wait for the book before
_TYPES = {
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
    "epub": "application/epub+zip",
    "cbz": "application/vnd.comicbook+zip",
    "mp4": "video/mp4",
}


def make_export_router(service: Service) -> APIRouter:
    """The route of books."""
    router = APIRouter(prefix="/api/stories/{story_id}", tags=["stories"])
    one_at_a_time = threading.Lock()  # a book takes a core, and memory

    @router.get(
        "/export/{form}",
        response_class=FileResponse,
        responses={200: {"content": {"application/octet-stream": {}}}} | errors_of(404, 409, 422, 429),
    )
    def export(
        story_id: StoryId,
        form: str,
        inline: Annotated[bool, Query(description="Show it in the browser instead of saving it.")] = False,
    ) -> FileResponse:
        """A book of a story as it is now: html, and what else `info` lists."""
        if form not in EXPORTS:
            raise NotFoundError(f"there is no such format: choose one of {', '.join(EXPORTS)}")
        folder = service.library.open(story_id)
        place = Path(tempfile.mkdtemp(prefix="seedstory-export-"))
        try:
            if not one_at_a_time.acquire(timeout=_PATIENCE):
                raise HTTPException(429, "another book is being made: try again later", {"Retry-After": "30"})
            try:
                file = _write(folder, place, form)
            finally:
                one_at_a_time.release()
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        shown = inline and form in ("html", "pdf")
        return FileResponse(
            file,
            media_type=_TYPES.get(form, "application/zip"),
            filename=f"{story_id}{file.suffix}",
            content_disposition_type="inline" if shown else "attachment",
            headers={"Cache-Control": "no-store", "Content-Security-Policy": _BOOK_POLICY},
            background=BackgroundTask(shutil.rmtree, place, ignore_errors=True),
        )

    return router


def _write(folder: StoryFolder, place: Path, form: str) -> Path:
    """Writes a book into a folder and returns its file; a book that is a folder comes as an archive.

    Raises:
        RequestError: The libraries of the format are missing.
        StoryFolderError: The story has no page.
    """
    target = place / EXPORTS[form].file_name
    write_book(folder, target, form)
    return Path(shutil.make_archive(str(place / "book"), "zip", target)) if EXPORTS[form].is_folder else target
