"""The verb that serves stories over HTTP."""

from __future__ import annotations

from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedstory.commands.running import MODEL, Decoding, Device, load_pipeline
from seedstory.error_reporting import reported_errors
from seedstory.errors import RequestError

if TYPE_CHECKING:
    from seedstory.server.jobs import JobRunner

ACCESS, LIMITS = "Access", "Limits"  # panels of the help
_HEADER_BYTES = 64 * 1024
_SHUTDOWN = 10  # seconds for requests under way


def serve(
    library: Annotated[Path, typer.Option("--library", "-l", help="Folder of the stories.")] = Path("stories"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; another one needs API keys.", rich_help_panel=ACCESS)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", rich_help_panel=ACCESS)] = 8000,
    api_keys: Annotated[
        Path | None,
        typer.Option(
            help="File with API keys, one a line. [default: those in SEEDSTORY_API_KEYS]", rich_help_panel=ACCESS
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Name by which clients may call this server; may be repeated.", rich_help_panel=ACCESS),
    ] = None,
    max_stories: Annotated[int, typer.Option(help="Stories made at a time.", rich_help_panel=LIMITS)] = 8,
    max_pages: Annotated[int, typer.Option(help="Most pages of a story.", rich_help_panel=LIMITS)] = 200,
    model: Annotated[str, typer.Option(help="'mini', a model folder or a Hub id.", rich_help_panel=MODEL)] = "mini",
    int8: Annotated[
        bool, typer.Option("--int8", help="Keep the language model in 8 bits.", rich_help_panel=MODEL)
    ] = False,
    decoding: Decoding = "auto",
    device: Device = None,
) -> None:
    """Make stories for a web page and for programs, over HTTP; OpenAI's clients can use it, too.

    **Examples**

    seedstory serve

    seedstory serve --library stories --port 9000 --max-stories 4

    SEEDSTORY_API_KEYS=long-secret-key seedstory serve --host 0.0.0.0
    """
    with reported_errors():
        try:
            import uvicorn

            from seedstory.server import ServerSettings, create_app
            from seedstory.server.library import Library
            from seedstory.server.settings import read_api_keys
        except ModuleNotFoundError as error:
            raise RequestError(f"the server needs {error.name}: pip install 'seedstory[server]'") from None

        settings = ServerSettings(
            host=host,
            api_keys=read_api_keys(api_keys),
            allowed_hosts=tuple(allowed_host or ()),
            max_stories=max_stories,
            max_pages=max_pages,
        )
        if not 0 <= port < 2**16:
            raise RequestError(f"a port is a number from 0 to 65535, not {port}")
        Library(library)  # a folder that cannot be written is found before the model is loaded
        pipeline = load_pipeline(model, device, int8=int8, decoding=decoding)
        app = create_app(pipeline, library, settings)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=settings.max_streams + 200,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_SHUTDOWN,
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
        make_server(config, app.state.service.jobs, lambda where: typer.echo(f"Stories: {where}")).run()


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


def register(app: typer.Typer) -> None:
    """Adds the verb to a command."""
    app.command()(serve)
