"""Makes a data set of the paper theatre, and checks its plots: `python -m data_tools.paper_theatre generate --help`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from data_tools.engine import Engine, StepError, run
from data_tools.paper_theatre import casting
from data_tools.paper_theatre.annotate import annotate as read_captions
from data_tools.paper_theatre.dataset import Job, write_long_story, write_loose_page, write_story
from data_tools.paper_theatre.language import parse_appearance
from data_tools.paper_theatre.plots.check import check_plots
from data_tools.paper_theatre.plots.load import SHIPPED
from data_tools.paper_theatre.stories import PAGES, Appearances
from data_tools.paper_theatre.world import Appearance
from seedstory.storystream import StoryRecord, write_jsonl

Split = Literal["train", "heldout", "heldout-plots"]

app = typer.Typer(
    help="The paper theatre: a synthetic picture-book world, with ground truth for every page.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def generate(
    out: Annotated[Path, typer.Option("--out", help="Folder of the data set; made where it is missing.")],
    stories: Annotated[int, typer.Option(help="How many stories (OUT/SPLIT.jsonl).", min=0)] = 0,
    pages: Annotated[int, typer.Option(help="Length of long stories (OUT/long-SPLIT.jsonl).")] = 0,
    loose_pages: Annotated[int, typer.Option(help="How many single pages (OUT/loose-SPLIT.jsonl).", min=0)] = 0,
    split: Annotated[Split, typer.Option(help="Whose plots, names and looks to use.")] = "train",
    seed: Annotated[int, typer.Option(help="Number of the first story or page.")] = 0,
    size: Annotated[int, typer.Option(help="Width and height of the pictures.", min=16)] = 128,
    masks: Annotated[
        bool, typer.Option("--masks", help="Also write a map of who is where beside each picture.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    plots: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Plots of your own, beside the shipped ones (docs/plots.md).")
    ] = None,
    appearances: Annotated[
        Appearances, typer.Option(help="Whether the words say what characters look like: mixed, said or shown.")
    ] = "mixed",
    recast: Annotated[
        bool, typer.Option("--recast", help="Other appearances for the same stories (OUT/recast-SPLIT.jsonl).")
    ] = False,
) -> None:
    """Make a StoryStream data set of stories or single pages.

    Example: python -m data_tools.paper_theatre generate --out out --stories 1000 --workers 2

    --split heldout has names and looks that training never uses, --split
    heldout-plots also plots that training never uses. --stories 6 --pages 200
    makes long stories: the same heroes in chapter after chapter. --loose-pages
    20000 makes single pages with every combination of attributes. --appearances shown
    gives names alone, and leaves it to the pictures who is a fox in a red coat.

    A run that was interrupted goes on where it stopped: pictures that are there
    already are kept, if they show the same scene drawn by the same code. The
    .jsonl file appears when all is done.
    """
    if stories + loose_pages == 0:
        raise typer.BadParameter("say what to make: --stories N, --loose-pages N, or both")
    if loose_pages and split not in casting.SPLITS:
        raise typer.BadParameter(f"--loose-pages have no plot: use --split {' or '.join(casting.SPLITS)}")
    if recast and (pages or loose_pages or not stories):
        raise typer.BadParameter(
            "--recast is for short stories: give --stories N, and neither --pages nor --loose-pages"
        )
    if plots is not None:
        _check_added(plots, stories)
    chapters = _chapters(pages, stories) if pages else ()

    def write(count: int, step: Callable[[Job], StoryRecord], name: str) -> None:
        jobs = [Job(out, split, seed + n, size, masks, chapters, plots, appearances, recast) for n in range(count)]
        engine: Engine = "processes" if workers > 1 else "inline"
        write_jsonl(
            out / f"{name}.jsonl", run(step, jobs, engine=engine, workers=workers if workers > 1 else None, label=name)
        )

    try:
        if loose_pages:
            write(loose_pages, write_loose_page, f"loose-{split}")
        if stories:
            kind = "long-" if chapters else "recast-" if recast else ""
            write(stories, write_long_story if chapters else write_story, kind + split)
    except StepError as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def check(
    plots: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PLOTS", help="Plot files, or folders of them (default: the shipped)."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many stories of each plot to write on trial.", min=1)] = 8,
) -> None:
    """Check plots: their form, their slots, and stories written on trial and read back.

    Example: python -m data_tools.paper_theatre check my_plots

    Each fault is named with its file and place, one a line. The exit code is 1
    where there is any.
    """
    count, faults = check_plots(plots or [SHIPPED], seeds)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for fault in faults:
        console.print(str(fault))
    console.print(f"{count} plots, {len(faults) or 'no'} faults")
    raise typer.Exit(1 if faults else 0)


@app.command()
def annotate(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Story folders (with story.json).")],
) -> None:
    """Write down what each page of generated stories should show.

    Example: python -m data_tools.paper_theatre annotate stories/heldout/*/

    A generated story has no ground truth but its own words and its cast: they are
    read page by page, as those of training stories are, and truth.json beside
    story.json says who should stand where. inference.evaluate holds the pictures
    against it.
    """
    readable = total = 0
    for folder in folders:
        captions, cast = _captions_and_cast(folder)
        truths = read_captions(captions, cast)
        read = [{"caption": caption, "scene": truth} for caption, truth in zip(captions, truths, strict=True)]
        (folder / "truth.json").write_text(json.dumps(read, indent=1) + "\n", "utf-8")
        readable += sum(truth is not None for truth in truths)
        total += len(truths)
    typer.echo(f"{readable} of {total} pages could be read in {len(folders)} stories")


def _captions_and_cast(folder: Path) -> tuple[list[str], dict[str, Appearance]]:
    """Captions of a story folder, and the appearances that its story states name."""
    try:
        pages: list[dict[str, Any]] = json.loads((folder / "story.json").read_text("utf-8"))["pages"]
        cast: dict[str, Appearance] = {}
        for page in pages:
            for name, text in (page.get("next_state") or {"cast": {}})["cast"].items():
                appearance = parse_appearance(text)
                if appearance is not None:
                    cast.setdefault(name, appearance)
        return [page["caption"] for page in pages], cast
    except (OSError, ValueError, KeyError, TypeError):
        raise typer.BadParameter(f"{folder} is not a story folder: it has no readable story.json") from None


def _check_added(folder: Path, stories: int) -> None:
    if not stories:
        raise typer.BadParameter("--plots gives plots to stories: say how many with --stories N")
    if not folder.is_dir():
        raise typer.BadParameter(f"--plots {folder} is no folder: name a folder of plots")
    faults = check_plots([folder])[1]
    if faults:
        command = f"python -m data_tools.paper_theatre check {folder}"
        raise typer.BadParameter(f"--plots {folder} has {len(faults)} faults, list them with {command}: {faults[0]}")


def _chapters(pages: int, stories: int) -> tuple[int, ...]:
    """Lengths of a long story's chapters, those of the countdown in the page labels."""
    from seedstory.layout import chapters  # loads torch, which nothing else here needs

    if not stories:
        raise typer.BadParameter("--pages is the length of stories: say how many with --stories N")
    if pages < 1:
        raise typer.BadParameter(f"--pages {pages}: a story has at least one page")
    lengths = tuple(chapters(pages))
    if min(lengths) < PAGES[0]:
        raise typer.BadParameter(
            f"--pages {pages} makes a chapter of {min(lengths)} pages: choose a number whose chapters have "
            f"{PAGES[0]} or more, such as 24 or 200"
        )
    return lengths


if __name__ == "__main__":
    app()
