"""The plots of the paper theatre: data only, a few stories to a module.

`FIRST_PLOTS` are those that the first weights were trained on: not a word of them changes.
"""

from data_tools.paper_theatre.plots import (
    contests,
    far_and_near,
    friends,
    growing,
    lost_and_found,
    making,
    neighbours,
    night_and_echo,
    night_and_seasons,
    secrets,
    wind_and_weather,
)
from data_tools.paper_theatre.plots.plot import Beat, Plot

__all__ = ["FIRST_PLOTS", "PLOTS", "Beat", "Plot"]

FIRST_PLOTS: tuple[Plot, ...] = (
    *wind_and_weather.PLOTS,
    *making.PLOTS,
    *friends.PLOTS,
    *lost_and_found.PLOTS,
    *night_and_seasons.PLOTS,
)
PLOTS: tuple[Plot, ...] = (
    *FIRST_PLOTS,
    *far_and_near.PLOTS,
    *contests.PLOTS,
    *secrets.PLOTS,
    *growing.PLOTS,
    *neighbours.PLOTS,
    *night_and_echo.PLOTS,
)
