"""The command: `python -m data_tools.clean --help`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console

from data_tools.clean.rules import Rules
from data_tools.clean.steps import CleaningReport, clean
from data_tools.command import Data, Out, Running, Seed, application, command

_DEFAULT = Rules()


@command
def main(
    *,
    folder: Data,
    out: Out,
    license: Annotated[
        list[str] | None, typer.Option(help="An allowed license, such as CC-BY for all its versions. [default: all]")
    ] = None,
    language: Annotated[list[str] | None, typer.Option(help="An allowed language, such as en. [default: all]")] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Deal stories out anew, as in train=0.9. [default: as they are]")
    ] = None,
    group_by: Annotated[
        list[str] | None, typer.Option(help="A key whose stories of one value go to one split. [default: film]")
    ] = None,
    min_pages: Annotated[int, typer.Option(help="Least pages of a story.")] = _DEFAULT.min_pages,
    min_words: Annotated[int, typer.Option(help="Least words of a page.")] = _DEFAULT.min_words,
    max_words: Annotated[int, typer.Option(help="Most words of a page.")] = _DEFAULT.max_words,
    min_side: Annotated[int, typer.Option(help="Least width and height of a picture, px.")] = _DEFAULT.min_side,
    max_aspect: Annotated[float, typer.Option(help="Longer side by shorter side, at most.")] = _DEFAULT.max_aspect,
    letterbox: Annotated[
        Literal["crop", "drop", "keep"], typer.Option(help="What to do with bars around pictures.")
    ] = _DEFAULT.letterbox,
    text_cards: Annotated[
        Literal["drop", "keep"], typer.Option(help="What to do with pictures of nothing but text.")
    ] = _DEFAULT.text_cards,
    distance: Annotated[
        int, typer.Option(help="Bits of 256 by which copies of a picture may differ; -1 looks for none.")
    ] = _DEFAULT.distance,
    max_stories: Annotated[
        int, typer.Option(help="A picture in more stories than this is a publisher's card.")
    ] = _DEFAULT.max_stories,
    max_overlap: Annotated[
        float, typer.Option(help="Part of its pictures that a story may share with one before it.")
    ] = _DEFAULT.max_overlap,
    seed: Seed = _DEFAULT.seed,
    running: Running,
) -> None:
    """Write the clean part of a data set: no copies, bars, text cards or foreign licenses, and splits that do not leak.

    Example: python -m data_tools.clean data/books --out data/clean --license CC-BY --split train=0.9 --split val=0.1

    Stories that share a picture or a long caption always go to the same split. What was left out is counted, and listed
    in OUT/drops.jsonl. A killed run resumes. The same data set gives the same bytes.
    """
    rules = Rules(
        licenses=tuple(license or _DEFAULT.licenses),
        languages=tuple(language or _DEFAULT.languages),
        min_pages=min_pages,
        min_words=min_words,
        max_words=max_words,
        min_side=min_side,
        max_aspect=max_aspect,
        letterbox=letterbox,
        text_cards=text_cards,
        distance=distance,
        max_stories=max_stories,
        max_overlap=max_overlap,
        group_by=tuple(group_by or _DEFAULT.group_by),
        splits=dict(map(_share, split or ())),
        seed=seed,
    )
    cleaned, tally = clean(folder, out, rules, **vars(running))
    console = Console()
    show(cleaned, console)
    tally.show(console)


def show(cleaned: CleaningReport, console: Console) -> None:
    """Prints what came of a run."""
    for when, splits in (("before", cleaned.before), ("after", cleaned.after)):
        counts = [f"{name} {count['stories']} stories, {count['pages']} pages" for name, count in splits.items()]
        console.print(f"{when}: {'; '.join(counts)}", markup=False, highlight=False)
    groups = f"{cleaned.groups} groups of related stories, the largest of {cleaned.largest_group}"
    console.print(f"{groups}; {cleaned.moved} moved to the split of their group; {cleaned.cropped} pages cropped")


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ValueError(f"--split {text} is not a name and its share of the pages, as in train=0.9") from None


if __name__ == "__main__":
    application(main)()
