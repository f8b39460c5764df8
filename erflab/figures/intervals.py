"""Numbers with their intervals as figures need them: what must be there, and how far error bars reach."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from erflab.analysis.jackknife import Estimate
from erflab.analysis.sizes import Quantity
from erflab.errors import MeasurementError


def error_bars(numbers: Sequence[Estimate | Quantity | None]) -> Float[np.ndarray, "2 numbers"]:
    """How far each 95 % interval reaches below and above its number, as matplotlib takes it; nan where there is none.

    A number that lies outside of its interval, as one that is corrected for its bias may, has a bar on one side only.
    """
    return np.array([_reach(number) for number in numbers], float).reshape(-1, 2).T


def known_value(name: str, number: Estimate) -> float:
    """The number's value. Raises MeasurementError if it is None."""
    if number.value is None:
        raise MeasurementError(f"{name!r} has no value; leave it out.")
    return number.value


def _reach(number: Estimate | Quantity | None) -> tuple[float, float]:
    if number is None or number.value is None or number.interval is None:
        return math.nan, math.nan
    low, high = number.interval
    return max(0.0, number.value - low), max(0.0, high - number.value)
