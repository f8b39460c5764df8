"""One map as a picture, and the colour bar that a row of them shares."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.image import AxesImage

from erflab.analysis.profile import check_map
from erflab.figures.extent import Limits, extent
from erflab.figures.style import COLORMAP

FLOOR = 1e-3
"""The least relative value that a map shows; the colour bar's arrow says that there is less."""


def draw_map(axes: Axes, map: xr.DataArray, limits: Limits | None = None, floor: float = FLOOR) -> AxesImage:
    """The map relative to its peak, on a logarithmic scale from `floor` to 1, y downwards as in images.

    Args:
        axes: to draw in; what the map leaves free within the limits stays grey.
        map: values on (y, x), px from the unit's centre, with a positive peak.
        limits: (left, right, top, bottom) in px to show; by default the map's own extent.
        floor: what lies below is shown as this.
    """
    checked = check_map(map)
    return show(
        axes,
        checked.copy(data=np.maximum(checked.values / float(checked.max()), floor)),
        limits,
        LogNorm(floor, 1),
        COLORMAP,
    )


def show(axes: Axes, map: xr.DataArray, limits: Limits | None, norm: Normalize, colors: str) -> AxesImage:
    """The values as they are, in px from the unit's centre."""
    left, right, top, bottom = extent(map)
    axes.set_facecolor("0.85")
    image = axes.imshow(
        check_map(map).sortby(["y", "x"]).values,
        cmap=colors,
        norm=norm,
        extent=(left, right, bottom, top),
        interpolation="nearest",
    )
    left, right, top, bottom = limits or (left, right, top, bottom)
    axes.set(xlim=(left, right), ylim=(bottom, top))  # imshow moved them
    return image


def add_color_bar(
    axes: Axes, image: AxesImage, width: float, label: str = "relative to peak", floor: float | None = FLOOR
) -> None:
    """Beside the axes and as high as they are, which a colour bar of a whole row would not be.

    Args:
        axes: `width` inches wide.
        image: whose scale the bar shows.
        width: of the axes.
        label: what the colours mean.
        floor: of a logarithmic scale, with a tick a decade and an arrow for what is less; None for a linear scale.
    """
    bar = axes.inset_axes((1 + 0.05 / width, 0.0, 0.08 / width, 1.0))
    figure = axes.get_figure(root=True)
    assert figure is not None  # the axes are drawn in
    if floor is None:
        figure.colorbar(image, cax=bar, label=label)
        return
    decades = np.logspace(math.log10(floor), 0, round(-math.log10(floor)) + 1)
    figure.colorbar(image, cax=bar, label=label, extend="min", ticks=decades)
