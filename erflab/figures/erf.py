"""The figure of one measurement: the maps side by side on one scale, and a section through them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse as EllipsePatch
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from erflab.analysis import FalloffFit, Moments, section
from erflab.analysis.profile import check_map
from erflab.errors import MeasurementError
from erflab.figures.extent import Box, Limits, extent, in_view, outline, union
from erflab.figures.style import COLORMAP, COLORS, COLUMN, OVERLAY, PAGE, freeze_layout, paper

FLOOR = 1e-3
"""The least relative value that a map shows; the colour bar's arrow says that there is less."""

_TRF = COLORS[2]
_DASHES = (0, (3, 1.5))
_SECTION, _LABELS, _LEGEND_ROW, _TITLE = 1.0, 1.0, 0.16, 0.2  # heights in inches of what a figure stacks
_NOTE_CHARACTER, _TITLE_CHARACTER = 0.05, 0.065  # width in inches of a character of a note, of a title
_OUTLINE = [withStroke(linewidth=1.8, foreground="black")]
_NOWHERE = (-math.inf, math.inf, -math.inf, math.inf)


@dataclass(frozen=True, eq=False)
class ErfPanel:
    """One map to draw, with what is known about it. Lengths are in px from the unit's centre."""

    title: str
    """Short, such as "gradient"."""
    map: xr.DataArray
    """Values on (y, x), linear; drawn relative to their own peak."""
    fit: FalloffFit | None = None
    moments: Moments | None = None
    box: Box | None = None
    """The TRF as (y0, y1, x0, x1), inclusive pixels; may be infinite. Its outline is half a px further out."""
    notes: tuple[str, ...] = ()
    """Short flags, written into the map."""


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
    peaks = [_peak(panel) for panel in panels]
    limits = union([extent(panel.map) for panel in panels])
    with paper():
        marks = _marks(panels, limits)
        entries = len(marks) + sum(1 if panel.fit is None else 2 for panel in panels)
        titles = _titles(panels)
        above = _TITLE * max(name.count("\n") for name in titles) + (0.0 if title is None else _TITLE)
        heights = _map_height(len(panels), limits), _SECTION
        below = _LEGEND_ROW * math.ceil(entries / 2)
        size = _width(len(panels)), sum(heights) + _LABELS + below + above
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
        grid = figure.add_gridspec(2, len(panels), height_ratios=heights)
        maps = _add_map_axes(figure, [grid[0, i] for i in range(len(panels))], limits)
        for axes, panel, peak, name in zip(maps, panels, peaks, titles, strict=True):
            image = _draw_map(axes, panel, peak, limits)
            axes.set_title(name)
        _add_color_bar(figure, maps[-1], image, len(panels))
        lines = _draw_section(figure.add_subplot(grid[1, :]), panels, strip, limits)
        figure.legend(handles=lines + marks, loc="outside lower center", ncols=2)
        if title is not None:
            figure.suptitle(title, fontsize=8)
        freeze_layout(figure)
    return figure


def _peak(panel: ErfPanel) -> float:
    peak = float(check_map(panel.map).max())
    if peak <= 0:
        raise MeasurementError(
            f"the map {panel.title!r} has no positive value (peak {peak:g}); there is nothing to draw."
        )
    return peak


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


def _add_color_bar(figure: Figure, axes: Axes, image: AxesImage, count: int) -> None:
    """Beside the last map and as high as it, which a colour bar of the whole row would not be."""
    inch = 1 / _map_width(count)
    bar = axes.inset_axes((1 + 0.05 * inch, 0.0, 0.08 * inch, 1.0))
    decades = np.logspace(math.log10(FLOOR), 0, round(-math.log10(FLOOR)) + 1)
    figure.colorbar(image, cax=bar, label="relative to peak", extend="min", ticks=decades)


def _draw_map(axes: Axes, panel: ErfPanel, peak: float, limits: Limits) -> AxesImage:
    """The map's image with the TRF, the fit and the unit's centre upon it."""
    left, right, top, bottom = extent(panel.map)
    image = axes.imshow(
        np.maximum(check_map(panel.map).sortby(["y", "x"]).values / peak, FLOOR),
        cmap=COLORMAP,
        norm=LogNorm(FLOOR, 1),
        extent=(left, right, bottom, top),
        interpolation="nearest",
    )
    axes.set(xlim=limits[:2], ylim=(limits[3], limits[2]))  # imshow moved them
    _draw_box(axes, panel.box, limits)
    if panel.fit is not None:
        _draw_ellipses(axes, panel.fit)
    # Outlined, for the peak below it may be white as well.
    axes.plot(0, 0, "+", color="white", markersize=6, markeredgewidth=0.8, path_effects=_OUTLINE, gid="center")
    if panel.moments is not None:
        axes.plot(panel.moments.centroid_x, panel.moments.centroid_y, "o", color=OVERLAY, markersize=2, gid="centroid")
    hidden = panel.box is not None and not in_view(panel.box, limits)
    _write_notes(axes, [*panel.notes, *(["TRF beyond view"] if hidden else [])])
    return image


def _draw_ellipses(axes: Axes, fit: FalloffFit) -> None:
    """The fit's one-sigma ellipse, and dashed its two-sigma ellipse."""
    center = fit.parameters["center_x"], fit.parameters["center_y"]
    for reach, style in ((1, "-"), (2, _DASHES)):
        axes.add_patch(
            EllipsePatch(
                center,
                2 * reach * fit.ellipse.sigma_major,
                2 * reach * fit.ellipse.sigma_minor,
                angle=math.degrees(fit.ellipse.theta),
                fill=False,
                edgecolor=OVERLAY,
                linestyle=style,
                linewidth=0.9,
                gid=f"{reach} sigma",
            )
        )


def _draw_box(axes: Axes, box: Box | None, limits: Limits) -> None:
    """Outline the TRF; infinite edges are drawn just out of sight."""
    if box is None:
        return
    margin = max(limits[1] - limits[0], limits[3] - limits[2])
    left, right, top, bottom = np.clip(outline(box), min(limits) - margin, max(limits) + margin)
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=_TRF, linewidth=1.0, gid="TRF")
    )


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


def _draw_section(axes: Axes, panels: Sequence[ErfPanel], strip: float, limits: Limits) -> list[Artist]:
    """Sections along x: each map's data, its fit dashed, the TRF's edges upright."""
    handles: list[Artist] = []
    for panel, color in zip(panels, cycle(c for c in COLORS if c != _TRF)):
        data = section(panel.map, width=strip)
        peak = float(data.max()) or 1.0
        handles += axes.plot(data["x"], data / peak, color=color, linewidth=0.8, label=panel.title)
        if panel.fit is not None:
            fitted = section(panel.fit.evaluate(_finely(panel.map)), width=strip) / peak
            label = f"{panel.fit.family}, σ = {panel.fit.sigma:.3g} px"
            handles += axes.plot(fitted["x"], fitted, color=color, linestyle=_DASHES, label=label)
    for edge in sorted({e for panel in panels for e in outline(panel.box or _NOWHERE)[:2] if math.isfinite(e)}):
        axes.axvline(edge, color=_TRF, linewidth=1.0, gid="TRF")
    axes.set(xlim=limits[:2], xlabel="x (px)", ylabel="relative to peak")
    axes.set_ylim(top=1.05)
    return handles


def _finely(map: xr.DataArray) -> xr.DataArray:
    """The map's rows with many columns, on which a fitted curve is smooth."""
    x = np.linspace(float(map["x"].min()), float(map["x"].max()), 401)
    return xr.DataArray(0.0, coords={"y": map["y"], "x": x}, dims=("y", "x"))


def _marks(panels: Sequence[ErfPanel], limits: Limits) -> list[Artist]:
    """Legend entries of what is marked upon the maps."""
    marks: list[Artist] = []
    if any(panel.box is not None and in_view(panel.box, limits) for panel in panels):
        marks.append(Line2D([], [], color=_TRF, label="TRF"))
    if any(panel.fit is not None for panel in panels):
        marks.append(Line2D([], [], color=OVERLAY, label="fit: 1σ, 2σ (dashed)"))
    if any(panel.moments is not None for panel in panels):
        marks.append(Line2D([], [], color=OVERLAY, marker="o", markersize=2, linestyle="none", label="centroid"))
    return marks
