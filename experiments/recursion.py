"""How large is the field of conv3, conv3, pool2/2: 6 px, or the 10 px of a popular recursion?

RF <- (RF - 1) * stride + kernel is right when it runs from the last layer to the first. Run from the first to the last, as it
is often written, it stretches what lies below a stride in place of what lies above it. Measures the sweep of
conf/experiment/recursion.yaml where it has not run yet: the field by both orders, by theory, and by where gradients arrive.

    python experiments/recursion.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from spelled import Layer, parsed
from study import Claim, measured, number, publish

import erflab
from erflab.figures import COLORS, DASHES, TEXT, draw_box, draw_map, paper_figure

FINDING = """# A field is counted from the last layer to the first

Side in px of the field of one unit, exact. The recursion RF <- (RF - 1) * stride + kernel, run from the first layer to the
last, is wrong on each of these: too large where a stride comes last, too small where strides come first. Run from the last to
the first it is the theoretical field, and gradients arrive at every pixel of that and at no other.

{table}
"""


def main() -> None:
    found = {layers: directory for (layers,), directory in measured("recursion").items()}
    table = [row(layers, directory) for layers, directory in found.items()]
    agree = all(r["last to first"] == r["theory"] == r["gradient"] for r in table)
    claims = [
        Claim(
            "c3-c3-p2s2: theory and gradient say 6 px, the recursion from first to last 10",
            [table[0][name] for name in ("theory", "gradient", "first to last")] == [6, 6, 10],
        ),
        Claim("theory, gradient and the recursion from last to first agree on every network", agree),
        Claim("a gradient arrives at every pixel of the field", all(r["pixels"] == r["theory"] ** 2 for r in table)),
        Claim(
            "the recursion from first to last is too large where the stride comes last, too small where strides come first",
            [r["first to last"] > r["theory"] for r in table] == [True, True, False]
            and table[2]["first to last"] < table[2]["theory"],
        ),
    ]
    publish("recursion", FINDING, claims, draw(found, table), {"table": table})


def recursion(layers: Sequence[Layer]) -> int:
    """(RF - 1) * stride + kernel, in the order given."""
    field = 1
    for layer in layers:
        field = (field - 1) * layer.stride + layer.kernel
    return field


def row(layers: str, directory: Path) -> dict[str, int | str]:
    seen = erflab.load(directory).map().values > 0
    return {
        "layers": layers,
        "first to last": recursion(parsed(layers)),
        "last to first": recursion(parsed(layers)[::-1]),
        "theory": int(number(directory, "trf_size_x")),
        "gradient": int(np.ptp(np.flatnonzero(seen.any(0)))) + 1,
        "pixels": int(seen.sum()),
    }


def draw(found: dict[str, Path], table: Sequence[dict[str, int | str]]) -> Figure:
    with paper_figure(TEXT, 2.0) as figure:
        row_of_axes = figure.subplots(1, len(table))
        for axes, (layers, directory), sizes in zip(row_of_axes, found.items(), table, strict=True):
            result, wrong = erflab.load(directory), float(sizes["first to last"])
            half = 0.6 * max(wrong, float(sizes["theory"]))
            image = draw_map(axes, result.map(), (-half, half, -half, half))
            draw_box(axes, result.box, (-half, half, -half, half))
            square = Rectangle(
                (-wrong / 2, -wrong / 2), wrong, wrong, fill=False, edgecolor=COLORS[4], linestyle=DASHES
            )
            axes.add_patch(square)
            axes.set(title=layers, xlabel="x (px)")
        row_of_axes[0].set_ylabel("y (px)")
        figure.colorbar(image, ax=row_of_axes, label="relative to peak", extend="min", shrink=0.7)
        figure.suptitle("gradient; theory (green); recursion from first to last (dashed)", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
