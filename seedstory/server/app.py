"""The application: all routes, and what runs behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from seedstory.server.batches import OpenBatch
from seedstory.server.bodies import SessionBody
from seedstory.server.edit_routes import make_edit_router
from seedstory.server.export_routes import make_export_router
from seedstory.server.guard import SESSION_COOKIE, Guard, GuardMiddleware
from seedstory.server.jobs import JobRunner
from seedstory.server.library import Library
from seedstory.server.metrics import METRICS_TYPE, metrics_text
from seedstory.server.openai_routes import make_openai_router
from seedstory.server.service import Service, add_error_handlers, errors_of
from seedstory.server.settings import ServerSettings
from seedstory.server.story_routes import make_story_router

if TYPE_CHECKING:
    from seedstory.pipeline import StoryPipeline

_STATIC = Path(__file__).parent / "static"
# The app sets every text as text: no script or style of a story's runs in it, and the browser forbids them, too.
_APP_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def create_app(
    pipeline: StoryPipeline,
    library: Path,
    settings: ServerSettings | None = None,
    *,
    batches: Sequence[OpenBatch] | None = None,
) -> FastAPI:
    """A server of stories as an ASGI application.

    Args:
        pipeline: Makes the stories; from now on in the application's own thread alone. With `batches` it only checks
            what is asked for.
        library: The folder of the stories.
        settings: Limits; by default those of `ServerSettings`.
        batches: What makes the stories instead, such as workers of Ray (`seedstory.server.remote.RemoteBatches`).

    Returns:
        The application; `app.state.service` is its `Service`.

    Raises:
        StoryFolderError: The library cannot be written.
    """
    from seedstory import __version__

    settings = ServerSettings() if settings is None else settings
    stories = Library(Path(library))
    jobs = JobRunner(
        pipeline, stories, max_stories=settings.max_stories, page_timeout=settings.page_timeout, batches=batches
    )
    service = Service(pipeline, stories, settings, jobs)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(jobs.start)
        try:
            yield
        finally:
            await run_in_threadpool(jobs.close)

    app = FastAPI(
        title="seedstory",
        version=__version__,
        description="Illustrated stories from a sentence, a picture or both.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    guard = Guard(settings, service.counts)
    add_error_handlers(app, lambda: service)
    app.include_router(make_story_router(service))
    app.include_router(make_edit_router(service))
    app.include_router(make_export_router(service))
    app.include_router(make_openai_router(service))
    _add_plain_routes(app, service, guard)
    app.add_middleware(GuardMiddleware, guard=guard)
    return app


def _add_plain_routes(app: FastAPI, service: Service, guard: Guard) -> None:
    @app.get("/healthz", tags=["server"], responses={503: {"description": "It makes no stories any more."}})
    def health() -> JSONResponse:
        """Whether the server works."""
        closing = service.jobs.is_closing
        return JSONResponse({"status": "closing" if closing else "ok"}, 503 if closing else 200)

    @app.get("/metrics", tags=["server"], response_class=PlainTextResponse, responses=errors_of())
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(metrics_text(service, guard.seconds), media_type=METRICS_TYPE)

    @app.post("/api/session", status_code=204, tags=["server"], responses=errors_of(422))
    def open_session(body: SessionBody) -> Response:
        """Takes an API key and gives the browser a cookie in its place, since images and events carry no header."""
        cookie = guard.session_cookie(body.key)
        if cookie is None:
            raise HTTPException(401, "this is no API key of the server")
        answer = Response(status_code=204)
        answer.set_cookie(SESSION_COOKIE, cookie, httponly=True, samesite="strict", path="/")
        return answer

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(_docs_page(app.openapi()))

    @app.get("/", include_in_schema=False)
    def front() -> Response:
        page = _STATIC / "index.html"
        if page.is_file():
            headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _APP_POLICY}
            return HTMLResponse(page.read_text("utf-8"), headers=headers)
        return HTMLResponse(_docs_page(app.openapi()))

    app.mount("/static", StaticFiles(directory=_STATIC, check_dir=False), name="static")


def _docs_page(schema: dict[str, Any]) -> str:
    """The OpenAPI schema as a plain page that loads nothing."""
    rows = []
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            body = route.get("requestBody", {}).get("content", {})
            forms = [part.get("schema", {}).get("$ref", "").rpartition("/")[2] or kind for kind, part in body.items()]
            cells = (method.upper(), path, route.get("description", route.get("summary", "")), ", ".join(forms))
            rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    bodies = []
    for name, one in schema.get("components", {}).get("schemas", {}).items():
        fields = ", ".join(escape(field) for field in one.get("properties", {}))
        bodies.append(f"<dt>{escape(name)}</dt><dd>{escape(one.get('description', ''))} <code>{fields}</code></dd>")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>seedstory API</title>"
        "<meta name=viewport content='width=device-width'><style>body{font:1rem/1.5 system-ui;margin:2rem auto;"
        "max-width:70rem;padding:0 1rem}td{padding:.3rem .6rem;vertical-align:top;border-top:1px solid #ccc}</style>"
        f"<h1>seedstory API {escape(schema['info']['version'])}</h1>"
        "<p>The machine-readable form: <a href=openapi.json>openapi.json</a>.</p>"
        f"<table>{''.join(rows)}</table><h2>Bodies</h2><dl>{''.join(bodies)}</dl></html>"
    )
