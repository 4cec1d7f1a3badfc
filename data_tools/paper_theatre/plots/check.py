"""Checks plots: their form, and stories written on trial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_tools.paper_theatre.plots.load import SHIPPED, read_plots
from data_tools.paper_theatre.plots.plot import Fault
from data_tools.paper_theatre.plots.trial import trial_faults


def check_plots(paths: Sequence[Path], seeds: int = 8) -> tuple[int, list[Fault]]:
    """Checks the plots of files and folders.

    Args:
        paths: What to check.
        seeds: How many stories of each plot are written on trial.

    Returns:
        How many plots could be read, and what is wrong, a fault for each place.
    """
    plots, faults = read_plots(paths)
    checked = {Path(file).resolve() for file, _ in plots}
    shipped = {plot.name for file, plot in read_plots([SHIPPED])[0] if Path(file) not in checked}
    for file, plot in plots:
        if plot.name in shipped:
            faults.append(Fault(file, "name", f"{plot.name!r} is the name of a shipped plot: choose another"))
        faults += [Fault(file, place, message) for place, message in trial_faults(plot, seeds)]
    return len(plots), faults
