"""The power spectrum of a map, with the frequencies at which a stride leaves its checkerboard."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage

from erflab.analysis.spectrum import power_spectrum
from erflab.figures.style import COLORMAP, OVERLAY

_TICKS = (-0.5, -0.25, 0.0, 0.25, 0.5)

FLOOR = 1e-6
"""The least power shown, relative to that at zero frequency."""


def draw_spectrum(axes: Axes, map: xr.DataArray, periods: tuple[int, ...] = ()) -> AxesImage:
    """|DFT|^2 of the density on a logarithmic scale from `FLOOR`, in cycles per px, marked at the given periods.

    Args:
        axes: to draw in.
        map: values on (y, x), non-negative.
        periods: px, such as a layer's stride or dilation; circles mark their lattice frequencies.
    """
    power = power_spectrum(map)
    fy, fx = power["fy"].values, power["fx"].values
    halves = (fx[1] - fx[0]) / 2, (fy[1] - fy[0]) / 2
    image = axes.imshow(
        np.maximum(power.values, FLOOR),
        cmap=COLORMAP,
        norm=LogNorm(FLOOR, 1),
        extent=(fx[0] - halves[0], fx[-1] + halves[0], fy[-1] + halves[1], fy[0] - halves[1]),
        interpolation="nearest",
    )
    for period in periods:
        places = np.fft.fftfreq(period)
        grid = [(u, v) for u in places for v in places if (u, v) != (0, 0)]
        axes.plot(*zip(*grid, strict=True), "o", ms=5, mfc="none", mec=OVERLAY, mew=0.7, gid=f"period {period}")
    axes.set(xticks=_TICKS, yticks=_TICKS)
    axes.set(xlabel="$f_x$ (cycles/px)", ylabel="$f_y$ (cycles/px)")
    return image
