"""The plots of the paper theatre: data only, a few stories to a module."""

from data_tools.paper_theatre.plots import friends, lost_and_found, making, night_and_seasons, wind_and_weather
from data_tools.paper_theatre.plots.plot import Beat, Plot

__all__ = ["PLOTS", "Beat", "Plot"]

PLOTS: tuple[Plot, ...] = (
    *wind_and_weather.PLOTS,
    *making.PLOTS,
    *friends.PLOTS,
    *lost_and_found.PLOTS,
    *night_and_seasons.PLOTS,
)
