"""Makes a data set of the paper theatre: `python -m data_tools.paper_theatre --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_tools.engine import StepError, run
from data_tools.paper_theatre import casting
from data_tools.paper_theatre.dataset import Job, write_long_story, write_loose_page, write_story
from data_tools.paper_theatre.stories import PAGES, SPLITS
from seedstory.storystream import write_jsonl

EXAMPLES = """\
examples:
  # 1000 training stories: out/train.jsonl and out/images/
  python -m data_tools.paper_theatre --out out --stories 1000 --split train --workers 2
  # stories with names and looks that training never uses: out/heldout.jsonl
  python -m data_tools.paper_theatre --out out --stories 100 --split heldout
  # stories of plots that training never tells, either: out/heldout-plots.jsonl
  python -m data_tools.paper_theatre --out out --stories 100 --split heldout-plots
  # 6 held-out stories of 200 pages: the same heroes in chapter after chapter: out/long-heldout.jsonl
  python -m data_tools.paper_theatre --out out --stories 6 --pages 200 --split heldout
  # 20000 single pages with every combination of attributes: out/loose-train.jsonl
  python -m data_tools.paper_theatre --out out --loose-pages 20000 --split train --workers 2

A run that was interrupted goes on where it stopped: pictures that are there already are kept, if they show the same
scene drawn by the same code. The .jsonl file appears when all is done.
"""


def main(arguments: list[str] | None = None) -> None:
    """Writes what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.paper_theatre",
        description="Make a StoryStream data set of the synthetic picture-book world, with ground truth.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set; made where it is missing")
    parser.add_argument("--stories", type=int, default=0, help="how many stories (OUT/<split>.jsonl)")
    parser.add_argument("--pages", type=int, default=0, help="length of long stories (OUT/long-<split>.jsonl)")
    parser.add_argument("--loose-pages", type=int, default=0, help="how many single pages (OUT/loose-<split>.jsonl)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="default: train")
    parser.add_argument("--seed", type=int, default=0, help="number of the first story or page (default: 0)")
    parser.add_argument("--size", type=int, default=128, help="width and height of the pictures (default: 128)")
    parser.add_argument("--masks", action="store_true", help="also write a map of who is where beside each picture")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    args = parser.parse_args(arguments)
    if args.stories < 0 or args.loose_pages < 0 or args.stories + args.loose_pages == 0:
        parser.error("say what to make: --stories N, --loose-pages N, or both")
    if args.loose_pages and args.split not in casting.SPLITS:
        parser.error(f"--loose-pages tell no plot: use --split {' or '.join(casting.SPLITS)}")
    if args.size < 16:
        parser.error(f"--size {args.size} is too small to draw on: use 16 or more")

    chapters = _chapters(args.pages, args.stories, parser) if args.pages else ()
    stories = (args.stories, write_long_story if chapters else write_story, f"{'long-' * bool(chapters)}{args.split}")
    engine, workers = ("processes", args.workers) if args.workers > 1 else ("inline", None)
    try:
        for count, write, name in ((args.loose_pages, write_loose_page, f"loose-{args.split}"), stories):
            if count:
                jobs = [Job(args.out, args.split, args.seed + n, args.size, args.masks, chapters) for n in range(count)]
                write_jsonl(args.out / f"{name}.jsonl", run(write, jobs, engine=engine, workers=workers, label=name))
    except StepError as error:
        parser.error(str(error))


def _chapters(pages: int, stories: int, parser: argparse.ArgumentParser) -> tuple[int, ...]:
    """Lengths of a long story's chapters, those of the countdown in the page labels."""
    from seedstory.layout import chapters  # loads torch, which nothing else here needs

    if not stories:
        parser.error("--pages is the length of stories: say how many with --stories N")
    if pages < 1:
        parser.error(f"--pages {pages}: a story has at least one page")
    lengths = tuple(chapters(pages))
    if min(lengths) < PAGES[0]:
        parser.error(
            f"--pages {pages} makes a chapter of {min(lengths)} pages: choose a number whose chapters have "
            f"{PAGES[0]} or more, such as 24 or 200"
        )
    return lengths


if __name__ == "__main__":
    main()
