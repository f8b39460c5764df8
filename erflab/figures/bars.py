"""Numbers with their intervals as bars, a group a layer or model, a colour a method: area ratios above all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes

from erflab.analysis.sizes import Quantity
from erflab.errors import MeasurementError
from erflab.figures.style import SERIES

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
    for number, ((name, values), color) in enumerate(zip(series.items(), cycle(SERIES))):
        if len(values) != len(groups):
            raise MeasurementError(f"series {name!r} has {len(values)} values for {len(groups)} groups; give one each.")
        offset = (number + 0.5) / len(series) * _ALL - _ALL / 2
        heights = np.array([math.nan if v is None or v.value is None else v.value for v in values])
        axes.bar(
            np.arange(len(groups)) + offset,
            heights,
            _ALL / len(series),
            yerr=np.transpose([_reach(v) for v in values]),
            color=color,
            label=name,
            error_kw={"elinewidth": 0.8, "capsize": 2, "capthick": 0.8},
        )
    spare = max(0, _LEAST - len(groups)) / 2
    axes.set_xlim(-0.5 - spare, len(groups) - 0.5 + spare)
    axes.set_xticks(range(len(groups)), list(groups))
    if len(groups) > 4:
        axes.tick_params(axis="x", rotation=60)
    axes.set_ylabel(label)
    if log:
        axes.set_yscale("log")


def _reach(quantity: Quantity | None) -> tuple[float, float]:
    """How far the interval reaches below and above the value; nan for none."""
    if quantity is None or quantity.value is None or quantity.interval is None:
        return math.nan, math.nan
    low, high = quantity.interval
    return max(0.0, quantity.value - low), max(0.0, high - quantity.value)
