"""The `seedstory` command.

Whatever can be wrong with a request is found before a model is loaded. An interrupted run keeps its finished pages.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from seedstory import __version__
from seedstory.commands import convert, editing, serving
from seedstory.commands.doctor import doctor
from seedstory.commands.export import export
from seedstory.commands.running import (
    BOOK,
    OPENING,
    WORDS,
    Cast,
    Decoding,
    Device,
    FastImages,
    Guidance,
    GuidanceInterval,
    Int8,
    Memory,
    Model,
    NewFolder,
    Overwrite,
    Policy,
    RenderBatch,
    Scheduler,
    Steps,
    When,
    check_writable,
    finish_story,
    free_folder,
    load_pipeline,
    read_cast,
    read_lines,
    run_generation,
)
from seedstory.error_reporting import BAD_REQUEST, INTERRUPTED, one_line, print_error, reported_errors
from seedstory.errors import RequestError
from seedstory.memory.modes import check_memory
from seedstory.progress_display import StoryScreen
from seedstory.rendering import Rendering
from seedstory.settings import StorySettings, check_language, check_text
from seedstory.story import UNTITLED, StoryFolder, check_target, make_title
from seedstory.story_record import cast_and_plan

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Illustrated stories from a sentence, a picture or both.",
)


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
    cast: Cast = None,
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
    like: Annotated[
        Path | None,
        typer.Option(
            help="A story (folder or story.json) to make once more, to the same bytes on the same kind of machine.",
            rich_help_panel=OPENING,
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
    out: NewFolder = None,
    overwrite: Overwrite = False,
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
    reference: Annotated[
        bool,
        typer.Option(
            "--reference", help="As SEED-Story's own script, bugs included, to compare.", rich_help_panel=WORDS
        ),
    ] = StorySettings.reference,
    steps: Steps = StorySettings.num_inference_steps,
    guidance: Guidance = StorySettings.guidance_scale,
    scheduler: Scheduler = StorySettings.scheduler,
    guidance_interval: GuidanceInterval = StorySettings.guidance_interval,
    fast_images: FastImages = False,
    rendering: When = Rendering.rendering,
    render_batch: RenderBatch = Rendering.render_batch,
    model: Model = "mini",
    policy: Policy = StorySettings.policy,
    int8: Int8 = False,
    memory: Memory = "",
    decoding: Decoding = "auto",
    device: Device = None,
) -> None:
    """Write and draw a story, and make a book of it.

    **Examples**

    seedstory generate --text "Mia the fox found a golden key."

    seedstory generate --image drawing.jpg --pages 6 --seed 7 --out stories/drawing

    seedstory generate --text "Tom the frog woke up." --captions script.txt

    seedstory generate --text "Mia found a map." --cast "Mia: fox, red coat" --plan plan.txt

    seedstory generate --like stories/drawing/story.json --out stories/again

    seedstory generate --text "Ida the owl set out." --pages 60 --max-sentences 2 --no-repeat-ngram-size 12

    seedstory generate --text "Ida the owl set out." --temperature 0.9 --top-p 1 --min-p 0.1 --stop "The end."
    """
    with reported_errors():
        if like is not None:
            if text is not None or image is not None or captions is not None:
                raise RequestError("a story to repeat has its opening: leave text, image and captions out")
            drawing = Rendering(rendering, render_batch)
            _repeat(
                like, out, drawing=drawing, decoding=decoding, device=device, memory=memory, fast_images=fast_images
            )
            return
        script = read_lines(captions) if captions is not None else None
        lines = read_lines(plan) if plan is not None else None
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
            scheduler=scheduler,
            guidance_interval=guidance_interval,
            policy=policy,
            captions=script,
            story_state=story_state,
            cast=read_cast(cast or []),
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
            reference=reference,
        )
        _start(
            settings,
            image=image,
            title=title,
            language=language,
            out=out,
            overwrite=overwrite,
            drawing=Rendering(rendering, render_batch),
            model=model,
            int8=int8,
            memory=memory,
            decoding=decoding,
            device=device,
            fast_images=fast_images,
        )


@app.command()
def visualize(
    script: Annotated[
        Path,
        typer.Argument(
            metavar="SCRIPT", help="Your words: .txt, .md (a paragraph a page) or .jsonl.", show_default=False
        ),
    ],
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="Picture of page 1.", rich_help_panel=OPENING)
    ] = None,
    cast: Cast = None,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.", rich_help_panel=BOOK)] = 0,
    title: Annotated[
        str | None, typer.Option(help="Title. [default: the script's first heading]", rich_help_panel=BOOK)
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the words, such as de. [default: guessed]", rich_help_panel=BOOK)
    ] = None,
    out: NewFolder = None,
    overwrite: Overwrite = False,
    steps: Steps = StorySettings.num_inference_steps,
    guidance: Guidance = StorySettings.guidance_scale,
    scheduler: Scheduler = StorySettings.scheduler,
    guidance_interval: GuidanceInterval = StorySettings.guidance_interval,
    fast_images: FastImages = False,
    rendering: When = Rendering.rendering,
    render_batch: RenderBatch = Rendering.render_batch,
    model: Model = "mini",
    policy: Policy = StorySettings.policy,
    int8: Int8 = False,
    memory: Memory = "",
    decoding: Decoding = "auto",
    device: Device = None,
) -> None:
    """Draw your own script: every paragraph becomes a page with a picture.

    **Examples**

    seedstory visualize script.md

    seedstory visualize pages.jsonl --title "The lamp" --seed 3 --out stories/lamp
    """
    with reported_errors():
        from seedstory.script import read_script

        words = read_script(script)
        settings = StorySettings(
            text=words.captions[0],
            image_name=image.name if image is not None else None,
            pages=len(words.captions),
            seed=seed,
            captions=list(words.captions[1:]),
            facts=list(words.facts) or None,
            cast=read_cast(cast or []),
            num_inference_steps=steps,
            guidance_scale=guidance,
            scheduler=scheduler,
            guidance_interval=guidance_interval,
            policy=policy,
        )
        _start(
            settings,
            image=image,
            title=title or words.title or None,
            language=language,
            out=out,
            overwrite=overwrite,
            drawing=Rendering(rendering, render_batch),
            model=model,
            int8=int8,
            memory=memory,
            decoding=decoding,
            device=device,
            fast_images=fast_images,
        )


editing.register(app)
serving.register(app)
app.command()(export)
app.command()(doctor)
app.add_typer(convert.app, name="convert")


@app.command()
def info(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A story folder.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(help="'mini', a model folder or a Hub id.")] = "mini",
) -> None:
    """Print versions, model and device; or what a story folder holds: its model, cast, plan and facts.

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


def _start(
    settings: StorySettings,
    *,
    image: Path | None,
    title: str | None,
    language: str | None,
    out: Path | None,
    overwrite: bool,
    drawing: Rendering,
    model: str,
    int8: bool,
    memory: str,
    decoding: str,
    device: str | None,
    fast_images: bool,
) -> None:
    """Generates a new story, once all that can be checked without a model is."""
    title = check_text(title, "the title") if title is not None else None
    if language is not None:
        check_language(language)
    if image is not None:
        from seedstory.image import load_image

        load_image(image)  # a bad picture is found before the model is loaded
    if out is None:
        name = image.stem if image is not None else ""
        out = free_folder(Path("stories"), title or make_title(settings.text or name))
    check_target(out, overwrite=overwrite)
    check_writable(out)
    quantization = "int8" if int8 else ""
    pipe = load_pipeline(
        model, device, quantization=quantization, decoding=decoding, memory=memory, fast_images=fast_images
    )
    screen = StoryScreen(settings.pages)
    options: dict[str, Any] = asdict(settings) | asdict(drawing)
    del options["image_name"]  # the picture itself is handed over
    options["language"] = language
    generated = pipe.stream(
        image=image, title=title, out=out, overwrite=overwrite, callback_on_text=screen.show_text, **options
    )
    run_generation(generated, out, screen)


def _repeat(
    like: Path,
    out: Path | None,
    *,
    drawing: Rendering,
    decoding: str,
    device: str | None,
    memory: str,
    fast_images: bool,
) -> None:
    """Makes a story once more."""
    from seedstory.story_editor import StoryEditor

    source = StoryFolder.open(like.parent if like.name == "story.json" else like)
    if out is None:
        out = free_folder(Path("stories"), source.title)
    check_writable(out)
    check_memory(memory)
    StoryEditor(source).repeat(out)
    finish_story(
        out,
        rendering=drawing.rendering,
        render_batch=drawing.render_batch,
        decoding=decoding,
        device=device,
        memory=memory,
        fast_images=fast_images,
    )


def _print_story(story: StoryFolder) -> None:
    """What a story is; then its cast, its plan and the facts of its pages, with their numbers."""
    model = story.model
    rows = {
        "title": story.title or UNTITLED,
        "pages": f"{len(story)} of {story.settings.pages}",
        "seed": str(story.settings.seed),
        "model": f"{model.name or '(unnamed)'} ({model.dtype or 'no type'}, fingerprint {model.fingerprint[:12]})",
    }
    for key, value in rows.items():
        typer.echo(f"{key:<7}{value}")
    cast, plan = cast_and_plan(story.entries)
    characters = [f"  {name}: {look}" for name, look in cast.items()]
    notes = [
        f"{number:>4}  {'; '.join(f'{name}: {text}' for name, text in entry.facts.items())}"
        for number, entry in enumerate(story.entries, 1)
        if entry.facts
    ]
    planned = [f"{number:>4}  {line}" for number, line in plan]
    for heading, lines in (("cast", characters), ("plan", planned), ("facts", notes)):
        if lines:
            typer.echo("\n".join([heading, *lines]))


if __name__ == "__main__":
    main()
