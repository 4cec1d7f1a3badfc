"""The `seedstory` command.

Whatever can be wrong with a request is found before a model is loaded. An interrupted run keeps its finished pages.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from seedstory import __version__
from seedstory.commands.export import export
from seedstory.error_reporting import BAD_REQUEST, FAILED, INTERRUPTED, one_line, print_error, reported_errors
from seedstory.errors import RequestError
from seedstory.io import exclusive_writer, read_regular
from seedstory.progress_display import StoryScreen
from seedstory.rendering import RENDERING_MODES, Rendering
from seedstory.settings import DECODINGS, POLICIES, StorySettings, check_decoding, check_language, check_text
from seedstory.story import UNTITLED, Page, StoryFolder, check_target, make_title
from seedstory.story_state import parse_character

if TYPE_CHECKING:
    from seedstory.pipeline import StoryPipeline

MAX_SCRIPT = 64 * 2**20  # bytes
OPENING, BOOK, WORDS, IMAGES, MODEL = "Opening", "Book", "Words", "Pictures", "Model"  # panels of the help

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Illustrated stories from a sentence, a picture or both.",
)

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


@app.callback(invoke_without_command=True)
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the library's log, and the traceback of a bug.")] = False,
) -> None:
    if show_version:
        typer.echo(f"seedstory {__version__}")
        raise typer.Exit()
    if debug:
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False)
        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", handlers=[handler], force=True)
    logging.getLogger("seedstory").setLevel(logging.DEBUG if debug else logging.WARNING)


@app.command()
def generate(
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="Opening text: the words of page 1.", rich_help_panel=OPENING)
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", "-i", help="Opening picture (JPEG, PNG, WebP, GIF, BMP or TIFF).", rich_help_panel=OPENING
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            help="Your own words: a text file, one page a line, after the opening (or with it as line 1).",
            rich_help_panel=OPENING,
        ),
    ] = None,
    cast: Annotated[
        list[str] | None,
        typer.Option(
            help="A character and its look, such as 'Mia: fox, red coat'; may be repeated.",
            rich_help_panel=OPENING,
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Your own plan: a text file, a line for each page after the opening; the model writes the pages.",
            rich_help_panel=OPENING,
        ),
    ] = None,
    story_state: Annotated[
        bool | None,
        typer.Option(
            "--story-state/--no-story-state",
            help="Whether a cast and a plan are written first and followed. [default: if the model was trained to]",
            rich_help_panel=OPENING,
            show_default=False,
        ),
    ] = None,
    pages: Annotated[
        int | None,
        typer.Option(
            "--pages",
            "-n",
            help="Pages in all. [default: 10, or as many as --captions or --plan has]",
            rich_help_panel=BOOK,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same story.", rich_help_panel=BOOK)] = 0,
    title: Annotated[
        str | None, typer.Option(help="Title. [default: made from the first sentence]", rich_help_panel=BOOK)
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="Language of the words, such as de. [default: guessed from --captions]", rich_help_panel=BOOK
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "--output", "-o", help="Story folder. [default: stories/TITLE]", rich_help_panel=BOOK),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the story in --out.", rich_help_panel=BOOK)
    ] = False,
    temperature: Annotated[
        float, typer.Option(help="0 to 10; less is calmer, 0 takes the likeliest word.", rich_help_panel=WORDS)
    ] = StorySettings.temperature,
    top_k: Annotated[
        int, typer.Option(help="Choose among so many likeliest tokens; 0 is all.", rich_help_panel=WORDS)
    ] = StorySettings.top_k,
    top_p: Annotated[
        float, typer.Option(help="Choose from this probability mass, up to 1 (all).", rich_help_panel=WORDS)
    ] = StorySettings.top_p,
    min_p: Annotated[
        float,
        typer.Option(help="0 to 1; drop tokens below this share of the likeliest; 0 is none.", rich_help_panel=WORDS),
    ] = StorySettings.min_p,
    repetition_penalty: Annotated[
        float, typer.Option(help="0.1 to 10; above 1 shuns tokens already used; 1 is none.", rich_help_panel=WORDS)
    ] = StorySettings.repetition_penalty,
    no_repeat_ngram_size: Annotated[
        int,
        typer.Option(
            help="Never repeat a run of so many tokens; 0 is off, 12 or more breaks loops.", rich_help_panel=WORDS
        ),
    ] = StorySettings.no_repeat_ngram_size,
    history_pages: Annotated[
        int, typer.Option(help="Earlier pages in which those two look for repetition.", rich_help_panel=WORDS)
    ] = StorySettings.history_pages,
    min_caption_tokens: Annotated[
        int, typer.Option(help="Shortest page, in tokens (about 4 letters each).", rich_help_panel=WORDS)
    ] = StorySettings.min_caption_tokens,
    max_caption_tokens: Annotated[
        int, typer.Option(help="Longest page, in tokens, up to 1000.", rich_help_panel=WORDS)
    ] = StorySettings.max_caption_tokens,
    max_sentences: Annotated[
        int, typer.Option(help="Most sentences a page; 0 is no limit.", rich_help_panel=WORDS)
    ] = StorySettings.max_sentences,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="A page ends right after this text, to the letter; may be repeated.",
            rich_help_panel=WORDS,
            show_default=False,
        ),
    ] = None,
    text_guidance_scale: Annotated[
        float,
        typer.Option(
            "--text-guidance-scale",
            "--text-guidance",
            help="Classifier-free guidance of the text; 1 is none.",
            rich_help_panel=WORDS,
        ),
    ] = StorySettings.text_guidance_scale,
    steps: Annotated[
        int,
        typer.Option("--num-inference-steps", "--steps", help="Diffusion steps a picture.", rich_help_panel=IMAGES),
    ] = StorySettings.num_inference_steps,
    guidance: Annotated[
        float,
        typer.Option(
            "--guidance-scale", "--guidance", help="Classifier-free guidance; 1 is none.", rich_help_panel=IMAGES
        ),
    ] = StorySettings.guidance_scale,
    rendering: When = Rendering.rendering,
    render_batch: RenderBatch = Rendering.render_batch,
    model: Annotated[str, typer.Option(help="'mini', a model folder or a Hub id.", rich_help_panel=MODEL)] = "mini",
    policy: Annotated[
        str, typer.Option(help=f"Cache policy: {', '.join(POLICIES)}.", rich_help_panel=MODEL)
    ] = StorySettings.policy,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Keep the language model in 8 bits: faster, less memory.", rich_help_panel=MODEL),
    ] = False,
    decoding: Decoding = "auto",
    device: Device = None,
) -> None:
    """Write and draw a story, and make a book of it.

    **Examples**

    seedstory generate --text "Mia the fox found a golden key."

    seedstory generate --image drawing.jpg --pages 6 --seed 7 --out stories/drawing

    seedstory generate --text "Tom the frog woke up." --captions script.txt

    seedstory generate --text "Mia found a map." --cast "Mia: fox, red coat" --plan plan.txt

    seedstory generate --text "Ida the owl set out." --pages 60 --max-sentences 2 --no-repeat-ngram-size 12

    seedstory generate --text "Ida the owl set out." --temperature 0.9 --top-p 1 --min-p 0.1 --stop "The end."
    """
    with reported_errors():
        script = _read_lines(captions) if captions is not None else None
        lines = _read_lines(plan) if plan is not None else None
        if script and text is None and image is None:
            text, script = script[0], script[1:]
        if pages is None:
            pages = StorySettings.pages if script is None and lines is None else len(script or lines or ()) + 1
        settings = StorySettings(
            text=text,
            image_name=image.name if image is not None else None,
            pages=pages,
            seed=seed,
            num_inference_steps=steps,
            guidance_scale=guidance,
            policy=policy,
            captions=script,
            story_state=story_state,
            cast=_read_cast(cast or []),
            plan=lines,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            history_pages=history_pages,
            min_caption_tokens=min_caption_tokens,
            max_caption_tokens=max_caption_tokens,
            stop=tuple(stop or ()),
            max_sentences=max_sentences,
            text_guidance_scale=text_guidance_scale,
        )
        drawing = Rendering(rendering, render_batch)
        title = check_text(title, "the title") if title is not None else None
        if language is not None:
            check_language(language)
        if image is not None:
            from seedstory.image import load_image

            load_image(image)  # a bad picture is found before the model is loaded
        if out is None:
            name = Path(image).stem if image is not None else ""
            out = _free_folder(Path("stories"), title or make_title(settings.text or name))
        check_target(out, overwrite=overwrite)
        _check_writable(out)
        pipe = _load(model, device, int8=int8, decoding=decoding)
        screen = StoryScreen(settings.pages)
        options = asdict(settings) | asdict(drawing)
        del options["image_name"]  # the picture itself is handed over
        options["language"] = language
        generated = pipe.stream(
            image=image, title=title, out=out, overwrite=overwrite, callback_on_text=screen.show_text, **options
        )
        _generate(generated, out, screen)


@app.command()
def resume(
    folder: Folder,
    model: Annotated[str | None, typer.Option(help="The model that began it. [default: as recorded]")] = None,
    rendering: When = Rendering.rendering,
    render_batch: RenderBatch = Rendering.render_batch,
    decoding: Decoding = "auto",
    device: Device = None,
    allow_other_model: Annotated[
        bool, typer.Option("--allow-other-model", help="Also go on with a story that another model began.")
    ] = False,
) -> None:
    """Go on with a story that was interrupted, as if it had not been.

    **Example**: seedstory resume stories/drawing
    """
    with reported_errors():
        from seedstory.model_folder import versions
        from seedstory.story_writer import check_resumable

        drawing = Rendering(rendering, render_batch)
        story = StoryFolder.open(folder)
        check_resumable(story)
        _check_writable(folder)
        total = story.settings.pages
        whole = sum(page.image is not None for page in story.pages)  # reads them: a damaged one is found now
        if whole == total:
            with exclusive_writer(folder):
                story.remove_leftovers()
                _write_book(folder)
            typer.echo(f"Nothing to do: all {total} pages are there. The book: {folder / 'index.html'}")
            return
        changed = [f"{key} {old}" for key, old in story.versions.items() if versions().get(key) != old]
        if changed:
            typer.echo(f"note: begun with {', '.join(changed)}: new pages may differ in details", err=True)
        story_dtype = story.model.dtype
        name = model or story.model.name or "mini"
        pipe = _load(name, device, int8=story_dtype.endswith("int8"), decoding=decoding, story_dtype=story_dtype)
        screen = StoryScreen(total, done=whole)
        resumed = pipe.resume(
            story, allow_other_model=allow_other_model, callback_on_text=screen.show_text, **asdict(drawing)
        )
        _generate(resumed, folder, screen)


app.command()(export)


@app.command()
def info(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A story folder.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(help="'mini', a model folder or a Hub id.")] = "mini",
) -> None:
    """Print versions, model and device; or what a story folder holds: its model, its cast and its plan.

    **Example**: seedstory info stories/drawing
    """
    with reported_errors():
        if folder is not None:
            _print_story(StoryFolder.open(folder))
            return
        from seedstory.identity import fingerprint
        from seedstory.model_folder import find_model, versions

        found = find_model(model)
        rows = dict(versions())
        rows["python"] = sys.version.split()[0]
        size = sum(file.stat().st_size for file in found.rglob("*") if file.is_file())
        import torch

        from seedstory.modeling.base_lm import resolve_base_lm

        try:
            base, mark = [resolve_base_lm(found / "story_model")], ""
        except ValueError as error:
            base, mark = [], f", without its base language model: {one_line(str(error))}"
        rows["model"] = f"{model} ({size / 1e6:.1f} MB, fingerprint {fingerprint(found, *base)[:12]}{mark})"

        rows["device"] = f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"
        rows["threads"] = str(torch.get_num_threads())
        for key, value in rows.items():
            typer.echo(f"{key:<13}{value}")


def main() -> None:
    """Entry point of the console script."""
    try:
        status = app(standalone_mode=False)
    except typer.Abort:
        status = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer raises for a wrong command line has it
            raise
        message = error.format_message()
        if message:
            print_error(f"{one_line(message)} See `seedstory --help`.")
        status = BAD_REQUEST
    sys.exit(status if isinstance(status, int) else 0)


def _generate(generated: Generator[Page, None, None], out: Path, screen: StoryScreen) -> None:
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
            _write_book(out)
        try:
            safe = len(StoryFolder.open(out))
        except ValueError:
            raise OSError(
                f"{out} was deleted or moved while its story was generated: {screen.done} pages are lost"
            ) from None
        kept = f"{safe} of {screen.total} pages are safe in {out}"
        if not isinstance(error, ValueError):  # which would come again
            kept += f"; go on with: seedstory resume {out}"
        if isinstance(error, KeyboardInterrupt):
            typer.echo(f"\nStopped: {kept}", err=True)
            raise typer.Exit(INTERRUPTED) from None
        print_error(f"{one_line(str(error))}. {kept}")
        raise typer.Exit(FAILED) from None
    typer.echo(f"The book: {_write_book(out)}")


def _print_story(story: StoryFolder) -> None:
    """A story's facts; then its cast, and its plan, each line with the number of its page."""
    model = story.model
    rows = {
        "title": story.title or UNTITLED,
        "pages": f"{len(story)} of {story.settings.pages}",
        "seed": str(story.settings.seed),
        "model": f"{model.name or '(unnamed)'} ({model.dtype or 'no type'}, fingerprint {model.fingerprint[:12]})",
    }
    for key, value in rows.items():
        typer.echo(f"{key:<7}{value}")
    cast: dict[str, str] = {}
    plan: list[str] = []
    for index in range(len(story)):
        page = story.page(index, image=False, features=False)
        if page.next_state is not None:
            cast |= dict(page.next_state.cast)
            plan += [f"{number:>4}  {line}" for number, line in enumerate(page.next_state.plan, page.number + 1)]
    for heading, lines in (("cast", [f"  {name}: {look}" for name, look in cast.items()]), ("plan", plan)):
        if lines:
            typer.echo("\n".join([heading, *lines]))


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


def _write_book(folder: Path) -> Path:
    from seedstory.export.html import write_html

    return write_html(StoryFolder.open(folder), folder / "index.html")


def _load(model: str, device: str | None, *, int8: bool, decoding: str, story_dtype: str = "") -> StoryPipeline:
    """Loads a model without the chatter of the libraries under it."""
    from seedstory.model_folder import find_model
    from seedstory.pipeline import StoryPipeline

    find_model(model)
    check_decoding(decoding)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore")
    with Console(stderr=True).status(f"loading the model {model}"):
        import diffusers
        import transformers

        for library in (transformers, diffusers):
            library.utils.logging.set_verbosity_error()
            library.utils.logging.disable_progress_bar()
        return StoryPipeline.from_pretrained(
            model, device=device, int8=int8, decoding=decoding, story_dtype=story_dtype
        )


def _read_cast(characters: list[str]) -> dict[str, str] | None:
    cast = [parse_character(text) for text in characters]
    if len(dict(cast)) < len(cast):
        raise RequestError("two characters have one name: give each a --cast of its own")
    return dict(cast) or None


def _read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, one a page."""
    try:
        lines = read_regular(path, limit=MAX_SCRIPT).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not a UTF-8 text file: save it as plain text") from None
    filled = [line for line in lines if line.strip()]
    if not filled:
        raise RequestError(f"{path} is empty: write one page a line")
    return filled


def _free_folder(parent: Path, title: str) -> Path:
    """A folder named after the story that does not exist yet."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:48].strip("-") or "story"
    folder, count = parent / slug, 1
    while folder.exists():
        count += 1
        folder = parent / f"{slug}-{count}"
    return folder


def _check_writable(folder: Path) -> None:
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


if __name__ == "__main__":
    main()
