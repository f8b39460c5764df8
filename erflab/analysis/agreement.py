"""How far two maps agree: shape and size, on one grid, with errors from the scenes that both were measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import wasserstein_distance

from erflab.analysis.jackknife import Estimate, GroupedMap, jackknife
from erflab.analysis.metrics import overlap
from erflab.analysis.moments import moments
from erflab.analysis.profile import as_density, check_map, radii, same_grid, spacing

_RANGES = {
    "cosine": (0.0, 1.0),
    "total_variation": (0.0, 1.0),
    "radial_earth_mover": (0.0, math.inf),
    "sigma_ratio": (0.0, math.inf),
}
"""What each number can be; an interval ends there."""


def agreement(first: xr.DataArray, second: xr.DataArray) -> dict[str, float]:
    """Three numbers of two maps on the same grid, each map as a density p, q.

    - cosine: sum p q / sqrt(sum p^2 sum q^2), 1 for equal shapes;
    - total_variation: sum |p - q| / 2, the share of the mass that lies elsewhere, from 0 to 1;
    - radial_earth_mover: the earth mover's distance in px of the two distributions of the distance from the unit's
      centre: how far the mass must move inward or outward on average. It bounds that of the plane from below.

    Raises:
        MeasurementError: if a map has no density, or the grids differ.
    """
    p, q = as_density(first), as_density(same_grid(second, check_map(first)))
    radius = radii(p).ravel()
    return {
        "cosine": float(np.sum(p.values * q.values) / np.sqrt(np.sum(p.values**2) * np.sum(q.values**2))),
        "total_variation": float(np.abs(p.values - q.values).sum() / 2),
        "radial_earth_mover": float(wasserstein_distance(radius, radius, p.values.ravel(), q.values.ravel())),
    }


def resampled(map: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """The map on the grid of `like`: each sample the sum over its cell, pixels on the cell's edge in part.

    The grids may differ in spacing and in phase. What lies outside the map counts as zero.
    """
    return _boxes(map, like, spacing(check_map(like)))


def blurred(map: xr.DataArray, patch: int, like: xr.DataArray) -> xr.DataArray:
    """The sum of a map over a patch of `patch` by `patch` px centred on each sample of `like`.

    What occlusion should see: for a linear network and white images of variance 1 around the fill, the mean squared change
    by a patch is the energy J^2 summed over its pixels. So sigma_occlusion^2 = sigma_energy^2 + (patch^2 - 1) / 12.
    """
    return _boxes(map, like, (patch, patch))


def _boxes(map: xr.DataArray, like: xr.DataArray, sides: tuple[float, float]) -> xr.DataArray:
    """Sums over boxes about the samples of `like`: a separable overlap of intervals."""
    source, target = check_map(map), check_map(like)
    along_y, along_x = (
        _overlaps(source, target, axis, step, side)
        for axis, step, side in zip(("y", "x"), spacing(source), sides, strict=True)
    )
    return target.copy(data=along_y @ source.values @ along_x.T)


def _overlaps(
    source: xr.DataArray, target: xr.DataArray, axis: str, step: float, side: float
) -> Float[np.ndarray, "target source"]:
    """Share of each source sample's interval inside the box about each target sample."""
    offset = np.asarray(source[axis].values, float)[None, :] - np.asarray(target[axis].values, float)[:, None]
    return overlap(offset, step, side)


def joint_agreement(
    first: GroupedMap | xr.DataArray, second: GroupedMap, patch: int | None = None
) -> dict[str, Estimate]:
    """`agreement` of two maps and `sigma_ratio`, first over second, with errors, on the grid of the second.

    Noise in either map keeps them apart: with few images the distances are upper bounds and the cosine a lower one.

    Args:
        first: the finer map, such as the gradient's; of the same scenes, or without images, such as a predicted field.
        second: the map whose grid is taken.
        patch: side in px by which the first map is blurred (see `blurred`) before it is compared; None for not at all.

    Raises:
        MeasurementError: if a map has no density, or the groups differ.
    """

    def numbers(one: xr.DataArray, other: xr.DataArray) -> Mapping[str, float | None]:
        common = resampled(one, other) if patch is None else blurred(one, patch, other)
        # Resampling widens a map by the cell, so an unblurred one gives its own sigma.
        width = moments(one if patch is None else common).sigma
        return {**agreement(common, other), "sigma_ratio": _ratio(width, moments(other).sigma)}

    if isinstance(first, GroupedMap):
        estimates = jackknife(numbers, first, second)
    else:
        estimates = jackknife(lambda map: numbers(first, map), second)
    return {name: _within(estimate, *_RANGES[name]) for name, estimate in estimates.items()}


def _within(estimate: Estimate, low: float, high: float) -> Estimate:
    if estimate.interval is None:
        return estimate
    return replace(estimate, interval=(max(estimate.interval[0], low), min(estimate.interval[1], high)))


def _ratio(first: float, second: float) -> float | None:
    """None where the second map is a single sample."""
    return first / second if second > 0 else None
