"""All sizes of one map at once: what a table row, a figure and a summary quote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from erflab.analysis.falloff import FalloffFit, fit_falloff
from erflab.analysis.metrics import (
    Moments,
    contribution_area,
    contribution_square,
    luo_size,
    moments,
    radius_at,
    share_outside,
)

SHARES = (0.5, 0.9, 0.9545, 0.99)


@dataclass(frozen=True, eq=False)
class Quantity:
    """A number with its unit ("px", "px^2" or "1") and, where known, its standard error."""

    value: float | None
    unit: str
    standard_error: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Sizes:
    """The sizes of one map."""

    moments: Moments
    fit: FalloffFit
    quantities: dict[str, Quantity]


def measure_sizes(
    map: xr.DataArray,
    *,
    variance: xr.DataArray | None = None,
    box: tuple[float, float, float, float] | None = None,
    trf_size: Sequence[float | None] = (None, None),
    family: str = "gaussian",
    elliptical: bool = True,
    floor: bool = True,
) -> Sizes:
    """Every size of a non-negative map and its falloff fit.

    Args:
        map: values on (y, x), px from the unit's centre.
        variance: variance of the mean map, for the fit's weights.
        box: the theoretical field as offsets (y0, y1, x0, x1), inclusive; may be infinite.
        trf_size: its side per axis, for the ratios; None or inf gives a ratio of None.
        family, elliptical, floor: see `fit_falloff`.

    Raises:
        MeasurementError: the map has negative values, or is zero everywhere.
    """
    about = moments(map)
    fit = fit_falloff(map, family, variance=variance, elliptical=elliptical, floor=floor)
    quantities = {
        "sigma": Quantity(about.sigma, "px"),
        "centroid_y": Quantity(about.centroid_y, "px"),
        "centroid_x": Quantity(about.centroid_x, "px"),
        "anisotropy": Quantity(about.anisotropy, "1"),
        "orientation": Quantity(about.orientation, "rad"),
        **{f"radius_{q:g}": Quantity(radius_at(map, q), "px") for q in SHARES},
        **{f"area_{t:g}": Quantity(contribution_area(map, t), "px^2") for t in SHARES},
        **{f"square_{t:g}": Quantity(contribution_square(map, t), "px") for t in SHARES},
        "luo_size": Quantity(luo_size(map), "px"),
        "share_outside_trf": Quantity(share_outside(map, box) if box else None, "1"),
        **_fit_quantities(fit),
    }
    side = mean_side(trf_size)
    for name in ("sigma", "luo_size", "square_0.9545"):
        size = quantities[name].value
        quantities[f"{name}_over_trf"] = Quantity(size / side if side and size is not None else None, "1")
    return Sizes(about, fit, quantities)


def mean_side(size: Sequence[float | None]) -> float | None:
    """Geometric mean of the field's sides, None where one is unknown or unbounded."""
    sides = [s for s in size if s is not None and math.isfinite(s) and s > 0]
    return math.sqrt(sides[0] * sides[1]) if len(sides) == len(size) == 2 else None


def _fit_quantities(fit: FalloffFit) -> dict[str, Quantity]:
    units = {"amplitude": "map", "floor": "map", "theta": "rad"}
    return {
        "fit_sigma": Quantity(fit.sigma, "px", fit.sigma_error),
        **{f"fit_{n}": Quantity(v, units.get(n, "px"), fit.errors.get(n)) for n, v in fit.parameters.items()},
        "fit_r_squared": Quantity(fit.r_squared, "1"),
        "fit_reduced_chi_square": Quantity(fit.reduced_chi_square, "1"),
    }
