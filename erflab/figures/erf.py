"""The figure of one measurement: the maps side by side on one scale, and a section through them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

from erflab.errors import MeasurementError
from erflab.figures.extent import Limits, extent, in_view, union
from erflab.figures.maps import add_color_bar, draw_map
from erflab.figures.outlines import draw_box, draw_center, draw_ellipses, draw_squares, legend_of
from erflab.figures.panel import ErfPanel
from erflab.figures.sections import draw_sections, labels
from erflab.figures.style import COLUMN, OVERLAY, PAGE, freeze_layout, paper

_SECTION, _LABELS, _LEGEND_ROW, _TITLE = 1.0, 1.0, 0.14, 0.2  # heights in inches of what a figure stacks
_NOTE_CHARACTER, _TITLE_CHARACTER = 0.05, 0.065  # width in inches of a character of a note, of a title


def draw_erf(panels: Sequence[ErfPanel], *, title: str | None = None, strip: float = 1.0) -> Figure:
    """Draw maps on one logarithmic scale and extent, and below them a section along x through the unit's centre.

    Every map is relative to its own peak, every section to its own too: the mean over a strip, `strip` px wide, of rows
    about the centre (a stride's width averages out the checkerboard that strided convolutions leave). The figure is one
    column wide (3.25 in), with more than three maps both columns (6.875 in).

    Raises:
        MeasurementError: if there is no panel, or a map is no map or has no positive value.

    """
    if not panels:
        raise MeasurementError("there are 0 panels to draw; give at least one map.")
    for panel in panels:
        panel.peak  # noqa: B018 - refuses what cannot be drawn
    limits = union([extent(panel.map) for panel in panels])
    with paper():
        marks = legend_of(panels, limits)
        titles = _titles(panels)
        above = _TITLE * max(name.count("\n") for name in titles) + (0.0 if title is None else _TITLE)
        heights = _map_height(len(panels), limits), _SECTION
        below = _LEGEND_ROW * _legend_rows(panels, marks)
        size = _width(len(panels)), sum(heights) + _LABELS + below + above
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
        grid = figure.add_gridspec(2, len(panels), height_ratios=heights)
        maps = _add_map_axes(figure, [grid[0, i] for i in range(len(panels))], limits)
        for axes, panel, name in zip(maps, panels, titles, strict=True):
            image = _draw_panel(axes, panel, limits)
            axes.set_title(name)
        add_color_bar(maps[-1], image, _map_width(len(panels)))
        lines = draw_sections(figure.add_subplot(grid[1, :]), panels, limits, strip)
        figure.legend(handles=[*lines, *marks], loc="outside lower center", ncols=2)
        if title is not None:
            figure.suptitle(title, fontsize=8)
        freeze_layout(figure)
    return figure


def _legend_rows(panels: Sequence[ErfPanel], marks: Sequence[Artist]) -> int:
    """Rows of text of a legend in two columns, filled one after the other."""
    rows = [label.count("\n") + 1 for panel in panels for label in labels(panel)] + [1] * len(marks)
    half = math.ceil(len(rows) / 2)
    return max(sum(rows[:half]), sum(rows[half:]))


def _width(count: int) -> float:
    """Width in inches of a figure of `count` maps."""
    return COLUMN if count <= 3 else PAGE


def _map_width(count: int) -> float:
    """Width in inches of one of `count` maps, beside the labels along y and the colour bar."""
    return (_width(count) - 1.0 - 0.1 * (count - 1)) / count


def _titles(panels: Sequence[ErfPanel]) -> list[str]:
    """The maps' titles, each wrapped to its map's width."""
    width = int(_map_width(len(panels)) / _TITLE_CHARACTER)
    return [textwrap.fill(panel.title, width, break_long_words=False) for panel in panels]


def _map_height(count: int, limits: Limits) -> float:
    """Height in inches of one of `count` maps."""
    left, right, top, bottom = limits
    return _map_width(count) * (bottom - top) / (right - left)


def _add_map_axes(figure: Figure, places: Sequence[SubplotSpec], limits: Limits) -> list[Axes]:
    """Axes with the same limits, y downwards as in images; only the first has numbers along y."""
    left, right, top, bottom = limits
    maps: list[Axes] = []
    for place in places:
        axes = figure.add_subplot(place, xlabel="x (px)", facecolor="0.85")
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        axes.locator_params(nbins=4 if len(places) <= 4 else 3)
        if maps:
            axes.tick_params(labelleft=False)
        maps.append(axes)
    maps[0].set_ylabel("y (px)", labelpad=0)
    return maps


def _draw_panel(axes: Axes, panel: ErfPanel, limits: Limits) -> AxesImage:
    """The map's image with the TRF, the fit and the unit's centre upon it."""
    image = draw_map(axes, panel.map, limits)
    draw_box(axes, panel.box, limits)
    draw_squares(axes, panel.squares)
    if panel.fit is not None:
        draw_ellipses(axes, panel.fit)
    draw_center(axes)
    if panel.moments is not None:
        axes.plot(panel.moments.centroid_x, panel.moments.centroid_y, "o", color=OVERLAY, markersize=2, gid="centroid")
    hidden = panel.box is not None and not in_view(panel.box, limits)
    _write_notes(axes, [*panel.notes, *(["TRF beyond view"] if hidden else [])])
    return image


def _write_notes(axes: Axes, notes: Sequence[str]) -> None:
    """Small, in the map's lower left corner, one note a line; a long one is wrapped to the map's width."""
    width = int(_map_width(axes.get_gridspec().ncols) / _NOTE_CHARACTER)  # type: ignore[union-attr]
    lines = [line for note in notes for line in textwrap.wrap(note, width)]
    if lines:
        frame = {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1.5}
        text = axes.annotate(
            "\n".join(lines), (0, 0), (2, 2), "axes fraction", "offset points", color="white", fontsize=6, bbox=frame
        )
        text.set(va="bottom", gid="notes", in_layout=False)
