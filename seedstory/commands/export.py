"""`seedstory export`: a story folder becomes a book."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from seedstory.error_reporting import reported_errors
from seedstory.errors import RequestError
from seedstory.export import EXPORTS, get_writer
from seedstory.export.book import LAYOUTS, STYLES, BookDesign
from seedstory.io import exclusive_writer
from seedstory.story import StoryFolder


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The story folder.", show_default=False)],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", help=f"{', '.join(EXPORTS)}; may be given several times. [default: html]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; its ending says the format. [default: in the story folder]")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help=f"{' or '.join(LAYOUTS)}. [default: picture-book; comic for cbz]")
    ] = None,
    style: Annotated[str, typer.Option(help=f"Colors: {', '.join(STYLES)}.")] = "paper",
    balloons: Annotated[
        bool, typer.Option("--balloons", help="Comic: captions in balloons, not under panels.")
    ] = False,
    author: Annotated[str, typer.Option(help="Who is named on the title page.", show_default=False)] = "",
    license_name: Annotated[
        str, typer.Option("--license", help="The license that the book states.", show_default=False)
    ] = "",
    narration: Annotated[bool, typer.Option("--narration", help="mp4: read aloud by espeak-ng.")] = False,
    story_id: Annotated[str, typer.Option(help="vistorybench: number of the benchmark's story.")] = "01",
) -> None:
    """Make a book of a story: a web page, PDF, EPUB, CBZ, a film, or the layout of ViStoryBench.

    **Examples**

    seedstory export stories/drawing

    seedstory export stories/drawing --format pdf --format epub --author "Ann Lee" --license "CC BY 4.0"

    seedstory export stories/drawing --layout comic --balloons --out drawing.cbz

    seedstory export stories/drawing --format mp4 --narration
    """
    with reported_errors():
        names = list(dict.fromkeys(formats or [_format_of(out)]))
        writers = {name: get_writer(name) for name in names}
        if out is not None and len(names) > 1:
            raise RequestError("--out names one file: give one --format, or leave --out away")
        if narration and "mp4" not in names:
            raise RequestError("--narration belongs to a film: give --format mp4")
        design = BookDesign(
            layout=layout or ("comic" if balloons else LAYOUTS[0]),
            style=style,
            balloons=balloons,
            author=author,
            license=license_name,
        )
        comic = design if layout else BookDesign(**{**vars(design), "layout": "comic"})
        story = StoryFolder.open(folder)
        with contextlib.ExitStack() as stack:
            if out is None:
                stack.enter_context(exclusive_writer(folder))
                story.remove_leftovers()
            for name, write in writers.items():
                options: dict[str, Any] = {"design": comic if name == "cbz" else design}
                if name == "mp4":
                    options["narration"] = narration
                if name == "vistorybench":
                    options["story_id"] = story_id
                target = out or folder / EXPORTS[name].file_name
                written = write(story, target, **options)
                typer.echo(f"The book: {written}")


def _format_of(out: Path | None) -> str:
    """The format that a file's ending names; HTML where none is asked for."""
    if out is None:
        return "html"
    name = {"htm": "html"}.get(out.suffix.lower()[1:], out.suffix.lower()[1:])
    if name not in EXPORTS or EXPORTS[name].is_folder:
        raise RequestError(f"the ending of {out.name} names no format: give --format, one of {', '.join(EXPORTS)}")
    return name
