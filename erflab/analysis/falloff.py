"""Fit a falloff model to a map: d(y, x) = amplitude * shape(u^2) + floor.

u is the elliptical distance from the fitted centre in units of sigma. The shapes are rows of `lineshapes.LINE_SHAPES`,
the model on a grid is `gridmodel.GridModel`, the search is `leastsquares.Problem`; here is what goes in and comes out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from erflab.analysis.ellipse import Ellipse
from erflab.analysis.gridmodel import GridModel
from erflab.analysis.leastsquares import Problem, Solution
from erflab.analysis.lineshapes import line_shape
from erflab.analysis.profile import check_map, radial_profile, radii, same_grid
from erflab.errors import MeasurementError

FLAGS = {
    "near_bound": "a parameter ended at its bound; measure a larger or finer map, or fit fewer parameters",
    "no_covariance": "the map does not determine all parameters, so errors are None; fit with elliptical=False",
    "not_converged": "the least-squares search stopped before it converged; average more images",
    "clipped": "the fitted two-sigma ellipse reaches beyond the map; measure with a larger input size",
}
"""Why a fit may not be trusted: code -> what happened and what to do."""

LARGEST = 512
"""Maps above this many pixels squared are block-averaged before the fit."""

VARIANCE_FLOOR = 1e-2
"""Least variance, as a share of the largest: a tenth of its standard deviation. Far out a map is known to many digits, in
more pixels than its core has; without this floor a family that is not quite the truth is fitted to the tails alone."""


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
    sigma: float
    """sqrt((sigma_major^2 + sigma_minor^2) / 2)."""
    sigma_error: float | None
    r_squared: float
    """1 - residual / total sum of squares, unweighted."""
    reduced_chi_square: float | None
    """Weighted by the smooth variance model; None without a variance."""
    success: bool
    message: str
    flags: tuple[str, ...]
    """Keys of `FLAGS`."""

    @property
    def ellipse(self) -> Ellipse:
        """The fitted one-sigma ellipse."""
        return Ellipse(*(self.parameters[name] for name in ("sigma_major", "sigma_minor", "theta")))

    def model(self, y: ArrayLike, x: ArrayLike) -> Float[np.ndarray, "*grid"]:
        """The fitted value at offsets y and x in px from the unit's centre, which broadcast."""
        row, p = line_shape(self.family), self.parameters
        dy, dx = np.asarray(np.subtract(y, p["center_y"])), np.asarray(np.subtract(x, p["center_x"]))
        shape = row.function(self.ellipse.squared_radius(dy, dx), *(p[extra.name] for extra in row.extras))
        return np.asarray(p["amplitude"] * shape + p["floor"])

    def evaluate(self, like: xr.DataArray) -> xr.DataArray:
        """The fitted map on the grid of `like`, dims (y, x)."""
        y, x = like["y"], like["x"]
        values = self.model(np.asarray(y.values)[:, None], np.asarray(x.values)[None, :])
        return xr.DataArray(values, coords={"y": y, "x": x}, dims=("y", "x"))


def fit_falloff(
    map: xr.DataArray,
    family: str = "gaussian",
    *,
    variance: xr.DataArray | None = None,
    elliptical: bool = True,
    floor: bool = True,
) -> FalloffFit:
    """Fit a falloff family to a map by weighted least squares.

    The weights come from a smooth variance model, the mean variance over rings about the unit's centre: a pixel's own
    sample variance is small where the pixel came out small by chance, and would pull the fit down. The covariance is
    (J^T W J)^-1 times the reduced chi-square. Neighbouring pixels of an ERF are correlated, and rings describe the
    variance of a long ellipse badly, so these errors are optimistic: quote the jackknife over images, and use these to
    see what is determined at all.

    Args:
        map: values on (y, x), in any scale; y and x in px from the unit's centre. Negative values are allowed.
        family: a key of `LINE_SHAPES`.
        variance: variance of the mean map, on the same grid; without it, or if zero everywhere, weights are uniform.
        elliptical: fit two widths and an angle instead of one width.
        floor: fit a constant background.

    Raises:
        ConfigError: if the family is unknown.
        MeasurementError: if the map or the variance is no map, or the map is zero, constant or too small.

    """
    shape = line_shape(family)
    checked, spread, factor = _reduce(check_map(map), variance)
    low, scale = _check_values(checked)
    y, x = (np.asarray(checked[axis].values, float) for axis in ("y", "x"))
    problem = Problem(
        grid=GridModel(y, x, shape, factor),
        values=(checked.values - low) / scale,
        deviations=np.ones(checked.shape) if spread is None else np.sqrt(spread) / scale,
        elliptical=elliptical,
        floor=None if floor else -low / scale,
    )
    return _describe(family, problem, problem.solve(), low, scale, weighted=spread is not None)


def _reduce(
    map: xr.DataArray, variance: xr.DataArray | None
) -> tuple[xr.DataArray, Float[np.ndarray, "y x"] | None, int]:
    """The map and its smooth variance, block-averaged if large, and the side of the blocks in samples."""
    spread = None if variance is None else _smooth_variance(map, variance)
    factor = math.ceil(math.sqrt(map.size) / LARGEST)
    if factor > 1:
        # The variance is averaged and not divided by the block's area: neighbours are correlated.
        blocks = {"y": factor, "x": factor}
        map = map.coarsen(blocks, boundary="trim").mean()
        spread = None if spread is None else spread.coarsen(blocks, boundary="trim").mean()
    return map, None if spread is None else spread.values, factor


def _smooth_variance(map: xr.DataArray, variance: xr.DataArray) -> xr.DataArray | None:
    """Ring means of the variance, interpolated at every pixel's radius; None if zero everywhere."""
    profile = radial_profile(map, same_grid(variance, map))
    least = float(variance.min())
    if least < 0:
        raise MeasurementError(
            f"the variance is negative somewhere (the least is {least:g}); give the variance of the mean."
        )
    assert profile.variance is not None  # it was asked for; this tells the type checker
    full = profile.count > 0
    peak = profile.variance[full].max()
    if peak == 0:
        return None
    smooth = np.interp(radii(map), profile.radius[full], profile.variance[full])
    return map.copy(data=np.maximum(smooth, VARIANCE_FLOOR * peak))


def _check_values(map: xr.DataArray) -> tuple[float, float]:
    """The least value of the map and its range, by which the fit is made independent of the map's scale."""
    low, high = float(map.min()), float(map.max())
    if low == high == 0:
        raise MeasurementError("the map is zero everywhere: a dead unit, with no falloff to fit; choose another unit.")
    if low == high:
        raise MeasurementError(f"the map is constant ({low:g}), with no falloff to fit; choose another layer or unit.")
    return low, high - low


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
    return FalloffFit(
        family=family,
        parameters=parameters,
        errors=_errors(parameters, covariance),
        covariance=covariance,
        sigma=Ellipse(parameters["sigma_major"], parameters["sigma_minor"], parameters["theta"]).sigma,
        sigma_error=_sigma_error(parameters, covariance),
        r_squared=solution.r_squared,
        reduced_chi_square=solution.reduced_chi_square if weighted else None,
        success=solution.success,
        message=solution.message,
        flags=_flags(problem, solution),
    )


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


def _flags(problem: Problem, solution: Solution) -> tuple[str, ...]:
    raised = {
        "near_bound": solution.near_bound,
        "no_covariance": solution.covariance is None,
        "not_converged": not solution.success,
        "clipped": _reaches_beyond(problem.grid, solution.parameters),
    }
    return tuple(code for code in FLAGS if raised[code])


def _reaches_beyond(grid: GridModel, parameters: dict[str, float]) -> bool:
    """Whether the fitted two-sigma ellipse leaves the map."""
    ellipse = Ellipse(*(parameters[name] for name in ("sigma_major", "sigma_minor", "theta")))
    reach = 2 * np.sqrt(np.diag(ellipse.covariance))
    axes = zip((grid.y, grid.x), (parameters["center_y"], parameters["center_x"]), reach, strict=True)
    return any(bool(center - far < axis.min() or center + far > axis.max()) for axis, center, far in axes)
