"""Finds the files of plots, and reads them in their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from data_tools.paper_theatre.plots.plot import Fault, Plot
from data_tools.paper_theatre.plots.schema import read_plot

SHIPPED = Path(__file__).resolve().parent
# How many of the shipped plots the first weights were trained on.
FIRST = 15


@cache
def load_plots(added: Path | None = None) -> tuple[Plot, ...]:
    """All plots, read once: the shipped ones, then those of a folder of the user's own.

    Args:
        added: The user's folder, or None.

    Returns:
        The plots of each folder by number; those without one come last, by file name.

    Raises:
        ValueError: A plot has a fault; the message is the first.
    """
    folders = [SHIPPED] if added is None else [SHIPPED, added]
    plots, faults = read_plots(folders)
    if faults:
        raise ValueError(str(faults[0]))
    return tuple(plot for _, plot in plots)


def read_plots(paths: Sequence[Path]) -> tuple[list[tuple[str, Plot]], list[Fault]]:
    """The plots of files and folders, each with its file, and all that the files alone show to be wrong."""
    plots: list[tuple[str, Plot]] = []
    faults: list[Fault] = []
    for path in paths:
        found = []
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path] if path.is_file() else []
        for file in files:
            plot, wrong = read_plot(file)
            faults += wrong
            if plot is not None:
                found.append((str(file), plot))
        if not files:
            faults.append(Fault(str(path), "", "there is no plot: name a YAML file, or a folder that holds some"))
        faults += _twice("number", ((file, plot.number) for file, plot in found))
        plots += sorted(found, key=lambda one: (one[1].number is None, one[1].number or 0, one[0]))
    faults += _twice("name", ((file, plot.name) for file, plot in plots))
    return plots, faults


def _twice(key: str, given: Iterable[tuple[str, str | int | None]]) -> list[Fault]:
    """Files whose number or name another file has already."""
    first: dict[str | int, str] = {}
    return [
        Fault(file, key, f"{value!r} is the {key} of {first[value]} already: choose another")
        for file, value in given
        if value is not None and first.setdefault(value, file) != file
    ]
