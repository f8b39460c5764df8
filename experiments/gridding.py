"""Do dilations leave holes in the field, and does a unit feel them where there are none?

Three 3 x 3 convolutions of dilations (1,1,1), (2,2,2), (1,2,3), (1,2,5) and (1,2,9), after Wang et al. 2018 (arXiv:1702.08502),
who ask that a stack leave no holes. Measures the sweep of conf/experiment/gridding.yaml where it has not run yet: the share of
holes in the exact set, and the unevenness of the gradient field over the cells of the largest dilation.

    python experiments/gridding.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fields import Structure, draw_fields, structures
from matplotlib.figure import Figure
from spelled import parsed
from study import Claim, publish

import erflab
from erflab.analysis import replicate_mean
from erflab.analysis.spectrum import checkerboard
from erflab.figures import PAGE, draw_spectrum, paper_figure

NAMES = {
    "c3-c3-c3": "(1, 1, 1)",
    "c3d2-c3d2-c3d2": "(2, 2, 2)",
    "c3-c3d2-c3d3": "(1, 2, 3)",
    "c3-c3d2-c3d5": "(1, 2, 5)",
    "c3-c3d2-c3d9": "(1, 2, 9)",
}
PLAIN, LATTICE, EVEN, GROWN, SPARSE = NAMES.values()
FINDING = """# Equal dilations leave holes; growing ones do not, but the field stays uneven

TRF: side in px. Holes: share of it that no path reaches, exact. Unevenness: largest harmonic of the field summed by position
modulo the largest dilation (1 for a lattice, 0 for an even field); mean over weight seeds with its 95 % t interval.

{table}
"""


def main(reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep fewer values (see `study.measured`)."""
    found = structures("gridding", NAMES, reduced)
    rows = {name: row(name, structure) for name, structure in found.items()}
    publish("gridding", FINDING, claims(rows), draw(found), {"table": [*rows.values()]})


def row(name: str, structure: Structure) -> dict[str, Any]:
    period = max(2, *(layer.dilation for layer in parsed(structure.layers)))
    uneven = [checkerboard(erflab.load(directory).map(), period) for directory in structure.directories]
    return {
        "dilations": name,
        "TRF (px)": structure.trf,
        "holes": round(structure.holes, 3),
        "period (px)": period,
        "unevenness": replicate_mean(uneven),
        "seeds": len(uneven),
    }


def claims(rows: Mapping[str, dict[str, Any]]) -> list[Claim]:
    holes, uneven = ({name: row[key] for name, row in rows.items()} for key in ("holes", "unevenness"))
    return [
        Claim("(2, 2, 2) sees 49 of 169 px: 71 % holes", holes[LATTICE] == round(120 / 169, 3)),
        Claim("(2, 2, 2) is a lattice: unevenness 1", abs(uneven[LATTICE].value - 1) < 1e-6),
        Claim("(1, 1, 1), (1, 2, 3) and (1, 2, 5) have no holes", not any(holes[n] for n in (PLAIN, EVEN, GROWN))),
        Claim("(1, 2, 9) has holes all the same", holes[SPARSE] > 0),
        Claim(
            f"without a hole, (1, 2, 5) is still less even ({uneven[GROWN]}) than (1, 2, 3) ({uneven[EVEN]})",
            uneven[GROWN].above(uneven[EVEN]),
        ),
    ]


def draw(found: Mapping[str, Structure]) -> Figure:
    with paper_figure(PAGE, 3.1) as figure:
        fields, spectra = figure.subplots(2, len(found), squeeze=False)
        draw_fields(fields, found, 13)
        for axes, structure in zip(spectra, found.values(), strict=True):
            power = draw_spectrum(axes, structure.first.map())
            axes.set_xticks([-0.5, 0, 0.5])
            axes.label_outer()
        figure.colorbar(power, ax=spectra, label="power / power at 0", extend="min")
    return figure


if __name__ == "__main__":
    main()
