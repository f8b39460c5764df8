"""Every replicate as a point of its own: how much networks scatter from weight seed to weight seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from erflab.figures.groups import label_groups, side_by_side
from erflab.figures.legends import legend_above

_ROOM = 0.6  # of the room of a group


def draw_replicates(
    axes: Axes,
    groups: Sequence[str],
    series: Mapping[str, Sequence[ArrayLike]],
    label: str,
    reference: float | None = None,
) -> None:
    """The replicates of each group as points above its name, a colour a series; the legend stands above the axes.

    Args:
        axes: to draw in.
        groups: their names, along x.
        series: the colour's name -> the replicates of each group.
        label: of y, with the unit.
        reference: where a line is drawn, such as 1 for a ratio.

    Raises:
        MeasurementError: if a series has another number of values than there are groups.
    """
    for name, found, color, places in side_by_side(groups, series, _ROOM):
        x = np.repeat(places, [np.size(replicates) for replicates in found])
        axes.plot(x, np.concatenate([*map(np.ravel, found)]), "o", color=color, ms=3, alpha=0.6, mew=0, label=name)
    if reference is not None:
        axes.axhline(reference, color="black", linewidth=0.8, gid="reference")
    label_groups(axes, groups)
    axes.set_ylabel(label)
    legend_above(axes, len(series))
