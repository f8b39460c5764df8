"""What the fitted falloff leaves over, in shares of the map's peak."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.image import AxesImage

from erflab.analysis import FalloffFit
from erflab.errors import MeasurementError
from erflab.figures.extent import Limits
from erflab.figures.maps import show
from erflab.figures.outlines import draw_center, draw_ellipses
from erflab.figures.panel import ErfPanel
from erflab.figures.style import DIVERGING

LINEAR = 1e-2
"""Share of the peak below which the scale is linear."""


def draw_residual(axes: Axes, panel: ErfPanel, limits: Limits | None = None) -> AxesImage:
    """Map minus fit over the map's peak, from -1 to 1 and linear within 1 % of zero: red where the map is above its fit.

    Raises MeasurementError if the panel has no fit.
    """
    fit = _fit(panel)
    image = show(
        axes,
        fit.residual(panel.map) / panel.peak,
        limits,
        SymLogNorm(LINEAR, vmin=-1, vmax=1, base=10),
        DIVERGING,
    )
    draw_ellipses(axes, fit)
    draw_center(axes)
    axes.set(xlabel="x (px)", ylabel="y (px)")
    return image


def _fit(panel: ErfPanel) -> FalloffFit:
    if panel.fit is None:
        raise MeasurementError(f"the map {panel.title!r} has no fit, so no residual; see its flags for why.")
    return panel.fit
