"""The figures that a result can draw of itself: `result.plot(path, kind=...)`, one table of kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from erflab.errors import ResultError, closest
from erflab.plots import part, several

if TYPE_CHECKING:
    from erflab.result import Result


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


KINDS: dict[str, Kind] = {
    "erf": Kind("maps of every method with TRF, fit and centroid, and a section through them", part.erf),
    "outlines": Kind("the same with the squares that hold 50 % and 95.45 %", part.outlines),
    "sections": Kind("sections on a linear and a logarithmic scale, with fits and bands", part.sections),
    "radial": Kind("radial profile and encircled share, with bands", part.radial),
    "residual": Kind("map minus fit", part.residual),
    "spectrum": Kind("power spectrum: checkerboards", part.spectrum),
    "comparison": Kind("gradient against occlusion", part.comparison),
    "convergence": Kind("sigma and its error while images were added", part.convergence),
    "depth": Kind("sizes of every part against depth", several.depth, parts=True),
    "grid": Kind(
        "maps, a row a part and a column a method, of one or several results", several.grid, most=None, parts=True
    ),
    "areas": Kind(
        "area over the TRF's, with intervals, of one or several results", several.areas, most=None, parts=True
    ),
    "pair": Kind("two results before and after, with sigma ± standard error", several.pair, most=2, least=2),
}
"""Name -> what it shows and how it is drawn."""
