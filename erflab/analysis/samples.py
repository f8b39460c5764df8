"""What a falloff model is fitted to: the samples of a map or a radial profile, with the deviations that weigh them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from erflab.analysis.gridmodel import GridModel, RingModel
from erflab.analysis.lineshapes import LineShape
from erflab.analysis.profile import RadialProfile, check_map, radial_profile, radii, same_grid
from erflab.errors import ConfigError, MeasurementError

LARGEST = 512
"""Maps above this many pixels squared are block-averaged before the fit."""

VARIANCE_FLOOR = 1e-2
"""Least variance, as a share of the largest: a tenth of its standard deviation. Far out a map is known to many digits, in
more pixels than its core has; without this floor a family that is not quite the truth is fitted to the tails alone."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Values at y by x (px), averaged over blocks of `block` by `block` px; for a profile one row, x being the radii.

    deviations: standard deviations of the values, up to a common factor unless `weighted`.
    spread: of a profile, the standard deviation of the radii within each ring, in px.
    """

    values: Float[np.ndarray, "y x"]
    y: Float[np.ndarray, " y"]
    x: Float[np.ndarray, " x"]
    deviations: Float[np.ndarray, "y x"]
    weighted: bool
    block: int = 1
    spread: Float[np.ndarray, " x"] | None = None

    def __post_init__(self) -> None:
        """Refuse what has no falloff."""
        if self.scale > 0:
            return
        if self.low == 0:
            raise MeasurementError(
                "the map is zero everywhere: a dead unit, with no falloff to fit; choose another unit."
            )
        raise MeasurementError(
            f"the map is constant ({self.low:g}), with no falloff to fit; choose another layer or unit."
        )

    @property
    def low(self) -> float:
        """The least value."""
        return float(self.values.min())

    @property
    def scale(self) -> float:
        """The range of the values, by which a fit is made independent of the map's scale."""
        return float(self.values.max()) - self.low

    def grid(self, shape: LineShape) -> GridModel:
        """The model at these samples."""
        if self.spread is None:
            return GridModel(self.y, self.x, shape, self.block)
        return RingModel(self.y, self.x, shape, spread=self.spread)

    def of(self, map: xr.DataArray) -> Samples:
        """Another map on the same grid, weighed alike."""
        return replace(self, values=self.means(map))

    def means(self, map: xr.DataArray) -> Float[np.ndarray, "y x"]:
        """Another map on the same grid, averaged over the blocks."""
        return np.asarray(_block_means(map, self.block).values)


def samples_of(
    map: xr.DataArray | RadialProfile, variance: xr.DataArray | None = None, largest: int = LARGEST
) -> Samples:
    """The samples of a map or a profile; maps of more than `largest` px squared are block-averaged.

    Raises:
        ConfigError: if a variance is given beside a profile, which holds its own.
        MeasurementError: if the map or the variance is no map, or the map is zero or constant.

    """
    if isinstance(map, RadialProfile):
        if variance is not None:
            raise ConfigError("variance is given beside a radial profile; give it to radial_profile instead.")
        return _ring_samples(map)
    checked = check_map(map)
    smooth = None if variance is None else _smooth_variance(checked, variance)
    block = math.ceil(math.sqrt(checked.size) / largest)
    means = _block_means(checked, block)
    # The variance is averaged and not divided by the block's area: neighbours are correlated.
    deviations = np.ones(means.shape) if smooth is None else np.sqrt(_block_means(smooth, block).values)
    y, x = (np.asarray(means[axis].values, float) for axis in ("y", "x"))
    return Samples(means.values, y, x, deviations, smooth is not None, block)


def _block_means(map: xr.DataArray, block: int) -> xr.DataArray:
    return map.coarsen({"y": block, "x": block}, boundary="trim").mean() if block > 1 else map


def _ring_samples(profile: RadialProfile) -> Samples:
    full = profile.count > 0
    count = profile.count[full]
    known = profile.variance is not None and bool((profile.variance[full] > 0).any())
    variance = _floored(profile.variance[full]) if known and profile.variance is not None else np.ones(len(count))
    # Radii spread evenly over a ring's width; a ring of one pixel has one radius.
    spread = np.where(count > 1, np.diff(profile.edges)[full] / math.sqrt(12), 0.0)
    # A ring weighs as its pixels together do in the fit of a map.
    deviations = np.sqrt(variance / count)[None]
    return Samples(profile.mean[full][None], np.zeros(1), profile.radius[full], deviations, known, spread=spread)


def _floored(variance: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.asarray(np.maximum(variance, VARIANCE_FLOOR * variance.max()))


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
    if profile.variance[full].max() == 0:
        return None
    floored = _floored(profile.variance[full])
    return map.copy(data=np.interp(radii(map), profile.radius[full], floored))
