"""The figures of one part of a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from erflab.analysis import GroupedMap, blurred
from erflab.errors import ResultError
from erflab.figures.comparison import draw_difference, draw_shares
from erflab.figures.convergence import draw_convergence
from erflab.figures.erf import draw_erf
from erflab.figures.extent import around_center, extent, union
from erflab.figures.radial import draw_encircled, draw_radial
from erflab.figures.residual import draw_residual
from erflab.figures.sections import draw_sections
from erflab.figures.spectrum import draw_spectrum
from erflab.figures.style import COLUMN, paper_figure
from erflab.plots.panels import panels, strip_of, title_of

if TYPE_CHECKING:
    from erflab.result import Result


SQUARES = (0.5, 0.9545)
"""Shares whose squares the figure of outlines draws."""


def erf(result: Result) -> Figure:
    """Maps of every method with theoretical field, fit and centroid, and a section through them."""
    return draw_erf(panels(result), title=title_of(result), strip=strip_of(result))


def outlines(result: Result) -> Figure:
    """The maps with the squares that hold `SQUARES` of them."""

    def squares(method: str) -> tuple[tuple[float, float], ...]:
        known = result.known_sizes(method)
        found = [(share, known.quantities[f"square_{share:g}"].value) for share in SQUARES] if known else []
        return tuple((share, side) for share, side in found if side is not None)

    marked = [
        replace(panel, squares=squares(method), moments=None, notes=())
        for panel, method in zip(panels(result), result.methods, strict=True)
    ]
    return draw_erf(marked, title=title_of(result), strip=strip_of(result))


def sections(result: Result) -> Figure:
    """Sections on a linear and a logarithmic scale, with fits and bands."""
    made = panels(result)
    limits = union([extent(panel.map) for panel in made])

    def draw_into(linear: Axes, logarithmic: Axes) -> None:
        lines = draw_sections(linear, made, limits, strip_of(result))
        draw_sections(logarithmic, made, limits, strip_of(result), logarithmic=True)
        linear.set_xlabel("")
        linear.tick_params(labelbottom=False)
        logarithmic.figure.legend(handles=lines, loc="outside lower center", ncols=min(2, len(made)))

    return _stacked(result, draw_into, height=3.4)


def radial(result: Result) -> Figure:
    """Radial profile and encircled share, with bands."""
    made = panels(result)

    def draw_into(profile: Axes, share: Axes) -> None:
        draw_radial(profile, made)
        draw_encircled(share, made)
        profile.set_xlabel("")
        profile.tick_params(labelbottom=False)
        profile.legend()

    return _stacked(result, draw_into, height=3.2)


def residual(result: Result) -> Figure:
    """Map minus fit, of every method that has a fit."""
    fitted = [panel for panel in panels(result) if panel.fit is not None] or panels(result)
    limits = around_center([panel.map for panel in fitted])
    with paper_figure(COLUMN, 1.75 if len(fitted) > 1 else 2.8) as figure:
        row = figure.subplots(1, len(fitted), squeeze=False)[0]
        for axes, panel in zip(row, fitted, strict=True):
            image = draw_residual(axes, panel, limits)
            axes.set_title(panel.title)
        for axes in row[1:]:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
        figure.colorbar(image, ax=row, label="(map − fit) / peak", ticks=[-1, -0.1, 0, 0.1, 1], shrink=0.8)
        figure.suptitle(title_of(result), fontsize=8)
    return figure


def spectrum(result: Result) -> Figure:
    """The power spectrum of the first method's map."""
    with paper_figure(COLUMN, 2.7) as figure:
        axes = figure.add_subplot(title=f"{title_of(result)}:\n{result.methods[0].replace('_', ' ')}")
        image = draw_spectrum(axes, result.map())
        figure.colorbar(image, ax=axes, label="power / power at 0", extend="min")
    return figure


def convergence(result: Result) -> Figure:
    """Sigma and its error while images were added."""
    with paper_figure(COLUMN, 2.0) as figure:
        axes = figure.add_subplot(title=title_of(result))
        draw_convergence(axes, {method.replace("_", " "): result.convergence(method) for method in result.methods})
        axes.legend()
    return figure


def comparison(result: Result) -> Figure:
    """Occlusion against the gradient, blurred by the patch. Raises ResultError if one of them was not measured."""
    if not {"gradient", "occlusion"} <= set(result.methods):
        raise ResultError(f"this figure needs gradient and occlusion; the result has {', '.join(result.methods)}.")
    maps = blurred_groups(result)
    gradient, occlusion = maps["gradient"], maps["occlusion"]
    patch = int(result.dataset["occlusion"].attrs["patch"])
    with paper_figure(COLUMN, 4.2) as figure:
        upper, lower = figure.subplots(2, 1, height_ratios=(1.8, 1))
        image = draw_difference(
            upper, gradient.mean, occlusion.mean, patch, around_center([gradient.mean, occlusion.mean])
        )
        upper.set_title(f"{title_of(result)}:\nocclusion − blurred gradient")
        figure.colorbar(image, ax=upper, label="difference / peak")
        draw_shares(lower, maps)
    return figure


def blurred_groups(result: Result) -> dict[str, GroupedMap]:
    """The maps of one part's gradient, of the same blurred by the occluding patch, and of occlusion, by groups of scenes."""
    gradient, occlusion = result.grouped("gradient"), result.grouped("occlusion")
    patch = int(result.dataset["occlusion"].attrs["patch"])
    moved = gradient.changed(lambda map: blurred(map, patch, occlusion.mean))
    return {"gradient": gradient, "gradient, blurred": moved, "occlusion": occlusion}


def _stacked(result: Result, draw_into: Callable[[Axes, Axes], None], height: float) -> Figure:
    """A figure of two axes, one above the other, drawn by `draw_into`."""
    with paper_figure(COLUMN, height) as figure:
        upper, lower = figure.subplots(2, 1)
        draw_into(upper, lower)
        figure.suptitle(title_of(result), fontsize=8)
    return figure
