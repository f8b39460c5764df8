"""Do dilations leave holes in the field, and does a unit feel them where there are none?

Three 3 x 3 convolutions of dilations (1,1,1), (2,2,2), (1,2,3), (1,2,5) and (1,2,9), after Wang et al. 2018 (arXiv:1702.08502),
who ask that a stack leave no holes. Measures the sweep of conf/experiment/gridding.yaml where it has not run yet: the share of
holes in the exact set, and the unevenness of the gradient field over the cells of the largest dilation.

    python experiments/gridding.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from spelled import network, parsed
from study import Claim, conclude, markdown, replicates, write_table

import erflab
from erflab.analysis.scaling import replicate_mean
from erflab.analysis.spectrum import checkerboard
from erflab.figures.maps import draw_map
from erflab.figures.outlines import draw_box
from erflab.figures.spectrum import draw_spectrum
from erflab.figures.style import PAGE, freeze_layout, paper, save
from erflab.result import Result

SWEEP = Path("multirun/gridding")
WHOLE = ("(1, 1, 1)", "(1, 2, 3)", "(1, 2, 5)")
FINDING = """# Equal dilations leave holes; growing ones do not, but the field stays uneven

TRF: side in px. Holes: share of it that no path reaches, exact. Unevenness: largest harmonic of the field summed by position
modulo the largest dilation (1 for a lattice, 0 for an even field); mean over weight seeds with its 95 % t interval.

"""


def main(reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep fewer values (see `study.measured`)."""
    found = replicates("gridding", reduced)
    table = [row(layers, results) for layers, results in found.items()]
    write_table(SWEEP / "table.csv", table)
    print(*save(draw({layers: results[0] for layers, results in found.items()}), SWEEP / "gridding"), sep="\n")
    conclude(SWEEP, FINDING + markdown(table), claims({str(r["dilations"]): r for r in table}))


def dilations(layers: str) -> tuple[int, ...]:
    return tuple(layer.dilation for layer in parsed(layers))


def row(layers: str, results: list[Result]) -> dict[str, Any]:
    field = erflab.theoretical_field(network(layers), input_size=(48, 48))
    period = max(2, *dilations(layers))
    uneven = [checkerboard(result.map(), period) for result in results]
    return {
        "dilations": str(dilations(layers)),
        "TRF (px)": int(field.size[0] or 0),
        "holes": round(1 - field.support().density, 3),
        "period (px)": period,
        "unevenness": replicate_mean(uneven),
        "seeds": len(uneven),
    }


def claims(rows: Mapping[str, dict[str, Any]]) -> list[Claim]:
    holes, uneven = ({name: row[key] for name, row in rows.items()} for key in ("holes", "unevenness"))
    lattice, even, grown = uneven["(2, 2, 2)"], uneven["(1, 2, 3)"], uneven["(1, 2, 5)"]
    return [
        Claim("(2, 2, 2) sees 49 of 169 px: 71 % holes", holes["(2, 2, 2)"] == round(120 / 169, 3)),
        Claim("(2, 2, 2) is a lattice: unevenness 1", abs(lattice.value - 1) < 1e-6),
        Claim("(1, 1, 1), (1, 2, 3) and (1, 2, 5) have no holes", not any(holes[n] for n in WHOLE)),
        Claim("(1, 2, 9) has holes all the same", holes["(1, 2, 9)"] > 0),
        Claim(
            f"without a hole, (1, 2, 5) is still less even ({grown}) than (1, 2, 3) ({even})",
            grown.interval is not None and even.interval is not None and grown.interval[0] > even.interval[1],
        ),
    ]


def draw(found: Mapping[str, Result]) -> Figure:
    half = 13
    with paper():
        figure = Figure(figsize=(PAGE, 3.1), layout="constrained")
        axes = figure.subplots(2, len(found), squeeze=False)
        for (upper, lower), (layers, result) in zip(axes.T, found.items(), strict=True):
            image = draw_map(upper, result.map(), (-half, half, -half, half))
            draw_box(upper, result.box, (-half, half, -half, half))
            upper.set(title=str(dilations(layers)), xlabel="x (px)")
            power = draw_spectrum(lower, result.map())
            for grid in (upper, lower):
                if grid not in axes[:, 0]:
                    grid.tick_params(labelleft=False)
                    grid.set_ylabel("")
            lower.set_xticks([-0.5, 0, 0.5])
        axes[0, 0].set_ylabel("y (px)")
        figure.colorbar(image, ax=axes[0], label="relative to peak", extend="min")
        figure.colorbar(power, ax=axes[1], label="power / power at 0", extend="min")
        freeze_layout(figure)
    return figure


if __name__ == "__main__":
    main()
