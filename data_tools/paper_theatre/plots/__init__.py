"""The plots of the paper theatre: one module per story line, data only."""

from data_tools.paper_theatre.plots.plot import Beat, Plot

__all__ = ["PLOTS", "Beat", "Plot"]

PLOTS: tuple[Plot, ...] = ()
