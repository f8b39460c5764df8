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
from scipy.special import entr

from erflab.analysis.profile import as_density, cell_area, cell_side, radii, spacing
from erflab.errors import ConfigError

LUO_LEVEL = 1 - 0.9545
"""The share of the peak above which a pixel counts (Luo et al. 2016: one minus the mass within two sigma)."""

_ON_EDGE = 1e-6  # px by which a sample may miss the edge of a box and still lie on it


def check_share(share: float) -> None:
    """Raise ConfigError if a share is not inside (0, 1)."""
    if not 0 < share < 1:
        raise ConfigError(f"the share is {share!r}; give a number between 0 and 1, both excluded.")


@dataclass(frozen=True, eq=False)
class ShareCurve:
    """The share of a map's sum that a size holds, piecewise linear and growing: read it at as many shares as you like."""

    size: Float[np.ndarray, " knots"]
    """px for a radius, px^2 for an area; may begin below zero."""
    share: Float[np.ndarray, " knots"]
    """From 0 to 1."""

    def at(self, share: float) -> float:
        """The least size that holds the share, at least zero. Raises ConfigError if it is not inside (0, 1)."""
        check_share(share)
        held = share * self.share[-1]  # which rounding may leave beside 1
        above = int(np.searchsorted(self.share, held))
        below = above - 1
        rise = (held - self.share[below]) / (self.share[above] - self.share[below])
        return max(0.0, float(self.size[below] + rise * (self.size[above] - self.size[below])))


def encircled_energy(map: xr.DataArray) -> ShareCurve:
    """The share inside the disc of radius R (px) about the unit's centre.

    share(R) = sum p clip((R - r) / s + 1/2, 0, 1), s the spacing: a ring of pixels is taken in gradually. A pixel on the
    centre is half taken in at R = 0; smaller shares need no disc.
    """
    density = as_density(map)
    side = cell_side(density)
    radius, ring = np.unique(radii(density).ravel(), return_inverse=True)
    slopes = np.bincount(ring.ravel(), density.values.ravel()) / side
    # Every pixel adds its slope where its soft edge begins and takes it back where that ends.
    knots = np.concatenate([radius - side / 2, radius + side / 2])
    order = np.argsort(knots, kind="stable")
    knots, slope = knots[order], np.cumsum(np.concatenate([slopes, -slopes])[order])
    return ShareCurve(knots, np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(knots))]))


def ranked_area(map: xr.DataArray) -> ShareCurve:
    """The share that the brightest pixels of a given area (px^2) hold, the last one in part."""
    density = as_density(map)
    share = np.cumsum(np.sort(density.values, axis=None)[::-1])
    return ShareCurve(np.arange(share.size + 1) * cell_area(density), np.concatenate([[0.0], share]))


def radius_at(map: xr.DataArray, q: float) -> float:
    """Radius in px of the disc about the unit's centre that holds the share q (see `encircled_energy`).

    A centred Gaussian has sigma sqrt(-2 ln(1 - q)).

    Raises:
        ConfigError: if q is not inside (0, 1).

    """
    return encircled_energy(map).at(q)


def contribution_area(map: xr.DataArray, t: float) -> float:
    """Area in px^2 of the fewest pixels that hold the share t, the last one in part.

    The high-contribution area of Ding et al. 2022 on the linear map. A Gaussian has -2 pi sigma^2 ln(1 - t).

    Raises:
        ConfigError: if t is not inside (0, 1).

    """
    return ranked_area(map).at(t)


def entropy_area(map: xr.DataArray) -> float:
    """Effective area in px^2: exp(-sum p ln p) pixels, those of a uniform field of the same entropy.

    A Gaussian has 2 pi e sigma^2.
    """
    density = as_density(map)
    # Zeros add nothing: p ln p tends to zero.
    return float(np.exp(entr(density.values).sum())) * cell_area(density)


def participation_area(map: xr.DataArray) -> float:
    """Effective area in px^2: 1 / sum p^2 pixels (the inverse participation ratio). A Gaussian has 4 pi sigma^2."""
    density = as_density(map)
    return cell_area(density) / float(np.sum(density.values**2))


def contribution_square(map: xr.DataArray, t: float) -> float:
    """Side in px of the smallest square about the unit's centre that holds the share t.

    A sample v stands for the interval [v - s/2, v + s/2], counted by its overlap with [-side/2, side/2]. A centred
    Gaussian has erf(side / (2 sqrt(2) sigma))^2 = t.

    Raises:
        ConfigError: if t is not inside (0, 1).

    """
    check_share(t)
    density = as_density(map)
    steps = spacing(density)
    y, x = np.asarray(density["y"].values, float), np.asarray(density["x"].values, float)

    def missing(side: float) -> float:
        return float(overlap(y, steps[0], side) @ density.values @ overlap(x, steps[1], side)) - t

    largest = 2 * max(np.abs(y).max() + steps[0] / 2, np.abs(x).max() + steps[1] / 2)
    if missing(largest) <= 0:  # t within rounding of 1
        return float(largest)
    return float(brentq(missing, 0.0, largest, xtol=1e-12 * largest))


def overlap(samples: Float[np.ndarray, "*grid"], step: float, side: float) -> Float[np.ndarray, "*grid"]:
    """Share of each sample's interval that lies inside [-side/2, side/2]."""
    inside = np.minimum(samples + step / 2, side / 2) - np.maximum(samples - step / 2, -side / 2)
    return np.asarray(np.clip(inside, 0.0, None) / step)


def luo_size(map: xr.DataArray) -> float:
    """Side in px of the square with the area of all pixels above 4.55 % of the peak (Luo et al. 2016).

    A Gaussian has sqrt(-2 pi ln 0.0455) sigma = 4.406 sigma.
    """
    density = as_density(map)
    bright = np.count_nonzero(density.values > LUO_LEVEL * density.values.max())
    return float(np.sqrt(bright * cell_area(density)))


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
