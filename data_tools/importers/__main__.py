"""Imports picture books, comics, films and benchmarks: `python -m data_tools.importers --help`."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_tools.command import Out, Running, Split, application, command
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

Format = Annotated[ImageFormat, typer.Option("--format", help="File format of images that are cut out or rendered.")]
Side = Annotated[int, typer.Option(help="Longer side of the images in px.", min=64, max=4096)]
TextFirst = Annotated[bool, typer.Option(help="A page of text belongs to the image after it, not before it.")]


@dataclass(frozen=True, kw_only=True)
class Import(Running):
    """What every importer is asked for: where to read and write, and facts for stories that do not state theirs."""

    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Files, or folders that hold them.")]
    out: Out
    split: Split = "train"
    license: Annotated[str, typer.Option(help="License of stories that state none, such as 'CC-BY 4.0'.")] = ""
    credit: Annotated[str, typer.Option(help="Who made the stories that do not name anyone.")] = ""
    language: Annotated[str, typer.Option(help="Language of stories that state none, such as 'en'.")] = ""
    source_repo: Annotated[str, typer.Option(help="Where the stories come from, for the record.")] = ""

    def run(self, convert: Convert, find: Callable[[], list[Source]], format: ImageFormat = "jpg") -> None:
        """Imports what `find` finds, and prints what became of it."""
        facts = Metadata(
            license=self.license or None,
            credit=self.credit or None,
            language=self.language or None,
            source_repo=self.source_repo or None,
        )
        target = Target(self.out, self.split, format, facts)
        for path in self.sources:
            if self.out.resolve().is_relative_to(path.resolve()):
                raise ValueError(f"--out {self.out} lies in the source {path}: choose a folder elsewhere")
        sources, label = find(), f"importing {self.split}"
        count, tally = run_import(convert, sources, target, engine=self.engine, workers=self.workers, label=label)
        console = Console(soft_wrap=True, highlight=False, markup=False)
        console.print(f"{count} stories of {len(sources)} sources: {self.out / f'{self.split}.jsonl'}")
        tally.show()
        if not count:
            raise typer.Exit(1)


@dataclass(frozen=True, kw_only=True)
class BenchmarkImport(Import):
    """The options of a benchmark, whose stories all state their language."""

    split: Split = "test"
    language: str = field(default="", init=False)


@command
def books(
    *,
    images: Annotated[
        list[Path] | None, typer.Option(help="Where African Storybook's images are, the best folder first.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only books in folders of this name, such as 'en'.")] = None,
    shared: Import,
) -> None:
    """Import picture books that are folders of pages with Markdown or text.

    Example: python -m data_tools.importers books asp-source --images asp-imagebank --only en --out data/asp

    Reads the repositories of African Storybook and Book Dash as they are. Also reads folders with one text for each
    image, or with one text whose pages are separated by lines of '##' or '---'.
    """
    shared.run(book_importer.convert, lambda: book_importer.find(shared.sources, images or [], only))


@command
def epub(*, text_first: TextFirst = False, shared: Import) -> None:
    """Import EPUB picture books.

    Example: python -m data_tools.importers epub books/ --license 'CC-BY 4.0' --out data/books
    """
    shared.run(partial(epub_importer.convert, text_first=text_first), lambda: epub_importer.find(shared.sources))


@command
def pdf(
    *,
    side: Side = 1024,
    keep_text: Annotated[bool, typer.Option(help="Render pages with the text on them.")] = False,
    text_first: TextFirst = False,
    format: Format = "jpg",
    shared: Import,
) -> None:
    """Import PDF picture books: the images without the text on them, and the text.

    Example: python -m data_tools.importers pdf books/ --license 'CC-BY 4.0' --out data/books
    """
    convert = partial(pdf_importer.convert, side=side, keep_text=keep_text, text_first=text_first)
    shared.run(convert, lambda: pdf_importer.find(shared.sources), format)


@command
def comics(
    *,
    right_to_left: Annotated[bool, typer.Option(help="Read panels from right to left.")] = False,
    whole: Annotated[bool, typer.Option(help="Keep pages whole.")] = False,
    gutter: Annotated[float, typer.Option(help="Least width of a gutter, as a share of the shorter side.")] = 0.006,
    tolerance: Annotated[int, typer.Option(help="How far a gutter's pixels may be from its color, of 255.")] = 32,
    format: Format = "jpg",
    shared: Import,
) -> None:
    """Import comics: CBZ files or folders of page images, cut into panels in reading order.

    Example: python -m data_tools.importers comics episodes/ --license 'CC-BY 4.0' --out data/comics
    """
    settings = PanelSettings(right_to_left=right_to_left, gutter=gutter, tolerance=tolerance)
    convert = partial(comic_importer.convert, settings=settings, whole=whole)
    shared.run(convert, lambda: comic_importer.find(shared.sources), format)


@command
def video(
    *,
    subtitles: Annotated[
        Path | None, typer.Option(help="Subtitles of the only film; else film.srt or film.en.vtt beside it.")
    ] = None,
    subtitle_kind: Annotated[
        video_importer.SubtitleKind, typer.Option(help="Which of several subtitle files to prefer.")
    ] = "full",
    encoding: Annotated[
        str, typer.Option(help="Encoding of the subtitles, such as 'cp1252'; UTF-16 is recognized.")
    ] = "utf-8-sig",
    pages: Annotated[int, typer.Option(help="Length of a story.", min=1)] = 30,
    min_pages: Annotated[int, typer.Option(help="A shorter rest of a film is left out.", min=1)] = 5,
    side: Side = 1024,
    max_seconds: Annotated[float, typer.Option(help="Longer shots are split.")] = 8.0,
    distinct: Annotated[float, typer.Option(help="How far a keyframe must be from the one before, of 255.")] = 10.0,
    format: Format = "jpg",
    shared: Import,
) -> None:
    """Import films with subtitles: one sharp keyframe per shot, with what is said while it is seen.

    Example: python -m data_tools.importers video films/ --license 'CC-BY 3.0' --pages 30 --out data/films
    """
    settings = ShotSettings(max_seconds=max_seconds, distinct=distinct)
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise ValueError(f"--encoding: {error}") from None
    convert = partial(
        video_importer.convert, pages=pages, min_pages=min_pages, side=side, encoding=encoding, settings=settings
    )
    find = partial(video_importer.find, shared.sources, subtitles, shared.language or None, subtitle_kind)
    shared.run(convert, find, format)


@command
def vistory(
    *,
    images: Annotated[
        Path | None, typer.Option(help="A method's outputs, OUTPUTS/STORY/shots/shot_01.png; the shots become pages.")
    ] = None,
    script: Annotated[vistory_importer.Language, typer.Option(help="Language of the script.")] = "en",
    shared: BenchmarkImport,
) -> None:
    """Import ViStoryBench: its scripts with the characters' reference images, or with images that a method made.

    Example: python -m data_tools.importers vistory ViStory/ --license MIT --out data/vistory
    """
    convert = partial(vistory_importer.convert, language=script, shots=images is not None)
    shared.run(convert, lambda: vistory_importer.find(shared.sources, images))


@command
def storystream(
    *,
    images: Annotated[Path | None, typer.Option(help="Where paths of images start; else beside their file.")] = None,
    prefix: Annotated[str, typer.Option(help="Goes before each id, in case another data set has the same ids.")] = "",
    shared: Import,
) -> None:
    """Import data set folders and the released StoryStream files, which have the layout already.

    Example: python -m data_tools.importers storystream george/train.jsonl --split george --prefix george- --out data
    """
    convert = partial(storystream_importer.convert, prefix=prefix)
    shared.run(convert, lambda: storystream_importer.find(shared.sources, images))


app = application(
    books,
    epub,
    pdf,
    comics,
    video,
    vistory,
    storystream,
    help="Make a data set folder, OUT/SPLIT.jsonl and OUT/images, of picture books, comics, films or ViStoryBench.\n\n"
    "A killed run resumes. What cannot be read is counted and listed in OUT/drops.jsonl.",
)

if __name__ == "__main__":
    app()
