"""One number against another, as a size against what it costs: a point with its interval a network or model."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

from matplotlib.axes import Axes

from erflab.analysis.jackknife import Estimate
from erflab.figures.intervals import error_bars, known_value
from erflab.figures.legends import legend_below
from erflab.figures.style import COLORS

_MARKERS = "os^DvPX<"  # one more than there are colours, so that both together do not repeat for long


def draw_points(axes: Axes, points: Mapping[str, tuple[float, Estimate]]) -> None:
    """A point with its 95 % interval along y a name, in a colour and a marker of its own; the legend stands below the axes.

    Args:
        axes: to draw in; its labels and scales are the caller's.
        points: name -> (x, y), in the order of the legend.

    Raises:
        MeasurementError: if a number is None.
    """
    for (name, (x, y)), color, marker in zip(points.items(), cycle(COLORS), cycle(_MARKERS)):
        axes.errorbar(
            [x], [known_value(name, y)], error_bars([y]), fmt=marker, color=color, ms=4, mfc="none", label=name
        )
    legend_below(axes, at=0.45, handletextpad=0.2, columnspacing=0.5)
