"""Numbers with their intervals, a line each, against a reference: which differ from it, and by how much."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from erflab.analysis.jackknife import Estimate
from erflab.figures.intervals import error_bars, known_value
from erflab.figures.style import COLORS, DASHES


def draw_forest(axes: Axes, series: Mapping[str, Mapping[str, Estimate]], reference: float | None = None) -> None:
    """A point a number with its 95 % interval, rows from the top down, a colour a series, slightly apart within a row.

    Args:
        axes: to draw in; x and its label are the caller's.
        series: the colour's name -> row -> number. Rows are in the order in which they first occur; a series may lack some.
        reference: where a dashed line is drawn, such as 1 for a ratio.

    Raises:
        MeasurementError: if a number is None.
    """
    rows = list(dict.fromkeys(row for found in series.values() for row in found))
    if reference is not None:
        axes.axvline(reference, color="0.5", linewidth=0.8, linestyle=DASHES, gid="reference")
    for number, ((name, found), color) in enumerate(zip(series.items(), COLORS, strict=False)):
        place = np.array([rows.index(row) for row in found]) + 0.5 * ((number + 0.5) / len(series) - 0.5)
        axes.errorbar(
            [known_value(row, estimate) for row, estimate in found.items()],
            place,
            xerr=error_bars([*found.values()]),
            fmt="os^Dv"[number % 5],
            color=color,
            markersize=3,
            elinewidth=0.8,
            label=name,
        )
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
