"""Growth laws: how a size grows with depth, kernel or dilation over a sweep, with intervals.

A stack of n uniform k x k layers sums n independent steps, so its variance grows as n (k^2 - 1) / 12, its width as n^(1/2),
and its width over its theoretical field, n (k - 1) + 1, as n^(-1/2) (Luo et al. 2016, theorem 1). These exponents are the
limit: over n = 5..40 the size of that paper (`luo_size`, whole pixels counted) of the exact uniform 3 x 3 stack has 0.489, and
its ratio -0.477, so a measured exponent is read beside the exact one of the same depths.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.stats import t as student

from erflab.analysis.jackknife import CONFIDENCE, Estimate
from erflab.errors import MeasurementError


@dataclass(frozen=True)
class Coefficient(Estimate):
    """A fitted number; without an interval where as many points as coefficients, or one replicate, were given."""

    value: float

    def __str__(self) -> str:
        """The value and its interval: "0.666 [0.656, 0.676]"."""
        numbers = (self.value, *(self.interval or ()))
        value, *ends = (f"{round(number, 3) + 0.0:.3f}" for number in numbers)  # + 0.0 takes the sign off a zero
        return f"{value} [{', '.join(ends)}]" if ends else value

    def covers(self, truth: float) -> bool:
        """Whether the 95 % interval holds `truth`; False without one."""
        return self.interval is not None and self.interval[0] <= truth <= self.interval[1]

    def below(self, limit: float | Coefficient) -> bool:
        """Whether the whole 95 % interval lies below `limit`, or below the whole interval of another; False without one."""
        if isinstance(limit, Coefficient):
            return limit.interval is not None and self.below(limit.interval[0])
        return self.interval is not None and self.interval[1] < limit

    def within(self, low: float, high: float) -> bool:
        """Whether the whole 95 % interval lies between the two; False without one."""
        return self.interval is not None and low < self.interval[0] and self.interval[1] < high

    def above(self, limit: float | Coefficient) -> bool:
        """Whether the whole 95 % interval lies above `limit`, or above the whole interval of another; False without one."""
        if isinstance(limit, Coefficient):
            return limit.below(self)
        return self.interval is not None and self.interval[0] > limit


@dataclass(frozen=True)
class LinearLaw:
    """y = slope x + intercept."""

    slope: Coefficient
    intercept: Coefficient

    def at(self, x: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """The law's y."""
        return self.slope.value * x + self.intercept.value


@dataclass(frozen=True)
class PowerLaw:
    """y = amplitude x^exponent."""

    exponent: Coefficient
    amplitude: Coefficient
    """Its standard error is that of ln(amplitude) times the amplitude; its interval is that of ln(amplitude), raised."""

    def at(self, x: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """The law's y."""
        return self.amplitude.value * x**self.exponent.value


def uniform_variance(layers: int, kernel: int, dilation: int = 1) -> float:
    """sigma^2 in px^2 of the exact field of a uniform stack: n d^2 (k^2 - 1) / 12.

    That of `signed` or `absolute` with uniform weights, and of the mean `energy` over random weights.
    """
    return layers * dilation**2 * (kernel**2 - 1) / 12


def fit_linear(
    x: ArrayLike, y: ArrayLike, errors: ArrayLike | None = None, replicates: Sequence[Hashable] | None = None
) -> LinearLaw:
    """The least-squares line through the points of a sweep: minimises sum ((y - slope x - intercept) / errors)^2.

    Without `replicates` the points are independent, and their scatter about the line gives the standard errors and, with
    (points - 2) degrees of freedom, the t intervals. With them each replicate gets a line of its own, and the
    coefficients are the mean over R replicates, their t intervals those of R - 1 degrees of freedom: a claim about
    random networks takes weight seeds as replicates, for what one seed's points share then cannot narrow an interval.

    Args:
        x, y: of each point.
        errors: relative sizes of the points' errors; they weigh the points, and only that. Equal by default.
        replicates: label of the replicate that each point belongs to, such as its weight seed.

    Raises:
        MeasurementError: lengths differ, a number is not finite, an error is not positive, or a replicate has fewer than
            two different x.

    """
    return LinearLaw(*_fit(*_points(x, y, errors), replicates))


def fit_power_law(
    x: ArrayLike, y: ArrayLike, errors: ArrayLike | None = None, replicates: Sequence[Hashable] | None = None
) -> PowerLaw:
    """The power law through the points of a sweep: the line of `fit_linear` through ln y against ln x.

    A point's weight is (y / errors)^2, for ln y has the error errors / y; by default all weigh the same. Otherwise as
    `fit_linear`.

    Raises:
        MeasurementError: as `fit_linear`, or an x or y that is not positive.

    """
    x, y, errors = _points(x, y, errors)
    _refuse(~((x > 0) & (y > 0)), "a power law needs positive x and y", x, y)
    relative = np.ones_like(y) if errors is None else errors / y
    exponent, logarithm = _fit(np.log(x), np.log(y), relative, replicates)
    return PowerLaw(exponent, _exponential(logarithm))


def replicate_means(
    x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]
) -> tuple[Float[np.ndarray, " places"], Float[np.ndarray, " places"], Float[np.ndarray, " places"]]:
    """Each x once, the mean of its replicates' y, and the reach of the 95 % t interval to either side; nan for one."""
    places = np.unique(x)
    groups = [y[x == place] for place in places]
    means = np.array([group.mean() for group in groups])
    return places, means, np.array([_reach(group) for group in groups])


def replicate_mean(values: ArrayLike) -> Coefficient:
    """The mean over replicates (weight seeds, say) with its 95 % t interval; without an interval for one replicate."""
    replicates = np.asarray(values, float)
    mean = float(replicates.mean())
    if len(replicates) < 2:
        return Coefficient(mean)
    error = float(replicates.std(ddof=1)) / math.sqrt(len(replicates))
    reach = _reach(replicates)
    return Coefficient(mean, error, (mean - reach, mean + reach))


def quotient(above: Estimate, below: Estimate, freedom: int) -> Coefficient:
    """Above / below of two independent numbers, by the delta method; `freedom`: the fewer of their degrees of freedom."""
    if above.value is None or below.value is None:
        raise MeasurementError("a quotient needs two numbers, and one of them is None.")
    value = above.value / below.value
    if above.standard_error is None or below.standard_error is None:
        return Coefficient(value)
    relative = math.hypot(above.standard_error / above.value, below.standard_error / below.value)
    return _with_interval(value, abs(value) * relative, freedom)


def _with_interval(value: float, error: float, freedom: int) -> Coefficient:
    reach = _quantile(freedom) * error
    return Coefficient(value, error, (value - reach, value + reach))


def _reach(group: Float[np.ndarray, " replicates"]) -> float:
    if len(group) < 2:
        return float("nan")
    return _quantile(len(group) - 1) * float(group.std(ddof=1)) / math.sqrt(len(group))


def _quantile(freedom: int) -> float:
    """How many standard errors the interval reaches to either side."""
    return float(student.ppf((1 + CONFIDENCE) / 2, freedom))


def _points(
    x: ArrayLike, y: ArrayLike, errors: ArrayLike | None
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], Float[np.ndarray, " points"] | None]:
    """The points as arrays, checked."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise MeasurementError(f"x has the shape {x.shape} and y {y.shape}; give one x and one y for each point.")
    _refuse(~(np.isfinite(x) & np.isfinite(y)), "x and y must be finite", x, y)
    if errors is None:
        return x, y, None
    errors = np.asarray(errors, float)
    if errors.shape != x.shape:
        raise MeasurementError(f"errors has the shape {errors.shape} and x {x.shape}; give one error for each point.")
    _refuse(~((errors > 0) & np.isfinite(errors)), "errors must be positive and finite", x, errors)
    return x, y, errors


def _refuse(bad: np.ndarray, rule: str, x: Float[np.ndarray, " points"], values: Float[np.ndarray, " points"]) -> None:
    if bad.any():
        place = int(np.flatnonzero(bad)[0])
        raise MeasurementError(f"{rule}; point {place} has {values[place]:g} at x = {x[place]:g}: leave it out.")


def _fit(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    errors: Float[np.ndarray, " points"] | None,
    replicates: Sequence[Hashable] | None,
) -> tuple[Coefficient, Coefficient]:
    errors = np.ones_like(x) if errors is None else errors
    if replicates is None:
        return _one_line(x, y, errors)
    if len(replicates) != len(x):
        raise MeasurementError(f"there are {len(replicates)} replicates for {len(x)} points; give one label a point.")
    labels = list(dict.fromkeys(replicates))
    members = [np.array([r == label for r in replicates]) for label in labels]
    return _mean_line(
        np.stack([_line(x[m], y[m], errors[m], f" of replicate {r!r}") for m, r in zip(members, labels, strict=True)])
    )


def _line(
    x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"], errors: Float[np.ndarray, " points"], of: str = ""
) -> Float[np.ndarray, " 2"]:
    """(slope, intercept)."""
    distinct = len(np.unique(x))
    if distinct < 2:
        raise MeasurementError(f"the points{of} have {distinct} different x; a slope needs at least two: sweep wider.")
    solution: Float[np.ndarray, " 2"] = np.linalg.lstsq(_design(x) / errors[:, None], y / errors, rcond=None)[0]
    return solution


def _design(x: Float[np.ndarray, " points"]) -> Float[np.ndarray, "points 2"]:
    return np.stack([x, np.ones_like(x)], axis=1)


def _one_line(
    x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"], errors: Float[np.ndarray, " points"]
) -> tuple[Coefficient, Coefficient]:
    """Covariance s^2 (A^T A)^-1, A the weighted design, s^2 the weighted squares about the line over points - 2."""
    line, freedom = _line(x, y, errors), len(x) - 2
    if freedom == 0:
        return Coefficient(float(line[0])), Coefficient(float(line[1]))
    weighted = _design(x) / errors[:, None]
    scatter = float(np.sum((y / errors - weighted @ line) ** 2)) / freedom
    return _coefficients(line, np.sqrt(scatter * np.diag(np.linalg.inv(weighted.T @ weighted))), freedom)


def _mean_line(lines: Float[np.ndarray, "replicates 2"]) -> tuple[Coefficient, Coefficient]:
    mean, freedom = lines.mean(axis=0), len(lines) - 1
    if freedom == 0:
        return Coefficient(float(mean[0])), Coefficient(float(mean[1]))
    return _coefficients(mean, lines.std(axis=0, ddof=1) / np.sqrt(len(lines)), freedom)


def _coefficients(
    values: Float[np.ndarray, " 2"], errors: Float[np.ndarray, " 2"], freedom: int
) -> tuple[Coefficient, Coefficient]:
    reach = _quantile(freedom) * errors
    slope, intercept = (
        Coefficient(float(v), float(e), (float(v - r), float(v + r)))
        for v, e, r in zip(values, errors, reach, strict=True)
    )
    return slope, intercept


def _exponential(logarithm: Coefficient) -> Coefficient:
    value = float(np.exp(logarithm.value))
    if logarithm.standard_error is None or logarithm.interval is None:
        return Coefficient(value)
    low, high = np.exp(logarithm.interval)
    return Coefficient(value, value * logarithm.standard_error, (float(low), float(high)))
