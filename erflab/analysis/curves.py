"""Curves of a map with a standard error at every point: sections, radial profiles, encircled shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from erflab.analysis.jackknife import GroupedMap, jackknife
from erflab.analysis.metrics import encircled_energy
from erflab.analysis.profile import cell_side, check_map, radial_profile, radii, section


@dataclass(frozen=True, eq=False)
class Curve:
    """Values along a line in px, with the jackknife standard error of each over groups of scenes."""

    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    standard_error: Float[np.ndarray, " points"] | None = None
    """None where there are fewer than two groups."""

    def relative_to(self, peak: float) -> Curve:
        """The same curve over a number taken as exact."""
        error = None if self.standard_error is None else self.standard_error / peak
        return Curve(self.x, self.y / peak, error)


def section_curve(grouped: GroupedMap, axis: str = "x", width: float = 1.0) -> Curve:
    """The map along an axis through the unit's centre, averaged over a strip (see `profile.section`)."""
    places = np.asarray(check_map(grouped.mean)[axis].values, float)
    return _with_error(grouped, places, lambda map: section(map, axis, width).values)


def radial_curve(grouped: GroupedMap) -> Curve:
    """The mean over rings one sample wide about the unit's centre (see `profile.radial_profile`), empty rings left out."""
    profile = radial_profile(grouped.mean)
    kept = profile.count > 0
    return _with_error(grouped, profile.radius[kept], lambda map: radial_profile(map).mean[kept])


def encircled_curve(grouped: GroupedMap) -> Curve:
    """The share of the map within each distance of the unit's centre (see `metrics.encircled_energy`)."""
    places = np.arange(0.0, float(radii(grouped.mean).max()) + 1, cell_side(grouped.mean))

    def shares(map: xr.DataArray) -> Float[np.ndarray, " points"]:
        curve = encircled_energy(map)
        return np.asarray(np.interp(places, curve.size, curve.share))

    return _with_error(grouped, places, shares)


def _with_error(
    grouped: GroupedMap,
    places: Float[np.ndarray, " points"],
    values: Callable[[xr.DataArray], Float[np.ndarray, " points"]],
) -> Curve:
    found = jackknife(lambda map: {str(i): float(v) for i, v in enumerate(values(map))}, grouped).values()
    errors = np.array([np.nan if e.standard_error is None else e.standard_error for e in found])
    return Curve(places, np.array([e.value for e in found], float), None if np.isnan(errors).any() else errors)
