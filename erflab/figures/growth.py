"""A size against depth, kernel or dilation: points with error bars, and the fitted growth laws through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from erflab.analysis.scaling import LinearLaw, PowerLaw
from erflab.figures.style import COLORS

_MARKERS = "osD^"  # told apart in grey as well, where the points of two series coincide


@dataclass(frozen=True, eq=False)
class Growth:
    """The points of one kind of network, with the law fitted to them."""

    label: str
    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    reach: Float[np.ndarray, " points"] | None = None
    """Half the length of each point's error bar."""
    law: LinearLaw | PowerLaw | None = None


def draw_growth(axes: Axes, series: Sequence[Growth], *, logarithmic: bool = False) -> None:
    """Draw each series as open markers with bars, its law as a line, and the law's slope or exponent in the legend.

    Args:
        axes: to draw in; its labels and title are the caller's.
        series: in the order of the legend.
        logarithmic: both axes logarithmic, on which a power law is straight.

    """
    if logarithmic:
        _make_logarithmic(axes)
    for grown, color, marker in zip(series, cycle(COLORS), cycle(_MARKERS)):
        if grown.law is not None:
            x = np.linspace(float(grown.x.min()), float(grown.x.max()), 101)
            axes.plot(x, grown.law.at(x), color=color, gid="law")
        axes.errorbar(
            grown.x,
            grown.y,
            grown.reach,
            fmt=marker,
            color=color,
            markersize=3.5,
            markerfacecolor="white",
            markeredgewidth=0.8,
            elinewidth=0.8,
            label=_described(grown),
        )
    axes.legend(title=_legend_title(series), handlelength=1, handletextpad=0.4, labelspacing=0.3, borderaxespad=0.2)


def _make_logarithmic(axes: Axes) -> None:
    """Few plain numbers in place of powers of ten: a sweep seldom spans two decades."""
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())


def _described(grown: Growth) -> str:
    """The label, and the slope or exponent with half its 95 % interval."""
    if grown.law is None:
        return grown.label
    found = grown.law.slope if isinstance(grown.law, LinearLaw) else grown.law.exponent
    if found.interval is None:
        return f"{grown.label} {found.value:.3f}"
    low, high = found.interval
    return f"{grown.label} {found.value:.3f} ± {(high - low) / 2:.3f}"


def _legend_title(series: Sequence[Growth]) -> str | None:
    kinds = {type(grown.law) for grown in series}
    return {LinearLaw: "slope", PowerLaw: "exponent"}.get(kinds.pop()) if len(kinds) == 1 else None
