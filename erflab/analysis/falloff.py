"""Fit a falloff model to a map: d(y, x) = amplitude * shape(u^2) + floor.

u is the elliptical distance from the fitted centre in units of sigma. The shapes are rows of `lineshapes.LINE_SHAPES`,
the model on a grid is `gridmodel.GridModel`, what it is fitted to is `samples.Samples`, the search is
`leastsquares.Problem`; here is what goes in and comes out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from erflab.analysis.binned import binned_chi_square
from erflab.analysis.ellipse import Ellipse
from erflab.analysis.gridmodel import GridModel, vector_of
from erflab.analysis.jackknife import GroupedMap
from erflab.analysis.leastsquares import Problem, Solution
from erflab.analysis.lineshapes import LineShape, line_shape
from erflab.analysis.profile import RadialProfile
from erflab.analysis.samples import Samples, samples_of

_TWO_SIGMA = 2 / math.sqrt(2 * math.log(2))  # two sigma of a Gaussian, in half-widths
_BINNED = 3.0  # half-widths that the bins of the chi-square divide

FLAGS = {
    "near_bound": "a parameter ended at its bound; measure a larger or finer map, or fit fewer parameters",
    "no_covariance": "the map does not determine all parameters, so errors are None; fit with elliptical=False",
    "not_converged": "the least-squares search stopped before it converged; average more images",
    "clipped": "the fitted peak, out to 1.7 half-widths, reaches beyond the map; measure with a larger input size",
}
"""Why a fit may not be trusted: code -> what happened and what to do."""


@dataclass(frozen=True, eq=False)
class FalloffFit:
    """A fitted falloff. Lengths are in px, amplitude and floor in the map's unit, theta in radians (see `Ellipse`)."""

    family: str
    parameters: dict[str, float]
    """amplitude, center_y, center_x, sigma_major, sigma_minor, theta, floor, then the family's own."""
    errors: dict[str, float | None]
    """One standard error per parameter; None where it was held fixed or is undetermined."""
    covariance: Float[np.ndarray, "parameters parameters"] | None
    """In the order of `parameters`, zero for fixed ones; None if the map does not determine all of them."""
    sigma_error: float | None
    r_squared: float
    """1 - residual / total sum of squares, unweighted."""
    reduced_chi_square: float | None
    """Weighted by the smooth variance model; None without a variance."""
    aic: float
    """n ln(chi^2 / n) + 2 k of n samples and k variables (Akaike 1974). Samples are correlated: it prefers too much."""
    bic: float
    """n ln(chi^2 / n) + k ln n (Schwarz 1978), with the same caveat."""
    success: bool
    message: str
    flags: tuple[str, ...]
    """Keys of `FLAGS`."""
    binned_chi_square: float | None = None
    """Residuals in a few elliptical rings against their covariance over groups, near 1 for a good fit (see
    `binned.binned_chi_square`); None without groups."""

    @property
    def ellipse(self) -> Ellipse:
        """The fitted one-sigma ellipse."""
        return Ellipse(*(self.parameters[name] for name in ("sigma_major", "sigma_minor", "theta")))

    @property
    def sigma(self) -> float:
        """sqrt((sigma_major^2 + sigma_minor^2) / 2), the family's own scale: see `lineshapes` for what it means."""
        return self.ellipse.sigma

    @property
    def extras(self) -> tuple[float, ...]:
        """The family's own parameters."""
        return tuple(self.parameters[extra.name] for extra in line_shape(self.family).extras)

    @property
    def half_width(self) -> float:
        """Distance in px at which the peak has fallen to half, floor aside; means the same for every family."""
        return self.sigma * line_shape(self.family).half_width(*self.extras)

    @property
    def moment_sigma(self) -> float | None:
        """sqrt(trace / 2) of the fitted peak's covariance, floor aside, in px; None where that diverges."""
        ratio = line_shape(self.family).second_moment(*self.extras)
        return self.sigma * math.sqrt(ratio) if math.isfinite(ratio) else None

    def model(self, y: ArrayLike, x: ArrayLike) -> Float[np.ndarray, "*grid"]:
        """The fitted value at offsets y and x in px from the unit's centre, which broadcast."""
        row, p = line_shape(self.family), self.parameters
        dy, dx = np.asarray(np.subtract(y, p["center_y"])), np.asarray(np.subtract(x, p["center_x"]))
        shape = row.function(self.ellipse.squared_radius(dy, dx), *(p[extra.name] for extra in row.extras))
        return np.asarray(p["amplitude"] * shape + p["floor"])

    def residual(self, map: xr.DataArray) -> xr.DataArray:
        """The map minus the fit, dims (y, x)."""
        return map.transpose("y", "x") - self.evaluate(map)

    def against(self, grouped: GroupedMap) -> FalloffFit:
        """The same fit with its `binned_chi_square` over groups of scenes."""
        fitted = self.evaluate(grouped.mean).values
        residuals = (mean.values - fitted for mean in grouped.means)
        dy = grouped.mean["y"].values[:, None] - self.parameters["center_y"]
        dx = grouped.mean["x"].values[None, :] - self.parameters["center_x"]
        radius = np.sqrt(self.ellipse.squared_radius(dy, dx)) * self.sigma
        found = binned_chi_square(residuals, grouped.images, radius, _BINNED * self.half_width)
        return replace(self, binned_chi_square=found)

    def evaluate(self, like: xr.DataArray) -> xr.DataArray:
        """The fitted map on the grid of `like`, dims (y, x)."""
        y, x = like["y"], like["x"]
        values = self.model(np.asarray(y.values)[:, None], np.asarray(x.values)[None, :])
        return xr.DataArray(values, coords={"y": y, "x": x}, dims=("y", "x"))


def fit_falloff(
    map: xr.DataArray | RadialProfile,
    family: str = "gaussian",
    *,
    variance: xr.DataArray | None = None,
    elliptical: bool = True,
    floor: bool = True,
    start: FalloffFit | None = None,
    groups: GroupedMap | None = None,
) -> FalloffFit:
    """Fit a falloff family to a map or a radial profile by weighted least squares.

    The weights come from a smooth variance model, the mean variance over rings about the unit's centre: a pixel's own
    sample variance is small where the pixel came out small by chance, and would pull the fit down. The covariance is
    (J^T W J)^-1 times the reduced chi-square. Neighbouring pixels of an ERF are correlated, and rings describe the
    variance of a long ellipse badly, so these errors are optimistic: quote the jackknife over images, and use these to
    see what is determined at all.

    Args:
        map: values on (y, x), in any scale; y and x in px from the unit's centre. Negative values are allowed. Or a
            radial profile, fitted by a circle about the unit's centre; a ring weighs as its pixels together.
        family: a key of `LINE_SHAPES`.
        variance: variance of the mean map, on the same grid; without it, or if zero everywhere, weights are uniform.
        elliptical: fit two widths and an angle instead of one width (maps only).
        floor: fit a constant background.
        start: a fit of nearly the same map, by any family, to start the search from; without it the search starts from
            the best of many circles.
        groups: the map by groups of scenes, for `binned_chi_square`.

    Raises:
        ConfigError: if the family is unknown, or a variance is given beside a profile.
        MeasurementError: if the map or the variance is no map, or the map is zero, constant or too small.

    """
    fit = fit_samples(samples_of(map, variance), family, elliptical=elliptical, floor=floor, start=start)
    return fit if groups is None else fit.against(groups)


def fit_samples(
    samples: Samples, family: str, *, elliptical: bool = True, floor: bool = True, start: FalloffFit | None = None
) -> FalloffFit:
    """As `fit_falloff`, for samples prepared once and fitted often."""
    low, scale = samples.low, samples.scale
    grid = samples.grid(line_shape(family))
    problem = Problem(
        grid=grid,
        values=(samples.values - low) / scale,
        deviations=samples.deviations / scale if samples.weighted else samples.deviations,
        elliptical=elliptical and not grid.centered,
        floor=None if floor else -low / scale,
    )
    solution = problem.solve(None if start is None else _vector(start, grid.shape, low, scale))
    return _describe(family, problem, solution, low, scale, weighted=samples.weighted)


def values_at(samples: Samples, fit: FalloffFit) -> Float[np.ndarray, "y x"]:
    """The fitted values of the samples, averaged over their blocks."""
    grid = samples.grid(line_shape(fit.family))
    return grid.values(_vector(fit, grid.shape, low=0.0, scale=1.0))


def _vector(start: FalloffFit, shape: LineShape, low: float, scale: float) -> Float[np.ndarray, " vector"]:
    """A fit as the vector of a problem on the scale of its values."""
    p = start.parameters
    extras = [p.get(extra.name, extra.start) for extra in shape.extras]
    floor = (p["floor"] - low) / scale
    return vector_of(p["amplitude"] / scale, floor, (p["center_y"], p["center_x"]), start.ellipse, extras)


def _describe(
    family: str, problem: Problem, solution: Solution, low: float, scale: float, *, weighted: bool
) -> FalloffFit:
    """The solution in px and in the map's unit."""
    parameters = solution.parameters | {
        "amplitude": solution.parameters["amplitude"] * scale,
        "floor": solution.parameters["floor"] * scale + low if problem.floor is None else 0.0,
    }
    units = np.array([scale if name in ("amplitude", "floor") else 1.0 for name in parameters])
    covariance = None if solution.covariance is None else solution.covariance * np.outer(units, units)
    fit = FalloffFit(
        family=family,
        parameters=parameters,
        errors=_errors(parameters, covariance),
        covariance=covariance,
        sigma_error=_sigma_error(parameters, covariance),
        r_squared=solution.r_squared,
        reduced_chi_square=solution.reduced_chi_square if weighted else None,
        aic=solution.aic,
        bic=solution.bic,
        success=solution.success,
        message=solution.message,
        flags=(),
    )
    return replace(fit, flags=_flags(fit, problem.grid, solution))


def _errors(parameters: dict[str, float], covariance: Float[np.ndarray, "n n"] | None) -> dict[str, float | None]:
    if covariance is None:
        return dict.fromkeys(parameters)
    errors = {name: math.sqrt(v) if v > 0 else None for name, v in zip(parameters, np.diag(covariance), strict=True)}
    theta = errors["theta"]
    # An angle is known modulo pi: a larger error says that the ellipse is round.
    return errors if theta is None or theta < math.pi / 2 else errors | {"theta": None}


def _sigma_error(parameters: dict[str, float], covariance: Float[np.ndarray, "n n"] | None) -> float | None:
    """By the delta method on sigma^2 = (sigma_major^2 + sigma_minor^2) / 2."""
    if covariance is None:
        return None
    widths = np.array([parameters["sigma_major"], parameters["sigma_minor"]])
    index = [list(parameters).index(name) for name in ("sigma_major", "sigma_minor")]
    gradient = widths / np.sqrt(2 * np.sum(widths**2))
    return float(np.sqrt(gradient @ covariance[np.ix_(index, index)] @ gradient))


def _flags(fit: FalloffFit, grid: GridModel, solution: Solution) -> tuple[str, ...]:
    center = fit.parameters["center_y"], fit.parameters["center_x"]
    reach = fit.half_width / fit.sigma * _TWO_SIGMA * np.sqrt(np.diag(fit.ellipse.covariance))
    raised = {
        "near_bound": solution.near_bound,
        "no_covariance": solution.covariance is None,
        "not_converged": not solution.success,
        "clipped": not grid.holds(center, reach),
    }
    return tuple(code for code in FLAGS if raised[code])
