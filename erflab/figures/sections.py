"""Sections along x through the unit's centre, on a linear or a logarithmic scale: data with band, fit, TRF."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from erflab.analysis import FalloffFit, section
from erflab.analysis.curves import section_curve
from erflab.analysis.lineshapes import line_shape
from erflab.figures.curves import draw_curve
from erflab.figures.extent import Limits, outline
from erflab.figures.maps import FLOOR
from erflab.figures.panel import ErfPanel
from erflab.figures.style import DASHES, SERIES, TRF

_LABEL = 26  # characters
_NOWHERE = (-math.inf, math.inf, -math.inf, math.inf)


def draw_sections(
    axes: Axes, panels: Sequence[ErfPanel], limits: Limits, strip: float = 1.0, *, logarithmic: bool = False
) -> list[Line2D]:
    """Each map's section relative to its own peak, its fit dashed, the TRF's edges upright.

    Args:
        axes: to draw in.
        panels: one map a line, in the order of the colours; those with groups get a band of one standard error.
        limits: of the maps beside it; left and right are taken.
        strip: width in px of the rows averaged: a stride's width averages out the checkerboard of strided convolutions.
        logarithmic: the scale from `maps.FLOOR` up, on which a Gaussian is a parabola and an exponential straight.

    Returns:
        The lines, for a legend.
    """
    handles: list[Line2D] = []
    for panel, color in zip(panels, cycle(SERIES)):
        data = section_curve(panel.grouped, width=strip)
        peak = float(data.y.max()) or 1.0
        data_label, *fit_label = labels(panel)
        handles.append(draw_curve(axes, data.relative_to(peak), color, data_label, floor=FLOOR if logarithmic else 0))
        if panel.fit is not None:
            fitted = section(panel.fit.evaluate(_finely(panel.map)), width=strip) / peak
            handles += axes.plot(fitted["x"], fitted, color=color, linestyle=DASHES, label=fit_label[0])
    for edge in sorted({e for panel in panels for e in outline(panel.box or _NOWHERE)[:2] if math.isfinite(e)}):
        axes.axvline(edge, color=TRF, linewidth=1.0, gid="TRF")
    axes.set(xlim=limits[:2], xlabel="x (px)", ylabel="relative to peak")
    if logarithmic:
        axes.set(yscale="log", ylim=(FLOOR, 1.5))
    else:
        axes.set_ylim(top=1.05 * max(float(np.max(line.get_ydata())) for line in handles))
    return handles


def labels(panel: ErfPanel) -> list[str]:
    """What the legend says of a panel's lines, wrapped so that a column of a paper holds two entries side by side."""
    title = textwrap.fill(panel.title, _LABEL)
    return [title] if panel.fit is None else [title, _described(panel.fit)]


def _described(fit: FalloffFit) -> str:
    sigma = "" if fit.moment_sigma is None else f", σ {fit.moment_sigma:.3g}"
    return f"{line_shape(fit.family).title} fit,\nhalf-width {fit.half_width:.3g}{sigma} px"


def _finely(map: xr.DataArray) -> xr.DataArray:
    """The map's rows with many columns, on which a fitted curve is smooth."""
    x = np.linspace(float(map["x"].min()), float(map["x"].max()), 401)
    return xr.DataArray(0.0, coords={"y": map["y"], "x": x}, dims=("y", "x"))
