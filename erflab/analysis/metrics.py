"""Sizes of a map, each a pure function with one closed form that tests it.

All work on the linear, non-negative map as a density p = d / sum d, with y and x in px from the unit's centre. Shares
are interpolated continuously: counting whole pixels would make a size jump, and ruin its interval.
All raise `MeasurementError` where the map has no density (see `as_density`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.optimize import brentq

from erflab.analysis.ellipse import Ellipse
from erflab.analysis.profile import as_density, cell_side, radii, spacing
from erflab.errors import ConfigError

LUO_LEVEL = 1 - 0.9545
"""The share of the peak above which a pixel counts (Luo et al. 2016: one minus the mass within two sigma)."""

_ON_EDGE = 1e-6  # px by which a sample may miss the edge of a box and still lie on it


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of a density, in px."""

    centroid_y: float
    centroid_x: float
    covariance: Float[np.ndarray, "2 2"]
    """About the centroid, in px^2, rows and columns in the order (y, x)."""

    @property
    def ellipse(self) -> Ellipse:
        """The ellipse with this covariance."""
        return Ellipse.from_covariance(self.covariance)

    @property
    def sigma(self) -> float:
        """sqrt(trace / 2) in px."""
        return self.ellipse.sigma

    @property
    def anisotropy(self) -> float:
        """sigma_major / sigma_minor."""
        return self.ellipse.anisotropy

    @property
    def orientation(self) -> float:
        """Angle of the major axis in radians from +x towards +y, in [-pi/2, pi/2); of no meaning at anisotropy 1."""
        return self.ellipse.theta


def moments(map: xr.DataArray) -> Moments:
    """Centroid and covariance of a map: c = sum p v and C = sum p (v - c)(v - c)^T, v = (y, x)."""
    density = as_density(map)
    along_y, along_x = density.sum("x").values, density.sum("y").values
    y, x = np.asarray(density["y"].values, float), np.asarray(density["x"].values, float)
    center_y, center_x = float(along_y @ y), float(along_x @ x)
    dy, dx = y - center_y, x - center_x
    yx = dy @ density.values @ dx
    return Moments(center_y, center_x, np.array([[along_y @ dy**2, yx], [yx, along_x @ dx**2]]))


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value!r}; give a share between 0 and 1, both excluded.")


def radius_at(map: xr.DataArray, q: float) -> float:
    """Radius in px of the disc about the unit's centre that holds the share q (encircled energy).

    share(R) = sum p clip((R - r) / s + 1/2, 0, 1), s the spacing: a ring of pixels is taken in gradually. It is
    piecewise linear, and solved exactly. A centred Gaussian has sigma sqrt(-2 ln(1 - q)).

    Raises:
        ConfigError: if q is not inside (0, 1).

    """
    _check_share("q", q)
    density = as_density(map)
    side = cell_side(density)
    radius, ring = np.unique(radii(density).ravel(), return_inverse=True)
    slopes = np.bincount(ring.ravel(), density.values.ravel()) / side
    # Every pixel adds its slope where its soft edge begins and takes it back where that ends.
    knots = np.concatenate([radius - side / 2, radius + side / 2])
    order = np.argsort(knots, kind="stable")
    knots, slope = knots[order], np.cumsum(np.concatenate([slopes, -slopes])[order])
    share = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(knots))])
    above = int(np.searchsorted(share, q))
    below = above - 1
    rise = (q - share[below]) / (share[above] - share[below])
    # A pixel on the centre is half taken in at R = 0; smaller shares need no disc.
    return max(0.0, float(knots[below] + rise * (knots[above] - knots[below])))


def contribution_area(map: xr.DataArray, t: float) -> float:
    """Area in px^2 of the fewest pixels that hold the share t, the last one in part.

    The high-contribution area of Ding et al. 2022 on the linear map. A Gaussian has -2 pi sigma^2 ln(1 - t).

    Raises:
        ConfigError: if t is not inside (0, 1).

    """
    _check_share("t", t)
    density = as_density(map)
    share = np.cumsum(np.sort(density.values, axis=None)[::-1])
    whole = int(np.searchsorted(share, t))
    below = share[whole - 1] if whole else 0.0
    dy, dx = spacing(density)
    return float(whole + (t - below) / (share[whole] - below)) * dy * dx


def contribution_square(map: xr.DataArray, t: float) -> float:
    """Side in px of the smallest square about the unit's centre that holds the share t.

    A sample v stands for the interval [v - s/2, v + s/2], counted by its overlap with [-side/2, side/2]. A centred
    Gaussian has erf(side / (2 sqrt(2) sigma))^2 = t.

    Raises:
        ConfigError: if t is not inside (0, 1).

    """
    _check_share("t", t)
    density = as_density(map)
    steps = spacing(density)
    y, x = np.asarray(density["y"].values, float), np.asarray(density["x"].values, float)

    def missing(side: float) -> float:
        return float(_overlap(y, steps[0], side) @ density.values @ _overlap(x, steps[1], side)) - t

    largest = 2 * max(np.abs(y).max() + steps[0] / 2, np.abs(x).max() + steps[1] / 2)
    if missing(largest) <= 0:  # t within rounding of 1
        return float(largest)
    return float(brentq(missing, 0.0, largest, xtol=1e-12 * largest))


def _overlap(samples: Float[np.ndarray, " n"], step: float, side: float) -> Float[np.ndarray, " n"]:
    """Share of each sample's interval that lies inside [-side/2, side/2]."""
    inside = np.minimum(samples + step / 2, side / 2) - np.maximum(samples - step / 2, -side / 2)
    return np.asarray(np.clip(inside, 0.0, None) / step)


def luo_size(map: xr.DataArray) -> float:
    """Side in px of the square with the area of all pixels above 4.55 % of the peak (Luo et al. 2016).

    A Gaussian has sqrt(-2 pi ln 0.0455) sigma = 4.406 sigma.
    """
    density = as_density(map)
    dy, dx = spacing(density)
    return float(np.sqrt(np.count_nonzero(density.values > LUO_LEVEL * density.values.max()) * dy * dx))


def share_outside(map: xr.DataArray, box: Sequence[float]) -> float:
    """Share of the mass on samples outside a box, such as the theoretical field.

    Args:
        map: values on (y, x).
        box: (y0, y1, x0, x1) in px from the unit's centre, inclusive; may be infinite.

    Raises:
        ConfigError: if the box is empty or not four numbers.

    """
    if len(box) != 4 or not (box[0] <= box[1] and box[2] <= box[3]):
        raise ConfigError(f"box is {tuple(box)}; give (y0, y1, x0, x1) with y0 <= y1 and x0 <= x1.")
    density = as_density(map)
    rows = _inside(np.asarray(density["y"].values, float), box[0], box[1])
    columns = _inside(np.asarray(density["x"].values, float), box[2], box[3])
    # Summing what is outside keeps a share of 1e-12 that one minus the inside would lose.
    return float(density.values[~(rows[:, None] & columns[None, :])].sum())


def _inside(samples: Float[np.ndarray, " n"], low: float, high: float) -> np.ndarray:
    return np.asarray((samples >= low - _ON_EDGE) & (samples <= high + _ON_EDGE))
