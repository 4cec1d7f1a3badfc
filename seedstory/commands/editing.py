"""Verbs that change a story: each is one step that `undo` takes back, and then makes the pages that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from seedstory.commands.running import (
    BOOK,
    IMAGES,
    MODEL,
    OPENING,
    WORDS,
    Decoding,
    Device,
    FastImages,
    Folder,
    Memory,
    OtherModel,
    RecordedModel,
    RenderBatch,
    When,
    finish_story,
    read_cast,
    read_facts,
    read_lines,
    write_book,
)
from seedstory.error_reporting import reported_errors
from seedstory.errors import RequestError
from seedstory.io import exclusive_writer
from seedstory.memory.modes import check_memory
from seedstory.rendering import Rendering
from seedstory.settings import SCHEDULERS
from seedstory.story import StoryFolder
from seedstory.story_editor import FOLLOWING, StoryEditor

PageNumber = Annotated[int, typer.Argument(metavar="PAGE", help="Number of the page, from 1.", show_default=False)]
Following = Annotated[
    str,
    typer.Option(
        help=f"What becomes of the pages after it ({', '.join(FOLLOWING)}): they stay, get new pictures, or new words "
        "and pictures.",
        rich_help_panel=BOOK,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of what is made anew. [default: a new one]", rich_help_panel=BOOK)]
Later = Annotated[
    bool, typer.Option("--later", help="Only note it; `seedstory continue` makes the pages.", rich_help_panel=MODEL)
]


def continue_story(
    folder: Folder,
    pages: Annotated[
        int | None, typer.Option("--pages", "-n", help="Pages in all. [default: as before]", rich_help_panel=BOOK)
    ] = None,
    after: Annotated[
        int | None, typer.Option(help="Write anew all that follows this page.", rich_help_panel=BOOK)
    ] = None,
    seed: Seed = None,
    model: RecordedModel = None,
    rendering: When = Rendering.rendering,
    render_batch: RenderBatch = Rendering.render_batch,
    fast_images: FastImages = False,
    decoding: Decoding = "auto",
    device: Device = None,
    memory: Memory = "",
    allow_other_model: OtherModel = False,
) -> None:
    """Go on with a story: after an interruption as if there had been none, past its end, or anew from a page on.

    **Examples**

    seedstory continue stories/drawing

    seedstory continue stories/drawing --pages 15

    seedstory continue stories/drawing --after 6 --seed 3
    """
    with reported_errors():
        if after is not None:
            StoryEditor(folder).rewrite_after(after - 1, seed=seed, pages=pages)
        elif pages is not None:
            StoryEditor(folder).extend(pages, seed=seed)
        elif seed is not None:
            raise RequestError("a seed is for new pages: give --pages or --after, too")
        finish_story(
            folder,
            model=model,
            rendering=rendering,
            render_batch=render_batch,
            decoding=decoding,
            device=device,
            memory=memory,
            allow_other_model=allow_other_model,
            fast_images=fast_images,
        )


def redo(
    folder: Folder,
    page: PageNumber,
    caption: Annotated[str | None, typer.Option(help="New words for the page.", rich_help_panel=WORDS)] = None,
    keep_caption: Annotated[
        bool, typer.Option("--keep-caption", help="Keep its words: a new picture alone.", rich_help_panel=WORDS)
    ] = False,
    following: Following = "keep",
    seed: Seed = None,
    temperature: Annotated[
        float | None, typer.Option(help="For this page. [default: the story's]", rich_help_panel=WORDS)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--num-inference-steps", "--steps", help="Diffusion steps of its picture.", rich_help_panel=IMAGES
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance-scale", "--guidance", help="Guidance of its picture.", rich_help_panel=IMAGES),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help=f"Scheduler of its picture: {', '.join(SCHEDULERS)}.", rich_help_panel=IMAGES),
    ] = None,
    fast_images: FastImages = False,
    model: RecordedModel = None,
    decoding: Decoding = "auto",
    device: Device = None,
    memory: Memory = "",
    allow_other_model: OtherModel = False,
    later: Later = False,
) -> None:
    """Make a page anew. The other pages stay, unless `--following` says otherwise.

    **Examples**

    seedstory redo stories/drawing 3

    seedstory redo stories/drawing 3 --keep-caption --seed 4

    seedstory redo stories/drawing 3 --caption "Mia met a frog." --following rewrite
    """
    own = {
        "temperature": temperature,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "scheduler": scheduler,
    }
    settings = {name: value for name, value in own.items() if value is not None}

    def change(editor: StoryEditor) -> None:
        editor.redo(page - 1, caption=caption, keep_caption=keep_caption, seed=seed, following=following, **settings)

    loading = {"model": model, "decoding": decoding, "device": device, "memory": memory, "fast_images": fast_images}
    _change(folder, change, later, loading | {"allow_other_model": allow_other_model})


def edit(
    folder: Folder,
    page: Annotated[
        int | None, typer.Argument(metavar="[PAGE]", help="Number of the page, from 1.", show_default=False)
    ] = None,
    caption: Annotated[str | None, typer.Option(help="New words for the page.", rich_help_panel=WORDS)] = None,
    redraw: Annotated[
        bool, typer.Option("--redraw/--no-redraw", help="Draw the page anew from them.", rich_help_panel=IMAGES)
    ] = True,
    following: Following = "keep",
    alt: Annotated[
        str | None, typer.Option(help="Description of its picture, for those who cannot see it.", rich_help_panel=WORDS)
    ] = None,
    lock: Annotated[
        bool | None,
        typer.Option(
            "--lock/--unlock",
            help="Whether the page stays as it is whatever else is changed.",
            rich_help_panel=BOOK,
            show_default=False,
        ),
    ] = None,
    to: Annotated[int | None, typer.Option(help="Move the page to this place.", rich_help_panel=BOOK)] = None,
    title: Annotated[str | None, typer.Option(help="New title of the story.", rich_help_panel=BOOK)] = None,
    cast: Annotated[
        list[str] | None,
        typer.Option(
            help="A character and its look from PAGE on, such as 'Mia: fox, red coat'; may be repeated.",
            rich_help_panel=OPENING,
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="A new plan from PAGE on: a text file, a line a page.", rich_help_panel=OPENING),
    ] = None,
    fact: Annotated[
        list[str] | None,
        typer.Option(
            help="A note on the page, such as place='the meadow'; an empty one goes. May be repeated.",
            rich_help_panel=BOOK,
            show_default=False,
        ),
    ] = None,
    fast_images: FastImages = False,
    model: RecordedModel = None,
    decoding: Decoding = "auto",
    device: Device = None,
    memory: Memory = "",
    allow_other_model: OtherModel = False,
    later: Later = False,
) -> None:
    """Change a page's words, place, lock, facts or description, the story's title, or its cast and plan.

    **Examples**

    seedstory edit stories/drawing 3 --caption "Mia met a frog in a green vest."

    seedstory edit stories/drawing 3 --caption "Mia met a frog." --following rewrite

    seedstory edit stories/drawing 5 --to 3

    seedstory edit stories/drawing 3 --fact place="the meadow" --fact who="Mia, Tom"

    seedstory edit stories/drawing --title "The green frog"

    seedstory edit stories/drawing 2 --cast "Mia: fox, blue coat" --following redraw
    """
    changes: list[Callable[[StoryEditor], Any]] = []
    if title is not None:
        changes.append(lambda editor: editor.rename(title))
    if page is not None:
        index = page - 1
        if lock is False:
            changes.append(lambda editor: editor.lock(index, False))
        if alt is not None:
            changes.append(lambda editor: editor.describe(index, alt))
        if fact:
            changes.append(lambda editor: editor.set_facts(index, read_facts(fact)))
        if caption is not None:
            changes.append(lambda editor: editor.edit(index, caption, redraw=redraw, following=following))
        if cast or plan is not None:
            changes.append(
                lambda editor: editor.set_state(
                    index,
                    cast=read_cast(cast or []),
                    plan=None if plan is None else read_lines(plan),
                    following=following,
                )
            )
        if lock:
            changes.append(lambda editor: editor.lock(index))
        if to is not None:
            changes.append(lambda editor: editor.move(index, to - 1))

    def change(editor: StoryEditor) -> None:
        if not changes:
            raise RequestError("nothing to change: give a title; or a page, and what becomes of it (see --help)")
        for one in changes:
            one(editor)

    loading = {"model": model, "decoding": decoding, "device": device, "memory": memory, "fast_images": fast_images}
    _change(folder, change, later, loading | {"allow_other_model": allow_other_model})


def insert(
    folder: Folder,
    page: Annotated[
        int, typer.Argument(metavar="PAGE", help="Number that the new page will have, from 2.", show_default=False)
    ],
    caption: Annotated[
        str | None, typer.Option(help="Its words. [default: the model's]", rich_help_panel=WORDS)
    ] = None,
    seed: Seed = None,
    fast_images: FastImages = False,
    model: RecordedModel = None,
    decoding: Decoding = "auto",
    device: Device = None,
    memory: Memory = "",
    allow_other_model: OtherModel = False,
    later: Later = False,
) -> None:
    """Put a new page into a story. The other pages stay as they are.

    **Example**: seedstory insert stories/drawing 4 --caption "It began to rain."
    """

    def change(editor: StoryEditor) -> None:
        editor.insert(page - 1, caption=caption, seed=seed)

    loading = {"model": model, "decoding": decoding, "device": device, "memory": memory, "fast_images": fast_images}
    _change(folder, change, later, loading | {"allow_other_model": allow_other_model})


def remove(folder: Folder, page: PageNumber) -> None:
    """Take a page out of a story. The other pages stay as they are.

    **Example**: seedstory remove stories/drawing 4
    """
    with reported_errors():
        StoryEditor(folder).remove(page - 1)
        _report(folder)


def branch(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="NEW", help="Folder of the copy.", show_default=False)],
    pages: Annotated[
        int | None, typer.Option("--pages", "-n", help="Copy so many first pages. [default: all]", rich_help_panel=BOOK)
    ] = None,
    seed: Seed = None,
) -> None:
    """Copy a story, or its beginning, to go on with in another way.

    **Example**: seedstory branch stories/drawing stories/other-end --pages 6
    """
    with reported_errors():
        StoryEditor(folder).branch(out, pages=pages, seed=seed)
        _report(out)


def undo(
    folder: Folder,
    forward: Annotated[bool, typer.Option("--forward", help="Make the change again that was taken back.")] = False,
) -> None:
    """Take the last change of a story back; pages that it replaced come back as they were.

    **Examples**

    seedstory undo stories/drawing

    seedstory undo stories/drawing --forward
    """
    with reported_errors():
        StoryEditor(folder).undo(forward=forward)
        _report(folder)


def _change(folder: Path, change: Callable[[StoryEditor], Any], later: bool, loading: dict[str, Any]) -> None:
    """Makes a change, and then the pages that it asks for; `finish_story` says what `loading` may hold."""
    with reported_errors():
        check_memory(loading["memory"])
        change(StoryEditor(folder))
        if later or StoryFolder.open(folder).is_complete:
            _report(folder)
        else:
            finish_story(folder, **loading)


def _report(folder: Path) -> None:
    """Writes the book of a story as it now is, and says what is still to be made."""
    with exclusive_writer(folder):
        book = write_book(folder)
    story = StoryFolder.open(folder)
    open_pages = [str(number) for number, entry in enumerate(story.entries, 1) if not entry.is_drawn]
    missing = list(map(str, range(len(story) + 1, story.settings.pages + 1)))
    waiting = ", ".join(open_pages + missing)
    typer.echo(f"The book: {book}" + (f"; still to be made: page {waiting}" if waiting else ""))


def register(app: typer.Typer) -> None:
    """Adds the verbs to a command."""
    app.command("continue")(continue_story)
    app.command("resume", hidden=True)(continue_story)  # what `continue` was called before
    for verb in (redo, edit, insert, remove, branch, undo):
        app.command()(verb)
