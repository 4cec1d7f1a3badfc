"""What the verbs share: options, loading a model, showing pages as they come, reading a user's text files."""

from __future__ import annotations

import contextlib
import re
import signal
import tempfile
import unicodedata
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from seedstory.error_reporting import FAILED, INTERRUPTED, machine_error, print_error
from seedstory.errors import RequestError
from seedstory.io import exclusive_writer
from seedstory.memory.modes import MEMORY_MODES, check_memory
from seedstory.page_facts import parse_fact
from seedstory.progress_display import StoryScreen, quiet_libraries
from seedstory.rendering import RENDERING_MODES, Rendering
from seedstory.script import read_text
from seedstory.settings import DECODINGS, POLICIES, SCHEDULERS, check_decoding
from seedstory.story import Page, StoryFolder
from seedstory.story_state import parse_character

if TYPE_CHECKING:
    from seedstory.pipeline import StoryPipeline

OPENING, BOOK, WORDS, IMAGES, MODEL = "Opening", "Book", "Words", "Pictures", "Model"  # panels of the help

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The story folder.", show_default=False)]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 ...; by default a GPU if there is one.", rich_help_panel=MODEL)
]

Decoding = Annotated[
    str,
    typer.Option(help=f"How words are decoded ({', '.join(DECODINGS)}); see the README.", rich_help_panel=MODEL),
]
When = Annotated[
    str,
    typer.Option(
        "--rendering",
        help=f"When pictures are drawn ({', '.join(RENDERING_MODES)}): page by page, while the words go on, or "
        "at the end with the language model out of memory.",
        rich_help_panel=IMAGES,
    ),
]
RenderBatch = Annotated[int, typer.Option(help="Pictures drawn together.", rich_help_panel=IMAGES)]
Cast = Annotated[
    list[str] | None,
    typer.Option(
        help="A character and its look, such as 'Mia: fox, red coat'; may be repeated.",
        rich_help_panel=OPENING,
        show_default=False,
    ),
]
NewFolder = Annotated[
    Path | None,
    typer.Option("--out", "--output", "-o", help="Story folder. [default: stories/TITLE]", rich_help_panel=BOOK),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the story in --out.", rich_help_panel=BOOK)]
Steps = Annotated[
    int | None,
    typer.Option(
        "--num-inference-steps",
        "--steps",
        help="Diffusion steps a picture. [default: what the scheduler needs; 4 with mini]",
        rich_help_panel=IMAGES,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance-scale",
        "--guidance",
        help="Classifier-free guidance; 1 is none. [default: what suits the scheduler]",
        rich_help_panel=IMAGES,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help=f"The way from noise to a picture ({', '.join(SCHEDULERS)}). [default: the model's own]",
        rich_help_panel=IMAGES,
    ),
]
GuidanceInterval = Annotated[
    tuple[float, float],
    typer.Option(help="Share of the steps that guidance steers, such as 0.1 0.8.", rich_help_panel=IMAGES),
]
FastImages = Annotated[
    bool,
    typer.Option("--fast-images", help="Draw faster; pictures differ by rounding alone.", rich_help_panel=IMAGES),
]
Model = Annotated[str, typer.Option(help="'mini', a model folder or a Hub id.", rich_help_panel=MODEL)]
Policy = Annotated[str, typer.Option(help=f"Cache policy: {', '.join(POLICIES)}.", rich_help_panel=MODEL)]
Int8 = Annotated[
    bool,
    typer.Option("--int8", help="Keep the language model in 8 bits: faster, less memory.", rich_help_panel=MODEL),
]
Memory = Annotated[
    str,
    typer.Option(
        help=f"How the model is held in memory ({', '.join(MEMORY_MODES)}); auto takes the best that fits, see "
        "`seedstory doctor`. [default: all of it on the device]",
        rich_help_panel=MODEL,
        show_default=False,
    ),
]
OtherModel = Annotated[
    bool, typer.Option("--allow-other-model", help="Also go on with a story that another model began.")
]
RecordedModel = Annotated[str | None, typer.Option(help="The model that began it. [default: as recorded]")]


def run_generation(generated: Generator[Page, None, None], out: Path, screen: StoryScreen) -> None:
    """Shows pages as they come; writes the book at the end, also when interrupted."""
    before = _last_change(out)
    try:
        with screen, _interruptible() as screen.interrupted, contextlib.closing(generated):
            for page in generated:
                screen.show(page)
                if screen.interrupted:
                    raise KeyboardInterrupt
    except (KeyboardInterrupt, OSError, RuntimeError, ValueError) as error:
        if screen.done == 0 and _last_change(out) == before:  # not even a page without its picture
            raise
        with contextlib.suppress(ValueError, OSError):
            write_book(out)
        try:
            safe = len(StoryFolder.open(out))
        except ValueError:
            raise OSError(
                f"{out} was deleted or moved while its story was generated: {screen.done} pages are lost"
            ) from None
        kept = f"{safe} of {screen.total} pages are safe in {out}"
        if not isinstance(error, ValueError):  # which would come again
            kept += f"; go on with: seedstory continue {out}"
        if isinstance(error, KeyboardInterrupt):
            typer.echo(f"\nStopped: {kept}", err=True)
            raise typer.Exit(INTERRUPTED) from None
        print_error(f"{machine_error(error)}. {kept}")
        raise typer.Exit(FAILED) from None
    typer.echo(f"The book: {write_book(out)}")


def finish_story(
    folder: Path,
    *,
    model: str | None = None,
    rendering: str = Rendering.rendering,
    render_batch: int = Rendering.render_batch,
    decoding: str = "auto",
    device: str | None = None,
    allow_other_model: bool = False,
    fast_images: bool = False,
    memory: str = "",
) -> None:
    """Makes all pages of a story folder that are missing or are to be made anew, and writes the book."""
    from seedstory.model_folder import versions
    from seedstory.story_writer import check_resumable

    drawing = Rendering(rendering, render_batch)
    check_memory(memory)
    story = StoryFolder.open(folder)
    check_resumable(story)
    check_writable(folder)
    total = story.settings.pages
    done = sum(page.image is not None and page.pending is None for page in story.pages)  # a damaged one is found now
    if story.is_complete:
        with exclusive_writer(folder):
            story.remove_leftovers()
            write_book(folder)
        typer.echo(f"Nothing to do: all {total} pages are there. The book: {folder / 'index.html'}")
        return
    changed = [f"{key} {old}" for key, old in story.versions.items() if versions().get(key) != old]
    if changed:
        typer.echo(f"note: begun with {', '.join(changed)}: new pages may differ in details", err=True)
    story_dtype = story.model.dtype
    name = model or story.model.name or "mini"
    quantization = story_dtype.partition(", ")[2]
    pipe = load_pipeline(
        name,
        device,
        quantization=quantization,
        decoding=decoding,
        story_dtype=story_dtype,
        memory=memory,
        fast_images=fast_images,
    )
    screen = StoryScreen(total, done=done)
    resumed = pipe.resume(
        story,
        allow_other_model=allow_other_model,
        callback_on_text=screen.show_text,
        rendering=drawing.rendering,
        render_batch=drawing.render_batch,
    )
    run_generation(resumed, folder, screen)


def _last_change(folder: Path) -> int | None:
    record = folder / "story.json"
    return record.stat().st_mtime_ns if record.exists() else None


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Makes Ctrl-C stop the story at the next word or page at the latest; yields a list that is empty until then.

    Python raises KeyboardInterrupt wherever it happens to be, and drops it inside a finalizer or a callback.
    """
    interrupted: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        interrupted.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def write_book(folder: Path) -> Path:
    """Writes the book of a story folder into it."""
    from seedstory.export.html import write_html

    return write_html(StoryFolder.open(folder), folder / "index.html")


def load_pipeline(
    model: str,
    device: str | None,
    *,
    quantization: str,
    decoding: str,
    story_dtype: str = "",
    memory: str = "",
    fast_images: bool = False,
) -> StoryPipeline:
    """Loads a model without the chatter of the libraries under it."""
    from seedstory.model_folder import find_model
    from seedstory.pipeline import StoryPipeline

    find_model(model)
    check_decoding(decoding)
    check_memory(memory)
    with Console(stderr=True).status(f"loading the model {model}"):
        quiet_libraries()
        pipeline = StoryPipeline.from_pretrained(
            model,
            device=device,
            quantization=quantization,
            decoding=decoding,
            story_dtype=story_dtype,
            memory=memory,
        )
        if fast_images:
            pipeline.detokenizer.enable_fast_path()
    if pipeline.memory_plan is not None:
        typer.echo(f"memory: {pipeline.memory_plan}", err=True)
    return pipeline


def read_facts(facts: list[str]) -> dict[str, str]:
    """Name and text of each `NAME=TEXT`."""
    read = [parse_fact(text) for text in facts]
    if len(dict(read)) < len(read):
        raise RequestError("a fact is given twice: give each a --fact of its own")
    return dict(read)


def read_cast(characters: list[str]) -> dict[str, str] | None:
    """Name and look of each `NAME: LOOK`; None if there are none."""
    cast = [parse_character(text) for text in characters]
    if len(dict(cast)) < len(cast):
        raise RequestError("two characters have one name: give each a --cast of its own")
    return dict(cast) or None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, one a page."""
    filled = [line for line in read_text(path).splitlines() if line.strip()]
    if not filled:
        raise RequestError(f"{path} is empty: write one page a line")
    return filled


def free_folder(parent: Path, title: str) -> Path:
    """A folder named after the story that does not exist yet."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:48].strip("-") or "story"
    if re.fullmatch(r"con|nul|aux|prn|(com|lpt)\d", slug):  # Windows has devices of these names
        slug = f"{slug}-story"
    folder, count = parent / slug, 1
    while folder.exists():
        count += 1
        folder = parent / f"{slug}-{count}"
    return folder


def check_writable(folder: Path) -> None:
    """Tries whether files can be made in a folder that may not exist yet, and leaves no trace."""
    made = []
    try:
        for part in reversed([folder, *folder.parents]):
            if not part.exists():
                part.mkdir()
                made.append(part)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RequestError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    finally:
        for part in reversed(made):
            part.rmdir()
