"""The radial profile of a map, and the share of it within each distance of the unit's centre."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from matplotlib.axes import Axes

from erflab.analysis import radius_at
from erflab.analysis.curves import encircled_curve, radial_curve
from erflab.figures.curves import draw_curve
from erflab.figures.maps import FLOOR
from erflab.figures.panel import ErfPanel
from erflab.figures.style import SERIES

ALMOST_ALL = 0.999
"""Share within the greatest radius shown."""


def draw_radial(axes: Axes, panels: Sequence[ErfPanel]) -> None:
    """The mean over rings relative to the brightest ring, on a logarithmic scale from `maps.FLOOR`, with one standard error."""
    for panel, color in zip(panels, cycle(SERIES)):
        curve = radial_curve(panel.grouped)
        draw_curve(axes, curve.relative_to(float(curve.y.max())), color, panel.title, floor=FLOOR)
    axes.set(
        yscale="log", ylim=(FLOOR, 1.5), xlim=(0, _reach(panels)), xlabel="distance (px)", ylabel="mean / peak ring"
    )


def draw_encircled(axes: Axes, panels: Sequence[ErfPanel], shares: Sequence[float] = (0.5, 0.9)) -> None:
    """The share inside the disc of each radius, with one standard error, and dotted lines at the shares that are quoted."""
    for panel, color in zip(panels, cycle(SERIES)):
        draw_curve(axes, encircled_curve(panel.grouped), color, panel.title)
    for share in shares:
        axes.axhline(share, color="0.6", linewidth=0.6, linestyle=":", gid="share")
    axes.set(xlim=(0, _reach(panels)), ylim=(0, 1.02), xlabel="radius (px)", ylabel="share within")


def _reach(panels: Sequence[ErfPanel]) -> float:
    return max(radius_at(panel.map, ALMOST_ALL) for panel in panels)
