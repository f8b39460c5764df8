"""A size against depth, kernel or dilation: points with error bars, and the fitted growth laws through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from erflab.analysis.jackknife import Estimate
from erflab.analysis.scaling import LinearLaw, PowerLaw
from erflab.figures.intervals import error_bars
from erflab.figures.legends import legend_above
from erflab.figures.style import COLORS, DENSE, plain_ticks

_MARKERS = "osD^v"  # told apart in grey as well, where the points of two series coincide


@dataclass(frozen=True, eq=False)
class Growth:
    """The points of one kind of network, with the law fitted to them."""

    label: str
    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    reach: Float[np.ndarray, " points"] | Float[np.ndarray, "2 points"] | None = None
    """Half the length of each point's error bar, or how far it reaches down and up; nan for none."""
    law: LinearLaw | PowerLaw | None = None

    @classmethod
    def of(cls, label: str, x: ArrayLike, numbers: Sequence[Estimate]) -> Growth:
        """Numbers with their intervals at each x."""
        y = np.array([number.value for number in numbers], float)
        return cls(label, np.asarray(x, float), y, error_bars(numbers))


def draw_growth(
    axes: Axes, series: Sequence[Growth], *, reference: Growth | None = None, logarithmic: bool = False
) -> None:
    """Draw each series as open markers with bars, its law as a line, and the law's slope or exponent in the legend.

    The legend stands above the axes, where the rising and the falling alike leave room.

    Args:
        axes: to draw in; its labels and title are the caller's.
        series: in the order of the legend.
        reference: what the series should tend to, drawn as a dashed line through its points.
        logarithmic: both axes logarithmic, on which a power law is straight.

    """
    if logarithmic:
        _make_logarithmic(axes)
    if reference is not None:
        axes.plot(
            reference.x,
            reference.y,
            "--",
            color="black",
            linewidth=0.7,
            zorder=3,
            label=_described(reference),
            gid="reference",
        )
    for grown, color, marker in zip(series, cycle(COLORS), cycle(_MARKERS)):
        _draw_series(axes, grown, color, marker)
    title = _legend_title(series)
    legend_above(axes, title=title, title_fontsize=7, handlelength=1.6, labelspacing=0.3, borderaxespad=0.2)


def _draw_series(axes: Axes, grown: Growth, color: str, marker: str) -> None:
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


def _make_logarithmic(axes: Axes) -> None:
    """A sweep spans about one decade."""
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis, DENSE)


def _described(grown: Growth) -> str:
    """The label, and the slope or exponent with half its 95 % interval."""
    if grown.law is None:
        return grown.label
    found = grown.law.slope if isinstance(grown.law, LinearLaw) else grown.law.exponent
    value = f"{found.value:.3f}".replace("-", "−")
    if found.interval is None:
        return f"{grown.label} {value}"
    low, high = found.interval
    return f"{grown.label} {value} ± {(high - low) / 2:.3f}"


def _legend_title(series: Sequence[Growth]) -> str | None:
    kinds = {type(grown.law) for grown in series}
    names = {LinearLaw: "slope", PowerLaw: "exponent"}
    name = names.get(kinds.pop()) if len(kinds) == 1 else None
    return f"{name}, 95 % interval" if name else None
