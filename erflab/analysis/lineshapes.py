"""The falloff families, each a row of one table: a pure function of the squared radius, its formula, and its widths.

u is the elliptical distance from the centre: u = 1 on the one-sigma ellipse. Every shape is 1 at u = 0. Sigma is the
Gaussian's wherever a family contains the Gaussian, so that a start carries over; to compare families take the half-width
or the second moment, which mean the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from erflab.errors import ConfigError, closest

_STEP = 1e-30  # of the complex step, relative to t: no difference is taken, so none is lost


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

    title: str
    """The family's name in a sentence."""
    formula: str
    function: Callable[..., Any]
    half_width: Callable[..., float]
    """u at half the peak, as a function of the extras."""
    second_moment: Callable[..., float]
    """Variance along an axis over sigma^2 in two dimensions, as a function of the extras; infinite where it diverges."""
    extras: tuple[ShapeParameter, ...] = ()

    def derivative(self, index: int, t: Any, *extras: float) -> Any:
        """The exact derivative with respect to the argument number `index` (0 is t), shape of t.

        At the tip of a cusp (t = 0, exponent below 2) the derivative with respect to t is infinite and the one returned
        large but finite; the centre's derivative is zero there by symmetry, and u = 0 is what it is multiplied with.
        """
        arguments: list[Any] = [np.asarray(t), *extras]
        # The step shrinks with t: near the tip of a cusp the function changes over distances as small as t itself.
        step = np.where(arguments[0] > 0, _STEP * arguments[0], _STEP) if index == 0 else _STEP
        arguments[index] = arguments[index] + 1j * step
        return self.function(*arguments).imag / step


def gaussian(t: Any) -> Any:
    """exp(-u^2 / 2), t = u^2."""
    return np.exp(-t / 2)


def generalised_gaussian(t: Any, beta: Any) -> Any:
    """exp(-u^beta / 2), t = u^2: the Gaussian at beta = 2, sharper in the peak and longer in the tail below."""
    return np.exp(-np.exp(beta / 2 * np.log(np.where(t == 0, 1e-300, t))) / 2)  # 0^beta has no complex step in beta


def exponential(t: Any) -> Any:
    """exp(-u / 2), t = u^2: the generalised Gaussian of beta = 1, of scale length 2 sigma."""
    return np.exp(-np.sqrt(t) / 2)


def moffat(t: Any, exponent: Any) -> Any:
    """(1 + u^2 / (2 exponent))^-exponent, t = u^2: a power law outside, the Gaussian for a large exponent (Moffat 1969)."""
    return np.exp(-exponent * np.log1p(t / (2 * exponent)))


def _moffat_second_moment(exponent: float) -> float:
    return exponent / (exponent - 2) if exponent > 2 else math.inf


LINE_SHAPES: dict[str, LineShape] = {
    "gaussian": LineShape(
        "Gaussian", "exp(-u^2 / 2)", gaussian, lambda: math.sqrt(2 * math.log(2)), second_moment=lambda: 1.0
    ),
    "exponential": LineShape(
        "exponential", "exp(-u / 2)", exponential, lambda: 2 * math.log(2), second_moment=lambda: 12.0
    ),
    "generalised_gaussian": LineShape(
        "generalised Gaussian",
        "exp(-u^beta / 2)",
        generalised_gaussian,
        lambda beta: float((2 * math.log(2)) ** (1 / beta)),
        second_moment=lambda beta: 2 ** (2 / beta) * math.gamma(4 / beta) / math.gamma(2 / beta) / 2,
        extras=(ShapeParameter("beta", 2.0, 0.3, 8.0),),
    ),
    "moffat": LineShape(
        "Moffat",
        "(1 + u^2 / (2 exponent))^-exponent",
        moffat,
        lambda exponent: math.sqrt(2 * exponent * (2 ** (1 / exponent) - 1)),
        second_moment=_moffat_second_moment,
        extras=(ShapeParameter("exponent", 4.0, 0.6, 100.0),),
    ),
}
"""From the fewest parameters to the most."""


def line_shape(family: str) -> LineShape:
    """The row of a family.

    Raises:
        ConfigError: if there is no such family.

    """
    if family not in LINE_SHAPES:
        valid = ", ".join(LINE_SHAPES)
        raise ConfigError(f"family is {family!r}; choose one of {valid}.{closest(family, LINE_SHAPES)}")
    return LINE_SHAPES[family]
