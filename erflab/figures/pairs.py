"""Before and after: two maps of one method side by side, and their sections on one axis."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.figure import Figure

from erflab.analysis.sizes import Quantity
from erflab.figures.erf import draw_erf
from erflab.figures.panel import ErfPanel


def draw_pair(
    before: ErfPanel,
    after: ErfPanel,
    names: tuple[str, str] = ("before", "after"),
    *,
    title: str | None = None,
    sigmas: tuple[Quantity | None, Quantity | None] = (None, None),
    strip: float = 1.0,
) -> Figure:
    """The ERF figure of two maps of one method, named by what changed, with sigma ± standard error written into each.

    Args:
        before, after: of one method, in px from the unit's centre; shown on one extent.
        names: what the two are, such as ("random weights", "trained").
        title: above the figure.
        sigmas: of the two maps, in px.
        strip: width in px of the rows that the sections average.
    """
    panels = [
        replace(panel, title=name, notes=(*panel.notes, *([] if sigma is None else [_quoted(sigma)])))
        for panel, name, sigma in zip((before, after), names, sigmas, strict=True)
    ]
    return draw_erf(panels, title=title, strip=strip)


def _quoted(sigma: Quantity) -> str:
    error = "" if sigma.standard_error is None else f" ± {sigma.standard_error:.2g}"
    return "no σ" if sigma.value is None else f"σ = {sigma.value:.3g}{error} px"
