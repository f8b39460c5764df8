"""The figures that a result can draw of itself: `result.plot(path, kind=...)`, one table of kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from erflab.analysis import GroupedMap, blurred
from erflab.analysis.sizes import SHARES, Quantity
from erflab.errors import ResultError, closest
from erflab.figures.bars import draw_bars
from erflab.figures.comparison import draw_difference, draw_shares
from erflab.figures.convergence import draw_convergence
from erflab.figures.depth import DepthPoint, draw_depth
from erflab.figures.erf import draw_erf
from erflab.figures.extent import around_center, extent, union
from erflab.figures.grid import draw_map_grid
from erflab.figures.pairs import draw_pair
from erflab.figures.panel import ErfPanel
from erflab.figures.radial import draw_encircled, draw_radial
from erflab.figures.residual import draw_residual
from erflab.figures.sections import draw_sections
from erflab.figures.spectrum import draw_spectrum
from erflab.figures.style import COLUMN, freeze_layout, paper

if TYPE_CHECKING:
    from erflab.result import Result

_WEIGHTS = {"none": "random weights"}

SQUARES = (0.5, 0.9545)
"""Shares whose squares the figure of outlines draws."""


@dataclass(frozen=True)
class Kind:
    """A figure of results: what it shows, how it is drawn, and of how many results."""

    shows: str
    draw: Callable[..., Figure]
    most: int | None = 1
    """How many results it takes; None for any number."""
    least: int = 1
    parts: bool = False
    """Whether a result may have several parts; else it must be one, `result.at(LABEL)`."""


def draw(kind: str, *results: Result) -> Figure:
    """The figure of that kind, at its size in print.

    Raises:
        ResultError: if there is no such kind, or it is for another number of results, of parts or of methods.
        MeasurementError: if a map has nothing that could be drawn.
    """
    if kind not in KINDS:
        raise ResultError(f"no kind of figure {kind!r}; choose from {', '.join(KINDS)}.{closest(kind, KINDS)}")
    row = KINDS[kind]
    if len(results) < row.least or (row.most is not None and len(results) > row.most):
        wanted = row.least if row.most == row.least else f"{row.least} or more"
        raise ResultError(f"kind {kind!r} is drawn of {wanted} results, and was given {len(results)}.")
    if not row.parts:
        for result in results:
            result.dataset  # noqa: B018 - says which parts there are to choose from
    return row.draw(*results)


def panels(result: Result) -> list[ErfPanel]:
    """Every map of one part, with what is known about it."""
    made = []
    for method in result.methods:
        known = result.known_sizes(method)
        made.append(
            ErfPanel(
                title=method.replace("_", " "),
                map=result.map(method),
                fit=known.fit if known else None,
                moments=known.moments if known else None,
                box=result.box,
                notes=tuple(dict.fromkeys(f.code for f in result.flags if f.method in (None, method))),
                groups=result.grouped(method),
            )
        )
    return made


def _title(result: Result) -> str:
    return f"{result.name}, {result.labels[0]}"


def _strip(result: Result) -> float:
    """The stride in px: rows averaged over it show no checkerboard."""
    return float(max((s for s in result.attribute("theory")["stride"] if s is not None), default=1))


def _erf(result: Result) -> Figure:
    return draw_erf(panels(result), title=_title(result), strip=_strip(result))


def _depth(result: Result) -> Figure:
    lines = {
        method: [DepthPoint.of(part.known_sizes(method), part.attribute("theory")["size"]) for part in result]
        for method in result.methods
    }
    return draw_depth(result.labels, lines, title=result.name)


def _grid(*results: Result) -> Figure:
    several = len(results) > 1
    rows = [
        (f"{result.name}\n{label}" if several else label, panels(part))
        for result in results
        for label, part in zip(result.labels, result, strict=True)
    ]
    return draw_map_grid(rows)


def _outlines(result: Result) -> Figure:
    def squares(method: str) -> tuple[tuple[float, float], ...]:
        known = result.known_sizes(method)
        found = [(share, known.quantities[f"square_{share:g}"].value) for share in SQUARES] if known else []
        return tuple((share, side) for share, side in found if side is not None)

    marked = [
        replace(panel, squares=squares(method), moments=None, notes=())
        for panel, method in zip(panels(result), result.methods, strict=True)
    ]
    return draw_erf(marked, title=_title(result), strip=_strip(result))


def _sections(result: Result) -> Figure:
    made = panels(result)
    limits = union([extent(panel.map) for panel in made])

    def draw_into(linear: Axes, logarithmic: Axes) -> None:
        lines = draw_sections(linear, made, limits, _strip(result))
        draw_sections(logarithmic, made, limits, _strip(result), logarithmic=True)
        linear.set_xlabel("")
        linear.tick_params(labelbottom=False)
        logarithmic.figure.legend(handles=lines, loc="outside lower center", ncols=min(2, len(made)))

    return _stacked(result, draw_into, height=3.4)


def _radial(result: Result) -> Figure:
    made = panels(result)

    def draw_into(profile: Axes, share: Axes) -> None:
        draw_radial(profile, made)
        draw_encircled(share, made)
        profile.set_xlabel("")
        profile.tick_params(labelbottom=False)
        profile.legend()

    return _stacked(result, draw_into, height=3.2)


def _areas(*results: Result) -> Figure:
    """Areas over the TRF's, or over the image's where a field is global."""
    parts = [(result, label, part) for result in results for label, part in zip(result.labels, result, strict=True)]
    methods = list(dict.fromkeys(method for result in results for method in result.methods))
    over = "image" if any(part.attribute("theory")["is_global"] for *_, part in parts) else "trf"
    share = SHARES[2]

    def ratio(part: Result, method: str) -> Quantity | None:
        known = part.known_sizes(method) if method in part.methods else None
        return known.quantities[f"area_{share:g}_over_{over}"] if known else None

    names = [f"{result.name}\n{label}" if len(results) > 1 else label for result, label, _ in parts]
    with paper():
        figure = Figure(figsize=(COLUMN, 2.2), layout="constrained")
        axes = figure.add_subplot()
        series = {m.replace("_", " "): [ratio(part, m) for *_, part in parts] for m in methods}
        draw_bars(axes, names, series, f"{100 * share:g} % area / {over.upper() if over == 'trf' else over} area")
        figure.legend(loc="outside upper center", ncols=len(methods))
        freeze_layout(figure)
    return figure


def _comparison(result: Result) -> Figure:
    if not {"gradient", "occlusion"} <= set(result.methods):
        raise ResultError(f"this figure needs gradient and occlusion; the result has {', '.join(result.methods)}.")
    maps = blurred_groups(result)
    gradient, occlusion = maps["gradient"], maps["occlusion"]
    patch = int(result.dataset["occlusion"].attrs["patch"])
    with paper():
        figure = Figure(figsize=(COLUMN, 4.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(1.8, 1))
        image = draw_difference(
            upper, gradient.mean, occlusion.mean, patch, around_center([gradient.mean, occlusion.mean])
        )
        upper.set_title(f"{_title(result)}:\nocclusion − blurred gradient")
        figure.colorbar(image, ax=upper, label="difference / peak")
        draw_shares(lower, maps)
        freeze_layout(figure)
    return figure


def blurred_groups(result: Result) -> dict[str, GroupedMap]:
    """The maps of one part's gradient, of the same blurred by the occluding patch, and of occlusion, by groups of scenes."""
    gradient, occlusion = result.grouped("gradient"), result.grouped("occlusion")
    patch = int(result.dataset["occlusion"].attrs["patch"])
    moved = _each(gradient, lambda map: blurred(map, patch, occlusion.mean))
    return {"gradient": gradient, "gradient, blurred": moved, "occlusion": occlusion}


def _each(grouped: GroupedMap, change: Callable[[xr.DataArray], xr.DataArray]) -> GroupedMap:
    """The same linear change of the mean map and of every group's sum."""
    mean = change(grouped.mean)
    sums = [change(group).values * images for group, images in zip(grouped.means, grouped.images, strict=True)]
    return GroupedMap(mean, np.asarray(sums).reshape(-1, *mean.shape), grouped.images)


def _convergence(result: Result) -> Figure:
    with paper():
        figure = Figure(figsize=(COLUMN, 2.0), layout="constrained")
        axes = figure.add_subplot(title=_title(result))
        draw_convergence(axes, {method.replace("_", " "): result.convergence(method) for method in result.methods})
        axes.legend()
        freeze_layout(figure)
    return figure


def _residual(result: Result) -> Figure:
    fitted = [panel for panel in panels(result) if panel.fit is not None] or panels(result)
    limits = around_center([panel.map for panel in fitted])
    with paper():
        figure = Figure(figsize=(COLUMN, 1.75 if len(fitted) > 1 else 2.8), layout="constrained")
        row = figure.subplots(1, len(fitted), squeeze=False)[0]
        for axes, panel in zip(row, fitted, strict=True):
            image = draw_residual(axes, panel, limits)
            axes.set_title(panel.title)
        for axes in row[1:]:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
        figure.colorbar(image, ax=row, label="(map − fit) / peak", ticks=[-1, -0.1, 0, 0.1, 1], shrink=0.8)
        figure.suptitle(_title(result), fontsize=8)
        freeze_layout(figure)
    return figure


def _spectrum(result: Result) -> Figure:
    with paper():
        figure = Figure(figsize=(COLUMN, 2.7), layout="constrained")
        axes = figure.add_subplot(title=f"{_title(result)}:\n{result.methods[0].replace('_', ' ')}")
        image = draw_spectrum(axes, result.map())
        figure.colorbar(image, ax=axes, label="power / power at 0", extend="min")
        freeze_layout(figure)
    return figure


def _stacked(result: Result, draw_into: Callable[[Axes, Axes], None], height: float) -> Figure:
    """A figure of two axes, one above the other, drawn by `draw_into`."""
    with paper():
        figure = Figure(figsize=(COLUMN, height), layout="constrained")
        upper, lower = figure.subplots(2, 1)
        draw_into(upper, lower)
        figure.suptitle(_title(result), fontsize=8)
        freeze_layout(figure)
    return figure


def _pair(before: Result, after: Result) -> Figure:
    method = next((m for m in before.methods if m in after.methods), None)
    if method is None:
        raise ResultError(f"no method in common: {', '.join(before.methods)} and {', '.join(after.methods)}.")
    one, two = (replace(panels(r)[r.methods.index(method)], notes=()) for r in (before, after))
    known = [r.known_sizes(method) for r in (before, after)]
    first, second = (k.quantities["sigma"] if k else None for k in known)
    return draw_pair(
        one,
        two,
        _different(before, after),
        title=one.title if before.name != after.name else f"{before.name}, {one.title}",
        sigmas=(first, second),
        strip=max(_strip(before), _strip(after)),
    )


def _different(before: Result, after: Result) -> tuple[str, str]:
    """What tells two results apart: model, weights, layer; "before" and "after" where it is none of these."""
    names = [
        (str(r.attribute("model")["name"]), str(r.attribute("model")["weights"]), r.labels[0]) for r in (before, after)
    ]
    kept = [i for i in range(3) if names[0][i] != names[1][i]]
    one, two = (", ".join(_WEIGHTS.get(name[i], name[i]) for i in kept) for name in names)
    return one or "before", two or "after"


KINDS: dict[str, Kind] = {
    "erf": Kind("maps of every method with TRF, fit and centroid, and a section through them", _erf),
    "outlines": Kind("the same with the squares that hold 50 % and 95.45 %", _outlines),
    "sections": Kind("sections on a linear and a logarithmic scale, with fits and bands", _sections),
    "radial": Kind("radial profile and encircled share, with bands", _radial),
    "residual": Kind("map minus fit", _residual),
    "spectrum": Kind("power spectrum: checkerboards", _spectrum),
    "comparison": Kind("gradient against occlusion", _comparison),
    "convergence": Kind("sigma and its error while images were added", _convergence),
    "depth": Kind("sizes of every part against depth", _depth, parts=True),
    "grid": Kind("maps, a row a part and a column a method, of one or several results", _grid, most=None, parts=True),
    "areas": Kind("area over the TRF's, with intervals, of one or several results", _areas, most=None, parts=True),
    "pair": Kind("two results before and after, with sigma ± standard error", _pair, most=2, least=2),
}
"""Name -> what it shows and how it is drawn."""
