"""All sizes of one map at once, with their errors over images: what a table row, a figure and a summary quote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from erflab.analysis.background import above_floor, floor_share
from erflab.analysis.falloff import FalloffFit, fit_samples
from erflab.analysis.families import LARGEST, FamilyComparison, compare_families
from erflab.analysis.jackknife import Estimate, GroupedMap, jackknife
from erflab.analysis.lineshapes import LINE_SHAPES
from erflab.analysis.metrics import (
    contribution_square,
    encircled_energy,
    entropy_area,
    luo_size,
    participation_area,
    ranked_area,
    share_outside,
)
from erflab.analysis.moments import Moments, moments
from erflab.analysis.profile import as_density
from erflab.analysis.replknet import REPLKNET_SHARES, replknet_area_ratio
from erflab.analysis.samples import samples_of
from erflab.errors import MeasurementError

AUTO = "auto"
LEAST_FAMILY = "gaussian"
"""What "auto" takes where families cannot be compared."""

SHARES = (0.5, 0.9, 0.9545, 0.99)

_SQUARES = [f"square_{t:g}" for t in SHARES]
LENGTHS = ["sigma", *(f"radius_{q:g}" for q in SHARES), *_SQUARES, "luo_size"]
AREAS = [*(f"area_{t:g}" for t in SHARES), "entropy_area", "participation_area"]
_ABOVE, _OVER_TRF, _OVER_IMAGE = "_above_floor", "_over_trf", "_over_image"

CORRECTED = frozenset(name + suffix for name in AREAS for suffix in ("", _ABOVE, _OVER_TRF, _OVER_IMAGE))
"""Numbers that are corrected for their bias: noise, which makes some pixels bright by chance, shrinks every area that ranks
or squares pixels. `luo_size` is not among them: it hangs on the one brightest pixel, and there the correction costs more than
it mends (simulated coverage for a Gaussian at N_eff above 100: 92 % as it is, 73 % corrected)."""

_ANGLES = ["orientation", "fit_theta"]
"""Axes, which a half turn leaves as they are."""

_UNITS = {
    **dict.fromkeys([*LENGTHS, "centroid_y", "centroid_x", "fit_center_y", "fit_center_x"], "px"),
    **{f"fit_{name}": "px" for name in ("sigma", "sigma_major", "sigma_minor", "half_width", "moment_sigma")},
    **dict.fromkeys(AREAS, "px^2"),
    **dict.fromkeys(_ANGLES, "rad"),
    **dict.fromkeys(["fit_amplitude", "fit_floor"], "map"),
}
"""Units of the numbers that have one."""


@dataclass(frozen=True)
class Quantity:
    """A number with its unit ("px", "px^2", "rad", "map" for the map's own, or "1") and, where known, its errors."""

    value: float | None
    unit: str
    standard_error: float | None = None
    """Jackknife over groups of scenes."""
    interval: tuple[float, float] | None = None
    """95 %."""

    @classmethod
    def of(cls, estimate: Estimate, unit: str) -> Quantity:
        """An estimate with its unit."""
        return cls(estimate.value, unit, estimate.standard_error, estimate.interval)


@dataclass(frozen=True, eq=False)
class Sizes:
    """The sizes of one map. `moments` and `fit` are of all images; `quantities` have the errors.

    `comparison` tells which falloff family the images support; None where none was asked for, or groups are too few.
    """

    moments: Moments
    fit: FalloffFit
    quantities: dict[str, Quantity]
    comparison: FamilyComparison | None = None


def measure_sizes(
    map: GroupedMap | xr.DataArray,
    *,
    variance: xr.DataArray | None = None,
    box: tuple[float, float, float, float] | None = None,
    trf_size: Sequence[float | None] = (None, None),
    input_size: tuple[int, int] | None = None,
    replknet: bool = False,
    family: str = "gaussian",
    families: Sequence[str] = tuple(LINE_SHAPES),
    elliptical: bool = True,
    floor: bool = True,
) -> Sizes:
    """Every size of a non-negative map and its falloff fit, with jackknife errors and 95 % intervals over images.

    The fit is made anew for every group of scenes left out, always with the same weights, and every size is taken twice: of
    the map, and of the map above the fitted floor (names ending in `_above_floor`, None where no floor was fitted).

    Args:
        map: values on (y, x), px from the unit's centre, by groups of scenes; without groups, numbers have no errors.
        variance: variance of the mean map, for the fit's weights.
        box: the theoretical field as offsets (y0, y1, x0, x1), inclusive; may be infinite.
        trf_size: its side per axis, for the ratios; None or inf gives a ratio of None.
        input_size: (H, W), for areas and squares over H W; None gives None.
        replknet: also the published area ratios of Ding et al. 2022, which depend on the map's scale.
        family: see `fit_falloff`; or "auto", the one of `families` that held-out groups support (`compare_families`).
        families: what "auto" compares.
        elliptical, floor: see `fit_falloff`.

    Raises:
        MeasurementError: the map has negative values, or is zero everywhere.
    """
    grouped = map if isinstance(map, GroupedMap) else GroupedMap.without_groups(map)
    comparison = _compared(grouped, families, elliptical=elliptical, floor=floor) if family == AUTO else None
    if family == AUTO:
        family = comparison.chosen if comparison else LEAST_FAMILY
    samples = samples_of(grouped.mean, variance, LARGEST)
    fit = fit_samples(samples, family, elliptical=elliptical, floor=floor).against(grouped)
    side = mean_side(trf_size)
    image_area = None if input_size is None else float(math.prod(input_size))

    def numbers(map: xr.DataArray) -> dict[str, float | None]:
        fitted = fit
        if map is not grouped.mean:
            fitted = fit_samples(samples.of(map), family, elliptical=elliptical, floor=floor, start=fit)
        extents = _extents(map)
        return {
            **extents,
            **_position(map),
            "share_outside_trf": share_outside(map, box) if box else None,
            **_over_trf(extents, side),
            **_over_image(extents, image_area),
            **_fit_numbers(fitted),
            **_above_floor(map, fitted.parameters["floor"] if floor else None),
            **(_published(map) if replknet else {}),
        }

    estimates = jackknife(numbers, grouped, corrected=CORRECTED, periods=dict.fromkeys(_ANGLES, math.pi))
    quantities = {name: _quantity(name, estimate) for name, estimate in estimates.items()}
    quantities["fit_binned_chi_square"] = Quantity(fit.binned_chi_square, "1")
    return Sizes(moments(grouped.mean), fit, quantities, comparison)


def _compared(
    grouped: GroupedMap, families: Sequence[str], *, elliptical: bool, floor: bool
) -> FamilyComparison | None:
    """The comparison of families; None where the groups are too few, or leave a map out of which nothing can be fitted."""
    try:
        return compare_families(grouped, families, elliptical=elliptical, floor=floor)
    except MeasurementError:
        return None


def _quantity(name: str, estimate: Estimate) -> Quantity:
    """The estimate with its unit; a parameter that the fit held fixed has no error."""
    fixed = name.startswith("fit_") and not estimate.standard_error
    return Quantity.of(Estimate(estimate.value) if fixed else estimate, _UNITS.get(name.removesuffix(_ABOVE), "1"))


def _extents(map: xr.DataArray) -> dict[str, float]:
    """Every length and area of a map."""
    density = as_density(map)
    radius, area = encircled_energy(density), ranked_area(density)
    return {
        "sigma": moments(density).sigma,
        **{f"radius_{q:g}": radius.at(q) for q in SHARES},
        **{f"area_{t:g}": area.at(t) for t in SHARES},
        **{f"square_{t:g}": contribution_square(density, t) for t in SHARES},
        "luo_size": luo_size(density),
        "entropy_area": entropy_area(density),
        "participation_area": participation_area(density),
    }


def _position(map: xr.DataArray) -> dict[str, float | None]:
    about = moments(map)
    return {
        "centroid_y": about.centroid_y,
        "centroid_x": about.centroid_x,
        "anisotropy": about.anisotropy,
        "orientation": about.orientation,
    }


def _over_trf(extents: dict[str, float], side: float | None) -> dict[str, float | None]:
    """Lengths over the TRF's side and areas over its square."""
    powers = dict.fromkeys(LENGTHS, 1) | dict.fromkeys(AREAS, 2)
    return {name + _OVER_TRF: size / side ** powers[name] if side else None for name, size in extents.items()}


def _over_image(extents: dict[str, float], image_area: float | None) -> dict[str, float | None]:
    """Areas, and the areas of squares, over H W."""
    areas = {name: extents[name] for name in AREAS} | {name: extents[name] ** 2 for name in _SQUARES}
    return {name + _OVER_IMAGE: area / image_area if image_area else None for name, area in areas.items()}


def _above_floor(map: xr.DataArray, floor: float | None) -> dict[str, float | None]:
    """The floor's share, and the extents of what lies above it; None where there is no floor, or nothing above it."""
    if floor is None or floor >= float(map.max()):
        return dict.fromkeys(["floor_share", *(name + _ABOVE for name in [*LENGTHS, *AREAS])])
    above = {name + _ABOVE: size for name, size in _extents(above_floor(map, floor)).items()}
    return {"floor_share": floor_share(map, floor), **above}


def _fit_numbers(fit: FalloffFit) -> dict[str, float | None]:
    return {
        "fit_sigma": fit.sigma,
        "fit_half_width": fit.half_width,
        "fit_moment_sigma": fit.moment_sigma,
        **{f"fit_{name}": value for name, value in fit.parameters.items()},
        "fit_r_squared": fit.r_squared,
        "fit_reduced_chi_square": fit.reduced_chi_square,
    }


def _published(map: xr.DataArray) -> dict[str, float | None]:
    return {f"replknet_area_ratio_{t:g}": replknet_area_ratio(map, t) for t in REPLKNET_SHARES}


def mean_side(size: Sequence[float | None]) -> float | None:
    """Geometric mean of the field's sides, None where one is unknown or unbounded."""
    sides = [s for s in size if s is not None and math.isfinite(s) and s > 0]
    return math.sqrt(sides[0] * sides[1]) if len(sides) == len(size) == 2 else None
