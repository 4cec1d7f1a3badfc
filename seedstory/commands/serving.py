"""The verbs that serve stories over HTTP: `serve` for programs, `app` for an author at this machine."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from seedstory.commands.running import Decoding, Device, Int8, Model, load_pipeline
from seedstory.error_reporting import reported_errors
from seedstory.errors import ModelError, RequestError
from seedstory.io import check_unlocked
from seedstory.ray_cluster import check_engine

if TYPE_CHECKING:
    from seedstory.pipeline import StoryPipeline
    from seedstory.server.batches import OpenBatch
    from seedstory.server.jobs import JobRunner

ACCESS, LIMITS, WORKERS = "Access", "Limits", "Workers"  # panels of the help
_HEADER_BYTES = 64 * 1024
_SHUTDOWN = 10  # seconds for requests under way


LibraryFolder = Annotated[Path, typer.Option("--library", "-l", help="Folder of the stories.")]
Host = Annotated[str, typer.Option(help="Address to listen on; another one needs API keys.", rich_help_panel=ACCESS)]
Port = Annotated[int, typer.Option(help="Port; 0 takes a free one.", rich_help_panel=ACCESS)]
Keys = Annotated[
    Path | None,
    typer.Option(help="File with API keys, one a line. [default: those in SEEDSTORY_API_KEYS]", rich_help_panel=ACCESS),
]
Names = Annotated[
    list[str] | None,
    typer.Option(help="Name by which clients may call this server; may be repeated.", rich_help_panel=ACCESS),
]
Engine = Annotated[
    str,
    typer.Option(help="Where stories are made: local, or ray (workers of a Ray cluster).", rich_help_panel=WORKERS),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Workers of Ray; by default one a GPU, or a CPU where there is no GPU.", rich_help_panel=WORKERS),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="HOST:PORT of a Ray cluster, or auto; by default RAY_ADDRESS, or this machine.", rich_help_panel=WORKERS
    ),
]
MaxStories = Annotated[int, typer.Option(help="Stories made at a time.", rich_help_panel=LIMITS)]
MaxPages = Annotated[int, typer.Option(help="Most pages of a story.", rich_help_panel=LIMITS)]


def serve(
    library: LibraryFolder = Path("stories"),
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_keys: Keys = None,
    allowed_host: Names = None,
    max_stories: MaxStories = 8,
    max_pages: MaxPages = 200,
    model: Model = "mini",
    int8: Int8 = False,
    decoding: Decoding = "auto",
    device: Device = None,
    engine: Engine = "local",
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Make stories for a web page and for programs, over HTTP; OpenAI's clients can use it, too.

    **Examples**

    seedstory serve

    seedstory serve --library stories --port 9000 --max-stories 4

    SEEDSTORY_API_KEYS=a-long-and-secret-key seedstory serve --host 0.0.0.0

    seedstory serve --engine ray --workers 4 --max-stories 32
    """
    with reported_errors():
        _run(
            library,
            lambda where: typer.echo(f"Stories: {where}"),
            port=port,
            api_keys=api_keys,
            model=(model, device, int8, decoding),
            host=host,
            allowed_hosts=tuple(allowed_host or ()),
            engine=(engine, workers, address),
            max_stories=max_stories,
            max_pages=max_pages,
        )


def app(
    library: LibraryFolder = Path("stories"),
    host: Host = "127.0.0.1",
    port: Port = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    api_keys: Keys = None,
    allowed_host: Names = None,
    max_pages: MaxPages = 200,
    model: Model = "mini",
    int8: Int8 = False,
    decoding: Decoding = "auto",
    device: Device = None,
) -> None:
    """Write and draw stories on a page in your browser; Ctrl-C ends it.

    **Examples**

    seedstory app

    seedstory app --library stories --port 9000 --no-browser
    """

    def announce(where: str) -> None:
        where = where.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        typer.echo(f"The app: {where} (Ctrl-C ends it)")
        if browser:  # which may take its time to start
            threading.Thread(target=webbrowser.open, args=(where,), daemon=True).start()

    with reported_errors():
        _run(
            library,
            announce,
            port=port,
            api_keys=api_keys,
            model=(model, device, int8, decoding),
            host=host,
            allowed_hosts=tuple(allowed_host or ()),
            max_pages=max_pages,
        )


def _run(
    library: Path,
    announce: Callable[[str], None],
    *,
    port: int,
    api_keys: Path | None,
    model: tuple[str, str | None, bool, str],
    host: str,
    engine: tuple[str, int | None, str | None] = ("local", None, None),
    **limits: Any,
) -> None:
    """Serves a library until it is stopped; `announce` is told where."""
    try:
        import uvicorn

        from seedstory.server import ServerSettings, create_app
        from seedstory.server.library import Library
        from seedstory.server.settings import read_api_keys
    except ModuleNotFoundError as error:
        raise RequestError(f"the server needs {error.name}: pip install 'seedstory[server]'") from None

    settings = ServerSettings(host=host, api_keys=read_api_keys(api_keys), **limits)
    if not 0 <= port < 2**16:
        raise RequestError(f"a port is a number from 0 to 65535, not {port}")
    check_unlocked(Library(library).path)  # a folder that is not free is found before the model is loaded
    check_engine(*engine)
    with contextlib.ExitStack() as stack:
        pipeline, batches = _load(stack, model, engine)
        served = create_app(pipeline, library, settings, batches=batches)
        config = uvicorn.Config(
            served,
            host=host,
            port=port,
            http="h11",  # which bounds the size of headers
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=settings.max_streams + 200,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_SHUTDOWN,
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
        make_server(config, served.state.service.jobs, announce).run()


def _load(
    stack: contextlib.ExitStack, model: tuple[str, str | None, bool, str], engine: tuple[str, int | None, str | None]
) -> tuple[StoryPipeline, list[OpenBatch] | None]:
    """The model, and the workers that make stories in its place; these end with the stack."""
    (name, device, int8, decoding), (kind, workers, address) = model, engine
    quantization = "int8" if int8 else ""
    if kind == "local":
        return load_pipeline(name, device, quantization=quantization, decoding=decoding), None
    from seedstory.server.remote import RemoteBatches

    with Console(stderr=True).status(f"workers load the model {name}, as soon as the cluster has room for them"):
        remote = RemoteBatches(name, device=device, int8=int8, decoding=decoding, workers=workers, address=address)
    stack.callback(remote.close)
    dtype = remote.identity.dtype
    pipeline = load_pipeline(name, "cpu", quantization=quantization, decoding=decoding, story_dtype=dtype)
    if (pipeline.identity.fingerprint, pipeline.identity.dtype) != (remote.identity.fingerprint, dtype):
        raise ModelError(f"the workers have another model {name} than this machine: give all the same folder")
    return pipeline, remote.open_all()


def make_server(config: Any, jobs: JobRunner, announce: Any) -> Any:
    """A uvicorn server that says where it listens, and ends event streams when it stops."""
    import uvicorn

    class StoryServer(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                for listener in self.servers:
                    for one in listener.sockets:
                        name, port = one.getsockname()[:2]
                        announce(f"http://{f'[{name}]' if ':' in name else name}:{port}")

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            jobs.stop()  # else open event streams would keep it waiting
            self.force_exit = self.should_exit  # the second time
            self.should_exit = True

    return StoryServer(config)


def register(command: typer.Typer) -> None:
    """Adds the verbs to a command."""
    command.command()(app)
    command.command()(serve)
