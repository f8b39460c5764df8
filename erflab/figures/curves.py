"""How a curve with its error band is drawn, in every figure alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from erflab.analysis.curves import Curve


def draw_curve(axes: Axes, curve: Curve, color: str, label: str, *, floor: float = -np.inf, **style: Any) -> Line2D:
    """A line, and one standard error to either side of it, cut off at `floor` (the least value of a logarithmic scale)."""
    line: Line2D = axes.plot(curve.x, curve.y, color=color, label=label, **{"linewidth": 0.8, **style})[0]
    if curve.standard_error is not None:
        low, high = curve.y - curve.standard_error, curve.y + curve.standard_error
        axes.fill_between(
            curve.x, np.maximum(low, floor), np.maximum(high, floor), color=color, alpha=0.25, linewidth=0, gid="band"
        )
    return line
