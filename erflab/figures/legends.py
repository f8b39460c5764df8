"""Legends outside of the axes, where they hide no data; a constrained layout makes room for them."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes


def legend_above(axes: Axes, columns: int = 1, *, at: float = 0.5, **options: Any) -> None:
    """In so many columns on the upper edge of the axes, centred at a share of their width; options are matplotlib's."""
    axes.legend(loc="lower center", bbox_to_anchor=(at, 1.0), ncols=columns, **options)


def legend_below(axes: Axes, columns: int = 2, *, at: float = 0.5, **options: Any) -> None:
    """The same below the label of x."""
    axes.legend(loc="upper center", bbox_to_anchor=(at, 0.0), ncols=columns, **{"borderaxespad": 4, **options})
