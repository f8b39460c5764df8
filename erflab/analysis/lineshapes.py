"""The falloff families, each a row of one table: a pure function of the squared radius, and its formula.

u is the elliptical distance from the centre: u = 1 on the one-sigma ellipse. Every shape is 1 at u = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from erflab.errors import ConfigError, closest


@dataclass(frozen=True)
class ShapeParameter:
    """A further parameter of a family, such as an exponent: where the fit starts and how far it may go."""

    name: str
    start: float
    lower: float
    upper: float


@dataclass(frozen=True)
class LineShape:
    """A falloff family.

    `function(t, *extras)` takes t = u^2 as a real or complex array: the fit differentiates it by a complex step
    (Squire and Trapp 1998), so that a row needs no derivative of its own.
    """

    formula: str
    function: Callable[..., Any]
    extras: tuple[ShapeParameter, ...] = ()

    def derivative(self, index: int, t: Any, *extras: float) -> Any:
        """The exact derivative with respect to the argument number `index` (0 is t), shape of t."""
        arguments: list[Any] = [t, *extras]
        arguments[index] = arguments[index] + 1e-30j
        return self.function(*arguments).imag / 1e-30


def gaussian(t: Any) -> Any:
    """exp(-u^2 / 2), t = u^2."""
    return np.exp(-t / 2)


LINE_SHAPES: dict[str, LineShape] = {
    "gaussian": LineShape("exp(-u^2 / 2)", gaussian),
}


def line_shape(family: str) -> LineShape:
    """The row of a family.

    Raises:
        ConfigError: if there is no such family.

    """
    if family not in LINE_SHAPES:
        valid = ", ".join(LINE_SHAPES)
        raise ConfigError(f"family is {family!r}; choose one of {valid}.{closest(family, LINE_SHAPES)}")
    return LINE_SHAPES[family]
