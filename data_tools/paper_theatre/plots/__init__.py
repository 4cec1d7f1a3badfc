"""The plots of the paper theatre: data only, a story to a YAML file (docs/plots.md says how to write one).

The first `FIRST` are those that the first weights were trained on: not a word of them changes.
"""

from data_tools.paper_theatre.plots.load import FIRST, load_plots
from data_tools.paper_theatre.plots.plot import Beat, Fault, Plot

__all__ = ["FIRST", "Beat", "Fault", "Plot", "load_plots"]
