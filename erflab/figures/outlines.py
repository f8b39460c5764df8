"""What is marked upon a map: the TRF, the fit's contours, the squares that hold a share, the unit's centre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse as EllipsePatch
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.typing import LineStyleType

from erflab.analysis import FalloffFit
from erflab.figures.extent import Box, Limits, in_view, outline
from erflab.figures.panel import ErfPanel
from erflab.figures.style import COLORS, DASHES, OVERLAY, TRF

_OUTLINE = [withStroke(linewidth=1.8, foreground="black")]
_SQUARE = COLORS[4]  # neither the TRF nor the fit
_SQUARE_STYLES: tuple[LineStyleType, ...] = ("-", DASHES)
_HALF, _TWO_SIGMA = "fit: half maximum", "fit: 2σ"


def draw_box(axes: Axes, box: Box | None, limits: Limits) -> None:
    """Outline the TRF; infinite edges are drawn just out of sight."""
    if box is None:
        return
    margin = max(limits[1] - limits[0], limits[3] - limits[2])
    left, right, top, bottom = np.clip(outline(box), min(limits) - margin, max(limits) + margin)
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=TRF, linewidth=1.0, gid="TRF")
    )


def draw_ellipses(axes: Axes, fit: FalloffFit) -> None:
    """The fit's contour at half of its peak, and dashed the ellipse of two standard deviations of the fitted peak.

    The family's own sigma is drawn nowhere: that of a cusped family is far inside its half-width. A peak so heavy in its
    tail that its variance diverges has no dashed ellipse.
    """
    reaches: dict[str, tuple[float, LineStyleType]] = {"half maximum": (fit.half_width, "-")}
    if fit.moment_sigma is not None:
        reaches["2 sigma"] = (2 * fit.moment_sigma, DASHES)
    for name, (reach, style) in reaches.items():
        axes.add_patch(
            EllipsePatch(
                (fit.parameters["center_x"], fit.parameters["center_y"]),
                2 * reach / fit.sigma * fit.ellipse.sigma_major,
                2 * reach / fit.sigma * fit.ellipse.sigma_minor,
                angle=math.degrees(fit.ellipse.theta),
                fill=False,
                edgecolor=OVERLAY,
                linestyle=style,
                linewidth=0.9,
                gid=name,
            )
        )


def draw_squares(axes: Axes, squares: Sequence[tuple[float, float]]) -> None:
    """The squares about the unit's centre that hold given shares, in a line style each."""
    for (_, side), style in zip(squares, cycle(_SQUARE_STYLES)):
        corner = -side / 2, -side / 2
        axes.add_patch(
            Rectangle(corner, side, side, fill=False, edgecolor=_SQUARE, linestyle=style, linewidth=0.9, gid="square")
        )


def draw_center(axes: Axes) -> None:
    """The unit's centre, outlined: the peak below it may be white as well."""
    axes.plot(0, 0, "+", color="white", markersize=6, markeredgewidth=0.8, path_effects=_OUTLINE, gid="center")


def legend_of(panels: Sequence[ErfPanel], limits: Limits) -> list[Artist]:
    """Legend entries of what is marked upon the maps."""
    fits = [panel.fit for panel in panels if panel.fit is not None]
    marks: list[Artist] = []
    if any(panel.box is not None and in_view(panel.box, limits) for panel in panels):
        marks.append(Line2D([], [], color=TRF, label="TRF"))
    if fits:
        marks.append(Line2D([], [], color=OVERLAY, label=_HALF))
    if any(fit.moment_sigma is not None for fit in fits):
        marks.append(Line2D([], [], color=OVERLAY, linestyle=DASHES, label=_TWO_SIGMA))
    shares = [share for share, _ in max((panel.squares for panel in panels), key=len, default=())]
    for share, style in zip(shares, cycle(_SQUARE_STYLES)):
        marks.append(Line2D([], [], color=_SQUARE, linestyle=style, label=f"square with {100 * share:.4g} %"))
    if any(panel.moments is not None for panel in panels):
        marks.append(Line2D([], [], color=OVERLAY, marker="o", markersize=2, linestyle="none", label="centroid"))
    return marks
