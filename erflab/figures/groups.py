"""Groups along x, a layer, model or network each, and series of numbers side by side within each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from erflab.errors import MeasurementError
from erflab.figures.style import SERIES

Value = TypeVar("Value")


def side_by_side(
    groups: Sequence[str], series: Mapping[str, Sequence[Value]], room: float
) -> Iterator[tuple[str, Sequence[Value], str, Float[np.ndarray, " groups"]]]:
    """Each series: its name, its values, its colour and where along x they are drawn; `room` of 1 is all that a group has.

    Raises:
        MeasurementError: if a series has another number of values than there are groups.
    """
    for number, ((name, values), color) in enumerate(zip(series.items(), cycle(SERIES))):
        if len(values) != len(groups):
            raise MeasurementError(f"series {name!r} has {len(values)} values for {len(groups)} groups; give one each.")
        offset = (number + 0.5) / len(series) * room - room / 2
        yield name, values, color, np.arange(len(groups)) + offset


def label_groups(axes: Axes, groups: Sequence[str]) -> None:
    """Their names at 0, 1, 2, ... along x, aslant where they would run into one another."""
    angle = 0 if len(groups) <= 4 else 35 if len(groups) <= 8 else 60
    side = "right" if angle else "center"
    axes.set_xticks(range(len(groups)), list(groups), rotation=angle, ha=side, rotation_mode="anchor")
