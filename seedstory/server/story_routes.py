"""Routes of whole stories: the library, one story, its images, its events, its exports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from seedstory.errors import DataError, RequestError, SeedStoryError, StoryFolderError
from seedstory.export import EXPORTS
from seedstory.image import load_image, read_image_header
from seedstory.io import inside
from seedstory.server.bodies import StoryBody, TitleBody, parse_body
from seedstory.server.job import RETRY_AFTER, Job
from seedstory.server.library import STORY_ID, NotFoundError
from seedstory.server.service import Service, errors_of
from seedstory.server.views import image_version, story_view, summary_view
from seedstory.story import StoryFolder
from seedstory.story_editor import StoryEditor

StoryId = Annotated[str, Path(pattern=f"^{STORY_ID}$")]
PageId = Annotated[int, Path(ge=1, le=10**9)]
_HEARTBEAT = 15.0  # seconds
_PAUSE = 0.05  # seconds between two looks at the log
_PREVIEWS = (
    "With some `step` events send `preview`: a small draft (JPEG as a data URL) of the image that is being drawn. "
    "Drafts are stored nowhere; whoever watches late gets the newest one."
)
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "It has not changed."}}
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": StoryBody.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "story": {"type": "string", "description": "The JSON of the other form"},
                        "image": {"type": "string", "format": "binary"},
                    },
                    "required": ["image"],
                }
            },
        },
    }
}


def check_upload(data: bytes, name: str, max_pixels: int) -> Any:
    """An uploaded image, judged by its header first.

    Raises:
        DataError: It is none, or too large.
    """
    width, height = read_image_header(data, name)[1]
    if width * height > max_pixels:
        raise DataError(f"{name} is too large: {width} x {height} px, at most {max_pixels:,} pixels are taken here")
    return load_image(data, name)


def view_of(service: Service, story_id: str) -> dict[str, Any]:
    """A story as clients read it."""
    job = service.jobs.job(story_id)
    return story_view(story_id, service.library.open(story_id), job.state, job.record.error)


def make_story_router(service: Service) -> APIRouter:
    """The routes of whole stories."""
    router = APIRouter(prefix="/api", tags=["stories"])

    @router.get("/info", responses=errors_of())
    def info() -> dict[str, Any]:
        """What this server makes, and its limits."""
        from seedstory import __version__

        pipeline, settings = service.pipeline, service.settings
        return {
            "version": __version__,
            "model": pipeline.identity.name,
            "fingerprint": pipeline.identity.fingerprint,
            "image_size": pipeline.image_size,
            "story_state": pipeline.story_model.config.story_state,
            "max_pages": settings.max_pages,
            "max_stories": settings.max_stories,
            "max_body": settings.max_body,
            "max_pixels": settings.max_pixels,
            "needs_key": bool(settings.api_keys),
            "exports": list(EXPORTS),
        }

    @router.get("/stories", responses=errors_of(422))
    def list_stories(
        limit: Annotated[int, Query(ge=1, le=500)] = 100, offset: Annotated[int, Query(ge=0, le=10**6)] = 0
    ) -> dict[str, Any]:
        """The library, the story changed last first. Stories that cannot be read are left out."""
        ids = service.library.ids()
        stories = []
        for story_id in ids[offset : offset + limit]:
            try:
                job, folder = service.jobs.job(story_id), service.library.open(story_id)
            except SeedStoryError:
                continue
            if not job.record.temporary:
                stories.append(summary_view(story_id, folder, job.state, job.record.error))
        return {"total": len(ids), "stories": stories}

    @router.post("/stories", status_code=201, openapi_extra=_UPLOAD, responses=errors_of(422, 429))
    async def create_story(request: Request) -> JSONResponse:
        """Begins a story; it is made in the background. With an image, send a form with `story` (JSON) and `image`."""
        body, image = await _read_story(request, service.settings.max_pixels)
        service.check_pages(body.pages)
        service.check_pages(len(body.captions or ()) + 1)
        story_id = await run_in_threadpool(service.jobs.create, image=image, **body.model_dump())
        view = await run_in_threadpool(view_of, service, story_id)
        return JSONResponse(view, 201, {"Location": f"/api/stories/{story_id}"})

    @router.get("/stories/{story_id}", responses=errors_of(404, 409, 422))
    def read_story(story_id: StoryId) -> dict[str, Any]:
        """A story with its pages."""
        return view_of(service, story_id)

    @router.patch("/stories/{story_id}", responses=errors_of(404, 409, 422))
    def rename_story(story_id: StoryId, body: TitleBody) -> dict[str, Any]:
        """Gives a story another title."""
        service.jobs.change(story_id, lambda folder: StoryEditor(folder).rename(body.title), later=True)
        return view_of(service, story_id)

    @router.delete("/stories/{story_id}", status_code=204, responses=errors_of(404, 409, 422))
    def remove_story(story_id: StoryId) -> Response:
        """Removes a story for good."""
        service.jobs.remove(story_id)
        return Response(status_code=204)

    @router.post("/stories/{story_id}/cancel", responses=errors_of(404, 409, 422))
    def cancel_story(story_id: StoryId) -> dict[str, Any]:
        """Has a story stop; the page under way is still made."""
        service.jobs.cancel(story_id)
        return view_of(service, story_id)

    @router.post("/stories/{story_id}/resume", responses=errors_of(404, 409, 422, 429))
    def resume_story(story_id: StoryId) -> dict[str, Any]:
        """Has a story go on that was stopped or has failed."""
        service.jobs.resume(story_id)
        return view_of(service, story_id)

    @router.get(
        "/stories/{story_id}/pages/{page_id}/image",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **_UNCHANGED, **errors_of(404, 409, 422)},
    )
    def read_image(
        story_id: StoryId,
        page_id: PageId,
        v: Annotated[
            str | None, Query(description="As the page's address has it; the answer may then be kept.")
        ] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """The image of a page."""
        folder = service.library.open(story_id)
        name = folder.entries[index_of(folder, page_id)].image_file
        file = inside(folder.path, name) if name else None
        version = image_version(file) if file is not None else None
        if file is None or version is None:
            raise NotFoundError("the page has no image yet")
        keep = "private, max-age=31536000, immutable" if v == version else "private, no-cache"
        headers = {"ETag": f'"{version}"', "Cache-Control": keep}
        if if_none_match and version in if_none_match:
            return Response(status_code=304, headers=headers)
        return FileResponse(file, media_type="image/png", headers=headers)

    @router.get(
        "/stories/{story_id}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}} | errors_of(404, 409, 422, 429),
    )
    async def watch_story(
        story_id: StoryId,
        previews: Annotated[bool, Query(description=_PREVIEWS)] = False,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """What happens to a story, as server-sent events. With `Last-Event-ID` it goes on after that event."""
        job = await run_in_threadpool(service.jobs.job, story_id)
        if service.streams >= service.settings.max_streams:
            raise HTTPException(429, "too many event streams are open", {"Retry-After": str(RETRY_AFTER)})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        events = _events(service, job, job.log.position(last_event_id), previews)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    return router


def index_of(folder: StoryFolder, page_id: int) -> int:
    """Where a page stands, from 0.

    Raises:
        NotFoundError: There is none of this id.
    """
    try:
        return folder.index_of(page_id)
    except StoryFolderError:
        raise NotFoundError("there is no such page") from None


async def _read_story(request: Request, max_pixels: int) -> tuple[StoryBody, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return parse_body(StoryBody, await request.body()), None
    if kind != "multipart/form-data":
        raise HTTPException(415, "send application/json, or multipart/form-data with an image")
    async with request.form(max_files=1, max_fields=4, max_part_size=4 * 2**20) as form:
        unknown = set(form) - {"story", "image"}
        story, upload = form.get("story", "{}"), form.get("image")
        if unknown or not isinstance(story, str) or not isinstance(upload, UploadFile):
            raise RequestError("the form has a file `image`, and may have a text `story` with JSON")
        data = await upload.read()
        image = await run_in_threadpool(check_upload, data, "the image", max_pixels)
        return parse_body(StoryBody, story, "story"), image


async def _events(service: Service, job: Job, position: int | None, previews: bool) -> AsyncIterator[bytes]:
    loop, woken, shown = asyncio.get_running_loop(), asyncio.Event(), -1

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(woken.set)

    end = job.log.watch(wake, previews=previews)
    service.streams += 1
    try:
        sent = time.monotonic()
        yield b"retry: 2000\n\n"
        while not service.jobs.is_closing:
            woken.clear()
            events = None if position is None else job.log.after(position)
            if events is None:  # a new watcher, or one that has missed too much
                position = job.log.last
                try:
                    view = await run_in_threadpool(view_of, service, job.story_id)
                except SeedStoryError:
                    return
                yield job.log.sse(position, "story", view)
                continue
            for event in events:
                position, values = event.number, event.values
                preview = job.log.preview_of(event, shown) if previews else None
                if preview is not None:
                    values, shown = values | {"preview": preview}, position
                yield job.log.sse(position, event.kind, values)
                if event.kind == "removed":
                    return
            if events:
                sent = time.monotonic()
                await asyncio.sleep(_PAUSE)  # words that come meanwhile come as one event
                continue
            try:
                await asyncio.wait_for(woken.wait(), 1.0)
            except TimeoutError:
                if time.monotonic() - sent > _HEARTBEAT:
                    sent = time.monotonic()
                    yield b": \n\n"
    finally:
        service.streams -= 1
        end()
