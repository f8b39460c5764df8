"""Gradient against occlusion: where on the plane the one has more of its share than the other, and at what distance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.image import AxesImage
from xarray import DataArray

from erflab.analysis import GroupedMap, as_density, blurred, radius_at, resampled
from erflab.analysis.curves import encircled_curve
from erflab.figures.curves import draw_curve
from erflab.figures.extent import Limits
from erflab.figures.maps import show
from erflab.figures.outlines import draw_center
from erflab.figures.radial import ALMOST_ALL
from erflab.figures.style import DIVERGING, SERIES

LINEAR = 1e-2
"""Share of the largest difference below which the scale of a difference is linear."""


def difference(gradient: DataArray, occlusion: DataArray, patch: int | None = None) -> DataArray:
    """Occlusion minus gradient, both as densities on occlusion's grid, over the greater of the two peaks.

    Args:
        gradient: the finer map.
        occlusion: the map whose grid is taken.
        patch: side in px of the patch by which the gradient's map is blurred first; None for not at all.
    """
    moved = resampled(gradient, occlusion) if patch is None else blurred(gradient, patch, occlusion)
    p, q = as_density(moved), as_density(occlusion)
    return (q - p) / max(float(p.max()), float(q.max()))


def draw_difference(
    axes: Axes, gradient: DataArray, occlusion: DataArray, patch: int | None = None, limits: Limits | None = None
) -> AxesImage:
    """The difference of the densities, red where occlusion has more, blue where the gradient has; see `difference`."""
    values = difference(gradient, occlusion, patch)
    bound = float(np.abs(values).max()) or 1.0
    image = show(axes, values, limits, SymLogNorm(LINEAR * bound, vmin=-bound, vmax=bound, base=10), DIVERGING)
    draw_center(axes)
    axes.set(xlabel="x (px)", ylabel="y (px)")
    return image


def draw_shares(axes: Axes, maps: Mapping[str, GroupedMap]) -> None:
    """The share within each radius of every map, with one standard error: read the radii apart at any height."""
    for (name, grouped), color in zip(maps.items(), SERIES, strict=False):
        draw_curve(axes, encircled_curve(grouped), color, name)
    reach = max(radius_at(grouped.mean, ALMOST_ALL) for grouped in maps.values())
    axes.set(xlim=(0, reach), ylim=(0, 1.02), xlabel="radius (px)", ylabel="share within")
    axes.legend(loc="lower right")
