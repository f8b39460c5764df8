"""From a map to its density, its radial profile and its sections.

A map is a `DataArray` with dims ("y", "x") whose coordinates are offsets in px from the unit's true centre. They are
evenly spaced, may be half-integers (an even field) and may lie more than a pixel apart (an occlusion map). Values are
linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from erflab.errors import ConfigError, MeasurementError

_EVEN = 1e-6  # spacings may differ by this share: float32 coordinates are evenly spaced to no better


@dataclass(frozen=True, eq=False)
class RadialProfile:
    """A map averaged over rings about the unit's centre.

    Values are those of the map; `total` is the number that normalises them. Empty rings have count 0 and mean NaN.
    """

    edges: Float[np.ndarray, " edges"]
    """Edges of the rings in px; a pixel belongs to the ring that holds its centre, lower edge included."""
    radius: Float[np.ndarray, " rings"]
    """Mean distance of the ring's pixels from the unit's centre, in px (middle of the edges where empty)."""
    mean: Float[np.ndarray, " rings"]
    """Mean value of the ring's pixels, in the map's unit."""
    count: Int[np.ndarray, " rings"]
    """Number of pixels in the ring."""
    total: float
    """Sum of the whole map, pixels beyond the last edge included."""
    variance: Float[np.ndarray, " rings"] | None = None
    """Mean of the given per-pixel variance. It bounds the variance of `mean` from above; dividing it by `count` would
    take the ring's pixels as independent, which those of an ERF are not."""

    @property
    def share(self) -> Float[np.ndarray, " rings"]:
        """Share of the map's sum from the first edge out to each ring's outer edge (1 at the rim of a whole map)."""
        sums = np.where(self.count > 0, self.mean * self.count, 0.0)
        return np.asarray(np.cumsum(sums) / self.total)


def check_map(map: xr.DataArray) -> xr.DataArray:
    """The map in float64 with dims in the order (y, x).

    Raises:
        MeasurementError: if dims or coordinates are not those of a map, or a value is not finite.

    """
    if set(map.dims) != {"y", "x"} or map.ndim != 2:
        raise MeasurementError(f'the map has dims {tuple(map.dims)}; give a DataArray with dims ("y", "x").')
    for axis in ("y", "x"):
        _check_axis(map, axis)
    # Sizes check a map a thousand times: what is in order already is not copied.
    checked = map if map.dims == ("y", "x") else map.transpose("y", "x")
    checked = checked if checked.dtype == np.float64 else checked.astype(np.float64)
    finite = np.isfinite(checked.values)
    if not finite.all():
        raise MeasurementError(
            f"the map has {np.count_nonzero(~finite)} non-finite values of {finite.size}; measure it again in float64 "
            "or leave out the images that overflow."
        )
    return checked


def _check_axis(map: xr.DataArray, axis: str) -> None:
    if axis not in map.coords:
        raise MeasurementError(f"the map has no coordinate {axis!r}; give offsets in px from the unit's centre.")
    values = np.asarray(map[axis].values, dtype=np.float64)
    if values.size < 2:
        raise MeasurementError(f"the map has {values.size} px along {axis}; give at least 2.")
    steps = np.diff(values)
    # `not <=` instead of `>`, so that NaN coordinates are refused too.
    if steps[0] == 0 or not np.abs(steps - steps.mean()).max() <= _EVEN * abs(steps.mean()):
        raise MeasurementError(
            f"coordinate {axis!r} is not evenly spaced (steps from {steps.min():g} to {steps.max():g} px); "
            "interpolate the map onto an even grid."
        )


def as_density(map: xr.DataArray) -> xr.DataArray:
    """The map as a density: p = d / sum d, float64, sum 1, dims (y, x).

    Raises:
        MeasurementError: if `map` is no map, has non-finite or negative values, or is zero everywhere.

    """
    checked = check_map(map)
    values = checked.values
    least = float(values.min())
    if least < 0:
        raise MeasurementError(
            f"a size is refused where the map has negative values (the least is {least:g}), as the signed magnitude "
            "has; measure magnitude=energy or magnitude=absolute."
        )
    peak = float(values.max())
    if peak == 0:
        raise MeasurementError(
            "the map is zero everywhere: a dead unit, or half-precision underflow; choose another unit or channel, "
            "or measure in float32."
        )
    relative = values / peak  # first to the peak: the sum of huge or denormal values would lose precision
    return checked.copy(data=relative / relative.sum())


def spacing(map: xr.DataArray) -> tuple[float, float]:
    """Distance of neighbouring samples in px, (dy, dx), both positive."""
    y, x = np.asarray(map["y"].values, float), np.asarray(map["x"].values, float)
    return abs(float(y[-1] - y[0])) / (y.size - 1), abs(float(x[-1] - x[0])) / (x.size - 1)


def cell_area(map: xr.DataArray) -> float:
    """Area in px^2 that one sample stands for: dy dx."""
    dy, dx = spacing(map)
    return dy * dx


def cell_side(map: xr.DataArray) -> float:
    """Side in px of the square with the area of one sample's cell."""
    return float(np.sqrt(cell_area(map)))


def radii(map: xr.DataArray) -> Float[np.ndarray, "y x"]:
    """Distance in px of every sample from the unit's centre."""
    y, x = np.asarray(map["y"].values, float), np.asarray(map["x"].values, float)
    return np.asarray(np.hypot(y[:, None], x[None, :]))


def _ring_edges(radius: Float[np.ndarray, "y x"], width: float) -> Float[np.ndarray, " edges"]:
    """Rings one sample wide; a sample on the centre gets a disc of half that width, so that it is not averaged away."""
    first = width / 2 if radius.min() < width / 4 else width
    rings = int(np.floor((radius.max() - first) / width)) + 2
    return np.concatenate([[0.0], first + width * np.arange(rings)])


def radial_profile(
    map: xr.DataArray, variance: xr.DataArray | None = None, edges: ArrayLike | None = None
) -> RadialProfile:
    """The mean of the map over rings about the unit's centre.

    Args:
        map: values on (y, x); negative ones are allowed.
        variance: variance of every value (of the mean over images, say), on the same grid.
        edges: increasing ring edges in px; by default rings as wide as the spacing.

    Raises:
        MeasurementError: if `map` or `variance` is no map, or their grids differ.
        ConfigError: if the edges do not increase.

    """
    checked = check_map(map)
    radius = radii(checked)
    limits = _ring_edges(radius, cell_side(checked)) if edges is None else _check_edges(edges)
    ring = np.digitize(radius, limits).ravel() - 1
    kept = (ring >= 0) & (ring < limits.size - 1)

    def average(values: Float[np.ndarray, "y x"], empty: ArrayLike) -> Float[np.ndarray, " rings"]:
        sums = np.bincount(ring[kept], values.ravel()[kept], minlength=limits.size - 1)
        return np.where(count > 0, sums / np.maximum(count, 1), empty)

    count = np.bincount(ring[kept], minlength=limits.size - 1)
    return RadialProfile(
        edges=limits,
        radius=average(radius, (limits[:-1] + limits[1:]) / 2),
        mean=average(checked.values, np.nan),
        count=count,
        total=float(checked.sum()),
        variance=None if variance is None else average(same_grid(variance, checked).values, np.nan),
    )


def _check_edges(edges: ArrayLike) -> Float[np.ndarray, " edges"]:
    limits = np.asarray(edges, dtype=np.float64)
    if limits.ndim != 1 or limits.size < 2 or not (np.diff(limits) > 0).all():
        raise ConfigError(f"edges is {limits.tolist()}; give at least two increasing radii in px.")
    return limits


def same_grid(other: xr.DataArray, map: xr.DataArray) -> xr.DataArray:
    """`other`, checked to be a map on the grid of `map`.

    Raises:
        MeasurementError: if it is no map, or its grid differs.

    """
    checked = check_map(other)
    if any(not np.array_equal(checked[axis].values, map[axis].values) for axis in ("y", "x")):
        shapes = f"{dict(checked.sizes)} against {dict(map.sizes)}"
        raise MeasurementError(f"the two maps lie on different grids ({shapes}); give both the same y and x.")
    return checked


def section(map: xr.DataArray, axis: str = "x", width: float = 1.0) -> xr.DataArray:
    """The map along one axis through the unit's centre, averaged over the strip |other axis| <= width / 2.

    At least the nearest samples are taken: one row where a row lies on the centre, two where it falls between them.

    Args:
        map: values on (y, x).
        axis: "y" or "x", the axis that remains.
        width: width of the strip in px.

    Raises:
        MeasurementError: if `map` is no map.
        ConfigError: if the axis is unknown or the width not positive.

    """
    checked = check_map(map)
    other: Sequence[str] = [name for name in ("y", "x") if name != axis]
    if len(other) != 1:
        raise ConfigError(f"axis is {axis!r}; choose 'y' or 'x'.")
    if not width > 0:
        raise ConfigError(f"width is {width!r}; give a positive width in px.")
    distance = np.abs(np.asarray(checked[other[0]].values, float))
    strip = distance <= max(width / 2, distance.min()) * (1 + _EVEN) + _EVEN
    return checked.isel({other[0]: np.flatnonzero(strip)}).mean(other[0])
