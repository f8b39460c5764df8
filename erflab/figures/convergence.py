"""Sigma and its 95 % interval while images were added."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, StrMethodFormatter

from erflab.figures.style import SERIES


def draw_convergence(axes: Axes, looks: Mapping[str, xr.Dataset]) -> None:
    """Sigma after 64, 128, 256, ... images with bars of one standard error, images on a logarithmic scale.

    Args:
        axes: to draw in.
        looks: method -> `images`, `sigma` and `standard_error` in px, dim "look", as `Result.convergence` gives them;
            NaN is left out.
    """
    counts: set[int] = set()
    # Side by side, so that the bars of two methods that agree can be told apart.
    for number, ((method, found), color) in enumerate(zip(looks.items(), cycle(SERIES))):
        counts |= {int(n) for n in found["images"].values}
        axes.errorbar(
            found["images"].values * 1.03**number,
            found["sigma"].values,
            found["standard_error"].values,
            color=color,
            marker="os^Dv"[number % 5],
            markersize=3,
            capsize=2,
            elinewidth=0.8,
            label=method,
        )
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xticks(sorted(counts))
    axes.set(xlim=(min(counts) / 1.3, max(counts) * 1.3), xlabel="images", ylabel="σ (px)")
