"""Imports picture books, comics, films and benchmarks: `python -m data_tools.importers --help`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from data_tools.engine import Engine
from data_tools.importers import books as book_importer
from data_tools.importers import comics as comic_importer
from data_tools.importers import epub as epub_importer
from data_tools.importers import pdf as pdf_importer
from data_tools.importers import storystream as storystream_importer
from data_tools.importers import video as video_importer
from data_tools.importers import vistory as vistory_importer
from data_tools.importers.panels import PanelSettings
from data_tools.importers.run_import import Convert, ImageFormat, Metadata, Source, Target, run_import
from data_tools.importers.shots import ShotSettings

T = TypeVar("T")

app = typer.Typer(
    help="Make a data set folder, OUT/SPLIT.jsonl and OUT/images, of picture books, comics, films or ViStoryBench.\n\n"
    "A run that was killed goes on where it stopped. What could not be read is counted, and listed in OUT/drops.jsonl.",
    no_args_is_help=True,
    add_completion=False,
)

Sources = Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Files, or folders that hold them.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the data set; made where it is missing.")]
Split = Annotated[str, typer.Option(help="Name of the JSON Lines file.")]
License = Annotated[str, typer.Option(help="License of stories that do not name theirs, such as 'CC-BY 4.0'.")]
Credit = Annotated[str, typer.Option(help="Who made stories that do not say so.")]
Language = Annotated[str, typer.Option(help="Language of stories that do not say theirs, such as 'en'.")]
Origin = Annotated[str, typer.Option("--source-repo", help="Where the stories come from, for the record.")]
Format = Annotated[ImageFormat, typer.Option("--format", help="File format of pictures cut out or rendered here.")]
Where = Annotated[Engine, typer.Option("--engine", help="Where to work: this process, local processes, or Ray.")]
Workers = Annotated[int | None, typer.Option(help="How many at the same time (default: one per core).", min=1)]
Side = Annotated[int, typer.Option(help="Longer side of the pictures in px.", min=64, max=4096)]
TextFirst = Annotated[bool, typer.Option(help="A page of text belongs to the picture after it, not before it.")]
OneOf = Annotated[str | None, typer.Option("--only", help="Only books in folders of this name, such as 'en'.")]


@app.command()
def books(
    sources: Sources,
    out: Out,
    split: Split = "train",
    images: Annotated[
        list[Path] | None, typer.Option(help="Where African Storybook's pictures are, the best folder first.")
    ] = None,
    only: OneOf = None,
    license: License = "",
    credit: Credit = "",
    language: Language = "",
    source_repo: Origin = "",
    engine: Where = "inline",
    workers: Workers = None,
) -> None:
    """Picture books as folders of pages with Markdown or text.

    Example: python -m data_tools.importers books asp-source --images asp-imagebank --only en --out data/asp

    African Storybook's and Book Dash's repositories are read as they are.
    So are folders with one text for each picture, or with one text whose
    pages are parted by lines of '##' or '---'.
    """
    target = _target(out, split, license, credit, language, source_repo)
    _run(
        book_importer.convert,
        lambda: book_importer.find(sources, images or [], only),
        sources,
        target,
        engine,
        workers,
    )


@app.command()
def epub(
    sources: Sources,
    out: Out,
    split: Split = "train",
    text_first: TextFirst = False,
    license: License = "",
    credit: Credit = "",
    language: Language = "",
    source_repo: Origin = "",
    engine: Where = "inline",
    workers: Workers = None,
) -> None:
    """EPUB picture books.

    Example: python -m data_tools.importers epub books/ --license 'CC-BY 4.0' --out data/books
    """
    target = _target(out, split, license, credit, language, source_repo)
    convert = partial(epub_importer.convert, text_first=text_first)
    _run(convert, lambda: epub_importer.find(sources), sources, target, engine, workers)


@app.command()
def pdf(
    sources: Sources,
    out: Out,
    split: Split = "train",
    side: Side = 1024,
    keep_text: Annotated[bool, typer.Option(help="Render pages with the text on them.")] = False,
    text_first: TextFirst = False,
    format: Format = "jpg",
    license: License = "",
    credit: Credit = "",
    language: Language = "",
    source_repo: Origin = "",
    engine: Where = "inline",
    workers: Workers = None,
) -> None:
    """PDF picture books: the pictures without the text on them, and the text.

    Example: python -m data_tools.importers pdf books/ --license 'CC-BY 4.0' --out data/books
    """
    target = _target(out, split, license, credit, language, source_repo, format)
    convert = partial(pdf_importer.convert, side=side, keep_text=keep_text, text_first=text_first)
    _run(convert, lambda: pdf_importer.find(sources), sources, target, engine, workers)


@app.command()
def comics(
    sources: Sources,
    out: Out,
    split: Split = "train",
    right_to_left: Annotated[bool, typer.Option(help="Read panels from right to left.")] = False,
    whole: Annotated[bool, typer.Option(help="Keep pages whole.")] = False,
    gutter: Annotated[float, typer.Option(help="Least width of a gutter, as a share of the shorter side.")] = 0.006,
    tolerance: Annotated[int, typer.Option(help="How far a gutter's pixels may be from its color, of 255.")] = 32,
    format: Format = "jpg",
    license: License = "",
    credit: Credit = "",
    language: Language = "",
    source_repo: Origin = "",
    engine: Where = "inline",
    workers: Workers = None,
) -> None:
    """Comics, as CBZ files or folders of page images, cut into panels in reading order.

    Example: python -m data_tools.importers comics episodes/ --license 'CC-BY 4.0' --out data/comics
    """
    target = _target(out, split, license, credit, language, source_repo, format)
    settings = _checked(lambda: PanelSettings(right_to_left=right_to_left, gutter=gutter, tolerance=tolerance))
    convert = partial(comic_importer.convert, settings=settings, whole=whole)
    _run(convert, lambda: comic_importer.find(sources), sources, target, engine, workers)


@app.command()
def video(
    sources: Sources,
    out: Out,
    split: Split = "train",
    subtitles: Annotated[
        Path | None, typer.Option(help="Subtitles of the one film; else film.srt or film.en.vtt beside it.")
    ] = None,
    subtitle_kind: Annotated[
        video_importer.SubtitleKind, typer.Option(help="Which of several subtitles beside a film to take first.")
    ] = "full",
    encoding: Annotated[
        str, typer.Option(help="How subtitles are encoded, such as 'cp1252'; UTF-16 is known by itself.")
    ] = "utf-8-sig",
    pages: Annotated[int, typer.Option(help="Length of a story.", min=1)] = 30,
    min_pages: Annotated[int, typer.Option(help="A shorter rest of a film is left out.", min=1)] = 5,
    side: Side = 1024,
    max_seconds: Annotated[float, typer.Option(help="Longer shots are parted.")] = 8.0,
    distinct: Annotated[float, typer.Option(help="How far a keyframe must be from the one before, of 255.")] = 10.0,
    format: Format = "jpg",
    license: License = "",
    credit: Credit = "",
    language: Language = "",
    source_repo: Origin = "",
    engine: Where = "inline",
    workers: Workers = None,
) -> None:
    """Films with subtitles: one sharp keyframe per shot, with what is said while it is seen.

    Example: python -m data_tools.importers video films/ --license 'CC-BY 3.0' --pages 30 --out data/films
    """
    target = _target(out, split, license, credit, language, source_repo, format)
    settings = _checked(lambda: ShotSettings(max_seconds=max_seconds, distinct=distinct))
    _checked(lambda: "".encode(encoding))
    convert = partial(
        video_importer.convert, pages=pages, min_pages=min_pages, side=side, encoding=encoding, settings=settings
    )

    def find() -> list[Source]:
        return video_importer.find(sources, subtitles, language or None, subtitle_kind)

    _run(convert, find, sources, target, engine, workers)


@app.command()
def vistory(
    sources: Sources,
    out: Out,
    split: Split = "test",
    images: Annotated[
        Path | None, typer.Option(help="What a method made: OUTPUTS/STORY/shots/shot_01.png. Pages are then the shots.")
    ] = None,
    script: Annotated[vistory_importer.Language, typer.Option(help="Language of the script.")] = "en",
    license: License = "",
    credit: Credit = "",
    source_repo: Origin = "",
    engine: Where = "inline",
    workers: Workers = None,
) -> None:
    """ViStoryBench: its scripts with the characters' references, or with the pictures that a method made.

    Example: python -m data_tools.importers vistory ViStory/ --license MIT --out data/vistory
    """
    target = _target(out, split, license, credit, "", source_repo)
    convert = partial(vistory_importer.convert, language=script, shots=images is not None)
    _run(convert, lambda: vistory_importer.find(sources, images), sources, target, engine, workers)


@app.command()
def storystream(
    sources: Sources,
    out: Out,
    split: Split = "train",
    prefix: Annotated[str, typer.Option(help="What to put before ids, where another data set has the same.")] = "",
    license: License = "",
    credit: Credit = "",
    language: Language = "",
    source_repo: Origin = "",
    engine: Where = "inline",
    workers: Workers = None,
) -> None:
    """Stories that have the layout already: other data set folders, and the released StoryStream files.

    Example: python -m data_tools.importers storystream george/train.jsonl --split george --prefix george- --out data
    """
    target = _target(out, split, license, credit, language, source_repo)
    convert = partial(storystream_importer.convert, prefix=prefix)
    _run(convert, lambda: storystream_importer.find(sources), sources, target, engine, workers)


def _target(
    out: Path, split: str, license: str, credit: str, language: str, origin: str, format: ImageFormat = "jpg"
) -> Target:
    said = {"license": license, "credit": credit, "language": language, "source_repo": origin}
    return _checked(lambda: Target(out, split, format, Metadata(**{key: value or None for key, value in said.items()})))


def _run(
    convert: Convert,
    find: Callable[[], list[Source]],
    paths: list[Path],
    target: Target,
    engine: Engine,
    workers: int | None,
) -> None:
    for path in paths:
        if target.out.resolve().is_relative_to(path.resolve()):
            raise typer.BadParameter(f"--out {target.out} lies in the source {path}: choose a folder elsewhere")
    sources = _checked(find)
    label = f"importing {target.split}"
    count, tally = _checked(lambda: run_import(convert, sources, target, engine=engine, workers=workers, label=label))
    console = Console()
    name = target.out / f"{target.split}.jsonl"
    console.print(f"{count} stories of {len(sources)} sources: {name}", markup=False, highlight=False, soft_wrap=True)
    tally.show(console)
    if not count:
        raise typer.Exit(1)


def _checked(make: Callable[[], T]) -> T:
    try:
        return make()
    except (ValueError, LookupError) as error:
        raise typer.BadParameter(str(error)) from None


if __name__ == "__main__":
    app()
