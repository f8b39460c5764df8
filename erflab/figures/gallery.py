"""Many maps of one method, as many beside one another as a page holds: one scale, one extent, one colour bar."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from erflab.errors import MeasurementError
from erflab.figures.extent import extent, union
from erflab.figures.maps import FLOOR, draw_map
from erflab.figures.outlines import draw_box
from erflab.figures.panel import ErfPanel
from erflab.figures.style import PAGE, paper_figure

_MARGINS = 1.25, 0.45  # inches beside the maps, for labels and colour bar, and below them
_GAP = 0.2  # inches between rows, for titles


def draw_gallery(panels: Sequence[ErfPanel], columns: int = 5, *, floor: float = FLOOR) -> Figure:
    """Every map relative to its own peak, with its TRF, under its title, row by row; 6.875 in wide.

    Args:
        panels: in the order of reading; notes and fits are not drawn.
        columns: maps a row.
        floor: the least relative value shown.

    Raises:
        MeasurementError: if there is no panel, or a map has no positive value.
    """
    if not panels:
        raise MeasurementError("there is no map to draw; give at least one.")
    rows = math.ceil(len(panels) / columns)
    side = (PAGE - _MARGINS[0]) / columns
    limits = union([extent(panel.map) for panel in panels])
    with paper_figure(PAGE, rows * (side + _GAP) + _MARGINS[1], pad=0.02) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for cell, panel in zip(axes, panels, strict=False):
            panel.peak  # noqa: B018 - refuses what cannot be drawn
            image = draw_map(cell, panel.map, limits, floor)
            draw_box(cell, panel.box, limits)
            cell.set_title(panel.title, fontsize=6)
            cell.tick_params(labelsize=6)
        for cell in axes[len(panels) :]:
            cell.remove()
        for cell in axes[max(0, len(panels) - columns) : len(panels)]:  # nothing below it
            cell.tick_params(labelbottom=True)
        figure.supxlabel("x (px)", fontsize=8)
        figure.supylabel("y (px)", fontsize=8)
        figure.colorbar(image, ax=list(axes[: len(panels)]), label="relative to peak", extend="min", shrink=0.6)
    return figure
