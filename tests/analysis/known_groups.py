"""Groups of image maps about a known map."""

from __future__ import annotations

import numpy as np
import xarray as xr
from known_maps import as_map, offsets
from scipy.ndimage import gaussian_filter

from erflab.analysis import LINE_SHAPES, Ellipse
from erflab.analysis.jackknife import GroupedMap


def family_map(
    family: str,
    *extras: float,
    sigma: float = 5.0,
    half: float = 20,
    ellipse: Ellipse | None = None,
    center: tuple[float, float] = (0.6, -0.4),
    floor: float = 0.01,
) -> xr.DataArray:
    y = offsets(half)
    t = (ellipse or Ellipse(sigma, sigma * 0.7, 0.5)).squared_radius(y[:, None] - center[0], y[None, :] - center[1])
    return as_map(floor + LINE_SHAPES[family].function(t, *extras), y, y)


def noisy_groups(known: xr.DataArray, seed: int, groups: int = 12, images: int = 4, noise: float = 0.2) -> GroupedMap:
    """Group sums of a map times noise of mean 1 that is correlated over a few px."""
    white = np.random.default_rng(seed).normal(size=(groups, *known.shape))
    smooth = gaussian_filter(white, (0, 1.5, 1.5), mode="wrap") * 3 * np.sqrt(np.pi)
    sums = images * known.values * np.exp(noise * smooth - noise**2 / 2)
    return GroupedMap(known.copy(data=sums.mean(0) / images), sums, np.full(groups, images))
