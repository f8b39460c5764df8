"""Numbers with their intervals as bars, a group a layer or model, a colour a method: area ratios above all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from erflab.analysis.sizes import Quantity
from erflab.figures.groups import label_groups, side_by_side
from erflab.figures.intervals import error_bars

_ALL = 0.8  # of the room of a group
_LEAST = 3  # groups for which there is room, so that a single one is no wall


def draw_bars(
    axes: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Quantity | None]], label: str, log: bool = False
) -> None:
    """A bar a number with its 95 % interval; none where there is no number, so that nothing is read as zero.

    Args:
        axes: to draw in.
        groups: their names, along x.
        series: the colour's name -> one number a group.
        label: of y, with the unit.
        log: a logarithmic scale, for ratios over several decades.

    Raises:
        MeasurementError: if a series has another number of values than there are groups.
    """
    for name, values, color, places in side_by_side(groups, series, _ALL):
        axes.bar(
            places,
            np.array([math.nan if v is None or v.value is None else v.value for v in values]),
            _ALL / len(series),
            yerr=error_bars(values),
            color=color,
            label=name,
            error_kw={"elinewidth": 0.8, "capsize": 2, "capthick": 0.8},
        )
    spare = max(0, _LEAST - len(groups)) / 2
    axes.set_xlim(-0.5 - spare, len(groups) - 0.5 + spare)
    label_groups(axes, groups)
    axes.set_ylabel(label)
    if log:
        axes.set_yscale("log")
