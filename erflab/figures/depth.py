"""Sizes against depth: the theoretical side and the measured sigma of every layer, with intervals, on a log scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from erflab.analysis.jackknife import Estimate
from erflab.analysis.sizes import Sizes
from erflab.figures.intervals import error_bars
from erflab.figures.style import COLORS, COLUMN, DENSE, SPARSE, paper_figure, plain_ticks

_MARKERS = "os^Dv"


@dataclass(frozen=True)
class DepthPoint:
    """One layer: sigma in px with its 95 % interval, and the geometric mean of the theoretical field's sides (None: global)."""

    sigma: float | None = None
    interval: tuple[float, float] | None = None
    trf: float | None = None

    @classmethod
    def of(cls, sizes: Sizes | None, trf_size: Sequence[Any]) -> DepthPoint:
        """The point of one part of a result."""
        sides = [float(side) for side in trf_size if side is not None]
        known = len(sides) == len(trf_size) and all(math.isfinite(s) and s > 0 for s in sides)
        trf = math.prod(sides) ** (1 / len(sides)) if known else None
        if sizes is None:
            return cls(trf=trf)
        sigma = sizes.quantities["sigma"]
        return cls(sigma.value, sigma.interval, trf)


def draw_depth(labels: Sequence[str], lines: Mapping[str, Sequence[DepthPoint]], title: str = "") -> Figure:
    """The figure: layers in execution order across, px up, a line a method.

    Args:
        labels: one name a layer.
        lines: method -> one point a layer.
        title: above the figure.
    """
    with paper_figure(COLUMN, 0.8 * COLUMN) as figure:
        axes = figure.add_subplot()
        _draw(axes, labels, lines)
        axes.set_title(title)
    return figure


def _draw(axes: Axes, labels: Sequence[str], lines: Mapping[str, Sequence[DepthPoint]]) -> None:
    trf = [point.trf for point in next(iter(lines.values()))]
    places = range(len(labels))
    axes.plot(places, [math.nan if t is None else t for t in trf], color=COLORS[2], ls="--", label="TRF side")
    for number, (method, points) in enumerate(lines.items()):
        color = COLORS[number % len(COLORS)]
        kept = [(place, point) for place, point in zip(places, points, strict=True) if point.sigma]
        axes.errorbar(
            [place for place, _ in kept],
            [float(p.sigma or 0.0) for _, p in kept],
            yerr=error_bars([Estimate(point.sigma, interval=point.interval) for _, point in kept]),
            color=color,
            marker=_MARKERS[number % len(_MARKERS)],
            ms=3,
            capsize=2,
            label=f"{method} $\\sigma$",
        )
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    plain_ticks(axes.yaxis, DENSE if high < 15 * low else SPARSE)
    axes.set_ylabel("size (px)")
    every = max(1, math.ceil(len(labels) / 16))
    axes.set_xticks(
        list(places)[::every],
        list(labels)[::every],
        rotation=60 if len(labels) > 4 else 0,
        ha="right" if len(labels) > 4 else "center",
    )
    axes.legend()
