"""Maps side by side on one scale with one colour bar: a row of them, or a grid, a row a layer or model, a column a method."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from erflab.errors import MeasurementError
from erflab.figures.extent import Limits, extent, union
from erflab.figures.maps import FLOOR, draw_map
from erflab.figures.outlines import draw_box, draw_center
from erflab.figures.panel import ErfPanel
from erflab.figures.style import COLUMN, PAGE, paper_figure

_MARGINS = 1.05, 0.55  # inches beside the maps, for row labels and colour bar, and above and below them


def draw_map_grid(rows: Sequence[tuple[str, Sequence[ErfPanel]]], *, floor: float = FLOOR) -> Figure:
    """Every map relative to its own peak on one logarithmic scale; the maps of a row share their extent, in px.

    The figure is one column wide (3.25 in) for up to three columns of maps, else a page (6.875 in).

    Args:
        rows: each row's name and panels, in the same order of methods in every row; titles head the first row.
        floor: the least relative value shown.

    Raises:
        MeasurementError: if there is no row, rows have different lengths, or a map has no positive value.
    """
    counts = sorted({len(row) for _, row in rows})
    if len(counts) != 1 or not counts[0]:
        raise MeasurementError(f"the rows have {counts} maps; give at least one row, all with the same methods.")
    columns = counts[0]
    width = COLUMN if columns <= 3 else PAGE
    side = min(1.2, (width - _MARGINS[0]) / columns)
    with paper_figure(width, side * len(rows) + _MARGINS[1]) as figure:
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for row, (name, panels) in zip(axes, rows, strict=True):
            _draw_row(list(row), name, panels, floor)
        for top, panel in zip(axes[0], rows[0][1], strict=True):
            top.set_title(panel.title)
        for bottom in axes[-1]:
            bottom.set_xlabel("x (px)")
        figure.colorbar(
            axes[0, 0].images[0], ax=axes, label="relative to peak", extend="min", shrink=min(1.0, 2.0 / len(rows))
        )
    return figure


def draw_map_row(
    row: Sequence[Axes], panels: Sequence[ErfPanel], limits: Limits | None = None, *, floor: float = FLOOR
) -> None:
    """Every map relative to its own peak under its title, with its TRF, on one extent, and one colour bar for all.

    Args:
        row: axes of one figure or subfigure, a map each.
        panels: of what is known about the maps, title and TRF are drawn.
        limits: (left, right, top, bottom) in px to show; by default what holds all maps.
        floor: the least relative value shown.

    Raises:
        MeasurementError: if a map has no positive value.
    """
    image = _draw_maps(row, panels, limits, floor)
    for axes, panel in zip(row, panels, strict=True):
        axes.set(title=panel.title, xlabel="x (px)")
    row[0].set_ylabel("y (px)")
    row[0].figure.colorbar(image, ax=list(row), label="relative to peak", extend="min")


def _draw_row(row: Sequence[Axes], name: str, panels: Sequence[ErfPanel], floor: float) -> None:
    _draw_maps(row, panels, None, floor)
    for axes in row:
        draw_center(axes)
        axes.locator_params(nbins=3)
    row[0].set_ylabel(f"{name}\ny (px)")


def _draw_maps(row: Sequence[Axes], panels: Sequence[ErfPanel], limits: Limits | None, floor: float) -> AxesImage:
    """On one extent, with numbers along y at the first alone. Returns an image of the scale that all have."""
    limits = limits or union([extent(panel.map) for panel in panels])
    for axes, panel in zip(row, panels, strict=True):
        panel.peak  # noqa: B018 - refuses what cannot be drawn
        image = draw_map(axes, panel.map, limits, floor)
        draw_box(axes, panel.box, limits)
        axes.tick_params(labelleft=axes is row[0])
    return image
