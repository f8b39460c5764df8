"""The figures of several parts of a result, or of several results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from erflab.analysis.sizes import SHARES, Quantity
from erflab.errors import ResultError
from erflab.figures.bars import draw_bars
from erflab.figures.depth import DepthPoint, draw_depth
from erflab.figures.grid import draw_map_grid
from erflab.figures.pairs import draw_pair
from erflab.figures.style import COLUMN, paper_figure
from erflab.plots.panels import panels, strip_of

if TYPE_CHECKING:
    from erflab.result import Result


_WEIGHTS = {"none": "random weights"}


def depth(result: Result) -> Figure:
    """Sizes of every part against depth."""
    lines = {
        method: [DepthPoint.of(part.known_sizes(method), part.attribute("theory")["size"]) for part in result]
        for method in result.methods
    }
    return draw_depth(result.labels, lines, title=result.name)


def grid(*results: Result) -> Figure:
    """Maps, a row a part and a column a method."""
    several = len(results) > 1
    rows = [
        (f"{result.name}\n{label}" if several else label, panels(part))
        for result in results
        for label, part in zip(result.labels, result, strict=True)
    ]
    return draw_map_grid(rows)


def areas(*results: Result) -> Figure:
    """Areas over the TRF's, or over the image's where a field is global."""
    parts = [(result, label, part) for result in results for label, part in zip(result.labels, result, strict=True)]
    methods = list(dict.fromkeys(method for result in results for method in result.methods))
    over = "image" if any(part.attribute("theory")["is_global"] for *_, part in parts) else "trf"
    share = SHARES[2]

    def ratio(part: Result, method: str) -> Quantity | None:
        known = part.known_sizes(method) if method in part.methods else None
        return known.quantities[f"area_{share:g}_over_{over}"] if known else None

    names = [f"{result.name}\n{label}" if len(results) > 1 else label for result, label, _ in parts]
    with paper_figure(COLUMN, 2.2) as figure:
        axes = figure.add_subplot()
        series = {m.replace("_", " "): [ratio(part, m) for *_, part in parts] for m in methods}
        draw_bars(axes, names, series, f"{100 * share:g} % area / {over.upper() if over == 'trf' else over} area")
        figure.legend(loc="outside upper center", ncols=len(methods))
    return figure


def pair(before: Result, after: Result) -> Figure:
    """Two single parts by the first method that both have. Raises ResultError if there is none."""
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
        strip=max(strip_of(before), strip_of(after)),
    )


def _different(before: Result, after: Result) -> tuple[str, str]:
    """What tells two results apart: model, weights, layer; "before" and "after" where it is none of these."""
    names = [
        (str(r.attribute("model")["name"]), str(r.attribute("model")["weights"]), r.labels[0]) for r in (before, after)
    ]
    kept = [i for i in range(3) if names[0][i] != names[1][i]]
    one, two = (", ".join(_WEIGHTS.get(name[i], name[i]) for i in kept) for name in names)
    return one or "before", two or "after"
