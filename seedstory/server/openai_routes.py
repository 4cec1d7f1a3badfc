"""The interface of OpenAI's clients: models, chat completions with text and images, images.

A chat completion is a story that the user's last message opens. Its `content` is a list of parts, `text` and
`image_url` for each page, the form in which clients send images, too. A stream has words as text and each image as a
list with one part. The story goes away with the answer, unless `store` is true: then it stays in the library.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from seedstory.errors import RequestError, SeedStoryError
from seedstory.io import read_regular
from seedstory.server.bodies import parse_body
from seedstory.server.events import Event
from seedstory.server.job import Job
from seedstory.server.openai_bodies import ChatBody, ImagesBody, chat_settings, opening_of, refuse
from seedstory.server.service import Service
from seedstory.server.story_routes import check_upload
from seedstory.story_record import MAX_FEATURES
from seedstory.text import sentence_ends


def make_openai_router(service: Service) -> APIRouter:
    """The routes under /v1."""
    router = APIRouter(prefix="/v1", tags=["openai"])
    name = service.pipeline.identity.name or "seedstory"
    created = int(time.time())

    def model() -> dict[str, Any]:
        return {"id": name, "object": "model", "created": created, "owned_by": "seedstory"}

    def check_model(asked: str | None) -> None:
        if asked not in (None, name, "seedstory"):
            raise HTTPException(404, f"this server has the model {name} and no other")

    @router.get("/models")
    def list_models() -> dict[str, Any]:
        """The model of this server."""
        return {"object": "list", "data": [model()]}

    @router.get("/models/{model_id:path}", responses={404: {"description": "There is no such model."}})
    def read_model(model_id: str) -> dict[str, Any]:
        """The model of this server."""
        check_model(model_id)
        return model()

    @router.post("/chat/completions", response_model=None, openapi_extra=_body(ChatBody), responses=_ERRORS)
    async def complete(request: Request) -> Response:
        """Makes a story."""
        body = await _read(request, ChatBody)
        check_model(body.model)
        settings = chat_settings(body)
        service.check_pages(body.pages)
        text, data = opening_of(body)
        image = None
        if data is not None:
            image = await run_in_threadpool(check_upload, data, "the image", service.settings.max_pixels)
        story_id = await run_in_threadpool(
            service.jobs.create, temporary=not body.store, text=text, image=image, **settings
        )
        story = _Story(service, story_id, body, name)
        if body.stream:
            return StreamingResponse(story.chunks(), media_type="text/event-stream")
        return JSONResponse(await story.whole(request))

    @router.post("/images/generations", response_model=None, openapi_extra=_body(ImagesBody), responses=_ERRORS)
    async def generate_images(request: Request) -> Response:
        """Draws a prompt."""
        body = await _read(request, ImagesBody)
        check_model(body.model)
        side = service.pipeline.image_size
        if body.size not in (None, "auto", f"{side}x{side}"):
            raise RequestError(f"this model draws images of {side}x{side} px alone")
        refuse(
            response_format=body.response_format not in (None, "b64_json"),
            output_format=body.output_format not in (None, "png"),
            stream=bool(body.stream),
        )
        count = 1 if body.n is None else body.n
        if not 1 <= count <= service.settings.max_images:
            raise RequestError(f"n must be from 1 to {service.settings.max_images}, not {count}")
        asked = ("num_inference_steps", "guidance_scale", "scheduler", "guidance_interval")
        own = {key: getattr(body, key) for key in asked}
        own = {key: value for key, value in own.items() if value is not None}
        images = []
        for number in range(count):
            story_id = await run_in_threadpool(
                service.jobs.create, temporary=True, text=body.prompt, pages=1, seed=(body.seed or 0) + number, **own
            )
            pages = [page async for page in _pages(service, story_id, request)]
            images.append({"b64_json": pages[0][1], "revised_prompt": None, "url": None})
        return JSONResponse({"created": int(time.time()), "data": images})

    return router


class _Story:
    """A story as the answer of a chat."""

    def __init__(self, service: Service, story_id: str, body: ChatBody, model: str) -> None:
        self.service, self.story_id, self.body, self.model = service, story_id, body, model
        self.answer_id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())

    async def whole(self, request: Request) -> dict[str, Any]:
        """The answer in one piece."""
        content: list[dict[str, Any]] = []
        captions = []
        async for caption, image in _pages(self.service, self.story_id, request):
            captions.append(caption)
            content += [{"type": "text", "text": caption}, _image_part(image)]
        message = {"role": "assistant", "content": content, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return self._answer("chat.completion", choices=[choice], usage=self._usage(captions))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The answer as a stream."""

        def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
            return _data(self._answer("chat.completion.chunk", choices=[choice]))

        sent, captions = "", []
        try:
            yield chunk({"role": "assistant", "content": ""})
            async for kind, values in _news(self.service, self.story_id):
                if kind == "text":  # whole sentences, since a caption that grows too long is cut after its last one
                    ends = sentence_ends(values["text"])
                    words = values["text"][: ends[-1]] if ends else ""
                    if len(words) > len(sent) and words.startswith(sent):
                        yield chunk({"content": words[len(sent) :]})
                        sent = words
                elif kind == "page":
                    caption, image = values["caption"], values["b64"]
                    rest = caption[len(sent) :] if caption.startswith(sent) else ""
                    if rest:
                        yield chunk({"content": rest})
                    yield chunk({"content": [_image_part(image)]})
                    captions.append(caption)
                    sent = ""
            yield chunk({}, "stop")
            if self.body.stream_options is not None and self.body.stream_options.include_usage:
                yield _data(self._answer("chat.completion.chunk", choices=[], usage=self._usage(captions)))
        except SeedStoryError as error:
            yield _data({"error": {"message": str(error), "type": "server_error", "param": None, "code": None}})
        yield b"data: [DONE]\n\n"

    def _answer(self, kind: str, **values: Any) -> dict[str, Any]:
        named = {"id": self.answer_id, "object": kind, "created": self.created, "model": self.model}
        kept = {"story": self.story_id} if self.body.store else {}
        return named | values | ({"seedstory": kept} if kept else {})

    def _usage(self, captions: list[str]) -> dict[str, int]:
        layout = self.service.pipeline.story_model.layout
        assert layout is not None, "a loaded story model has its layout"
        counts = [len(layout.caption_ids(caption)) for caption in captions]
        asked, written = sum(counts[:1]), sum(counts[1:])
        return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}


async def _pages(service: Service, story_id: str, request: Request) -> AsyncIterator[tuple[str, str]]:
    """Caption and image of each page of a temporary story, unless its client goes."""
    async for kind, values in _news(service, story_id, request):
        if kind == "page":
            yield values["caption"], values["b64"]


async def _news(
    service: Service, story_id: str, request: Request | None = None
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of a story until its end; pages with their images. A temporary story is removed then."""
    job = service.jobs.job(story_id)
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(woken.set)

    end = job.log.watch(wake)
    seen = 0
    try:
        while True:
            woken.clear()
            closed = job.record.state != "waiting" or service.jobs.is_closing
            for event in _known(job, seen):
                seen = event.number
                if event.kind == "page":
                    yield "page", await run_in_threadpool(_with_image, service, story_id, event.values)
                else:
                    yield event.kind, event.values
            if closed:
                break
            try:
                await asyncio.wait_for(woken.wait(), 1.0)
            except TimeoutError:
                if request is not None and await request.is_disconnected():
                    return
        if job.record.state != "done":
            raise RequestError(f"the story was not finished: {job.record.error or 'it was stopped'}")
    finally:
        end()
        if job.record.temporary:
            await asyncio.shield(run_in_threadpool(_remove, service, story_id))


def _known(job: Job, seen: int) -> list[Event]:
    events = job.log.after(seen)
    if events is None:
        raise RequestError("the story is too long to be answered in one piece: ask for fewer pages")
    return events


def _with_image(service: Service, story_id: str, page: dict[str, Any]) -> dict[str, Any]:
    folder = service.library.open(story_id)
    name = folder.entries[page["number"] - 1].image_file
    assert name is not None, "a page comes with its image"
    return page | {"b64": base64.b64encode(read_regular(folder.path / name, limit=MAX_FEATURES)).decode()}


def _remove(service: Service, story_id: str) -> None:
    try:
        service.jobs.cancel(story_id)
        service.jobs.remove(story_id)
    except SeedStoryError:  # the server stops: the next one removes it
        return


async def _read(request: Request, kind: Any) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    return parse_body(kind, await request.body())


def _image_part(image: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}


def _data(values: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(values, ensure_ascii=False)}\n\n".encode()


def _body(kind: Any) -> dict[str, Any]:
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text}
    for status, text in {
        400: "The request is not well formed, or asks for what this server cannot do.",
        401: "An API key is needed.",
        404: "There is no such model.",
        413: "The request is too large.",
        415: "The body is no JSON.",
        429: "As many stories are under way as the server allows.",
        507: "The library's disk is full or read-only.",
    }.items()
}
