"""The command: `python -m data_tools.report --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_tools.command import Data, Running, application, command
from data_tools.engine import Engine
from data_tools.report.facts import gather
from data_tools.report.page import render
from seedstory.io import write_atomic


def write_report(
    folder: Path,
    out: Path,
    *,
    title: str = "",
    samples: int = 16,
    engine: Engine = "inline",
    workers: int | None = None,
) -> None:
    """Writes the report on a data set folder as one HTML file; see `data_tools.report.facts.gather`."""
    page = render(gather(folder, title=title, samples=samples, engine=engine, workers=workers))
    write_atomic(out, page, make_folder=True)


@command
def main(
    *,
    folder: Data,
    out: Annotated[Path | None, typer.Option(help="The HTML file. [default: DATA/report.html]")] = None,
    title: Annotated[str, typer.Option(help="What to call the data set. [default: the name of DATA]")] = "",
    samples: Annotated[int, typer.Option(min=0, help="Pages on the contact sheet of each source.")] = 16,
    running: Running,
) -> None:
    """Write one HTML page on a data set: counts, lengths, sizes, licenses, contact sheets, and why pages were dropped.

    Example: python -m data_tools.report data/clean --out report.html
    """
    out = out or folder / "report.html"
    write_report(folder, out, title=title, samples=samples, **vars(running))
    Console(soft_wrap=True).print(f"Open it in a browser: {out.resolve()}", markup=False, highlight=False)


if __name__ == "__main__":
    application(main)()
