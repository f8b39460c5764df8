"""What does padding do to the field of a unit at the border?

Six 3 x 3 convolutions without padding, with zeros, with the mirrored image and with the image's other side, seen from the
centre, the upper edge and the corner. Measures the sweep of conf/experiment/padding.yaml where it has not run yet: for each
unit the energy of its field, that of the centre being 1, the share of it on the image's outermost pixels, and the share
beyond its theoretical field, which wrapping carries to the other side.

    python experiments/padding.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr
from matplotlib.figure import Figure
from study import Claim, publish, replicates

from erflab.analysis import Coefficient, replicate_mean, share_outside
from erflab.figures import ErfPanel, draw_map_grid
from erflab.result import Result

UNITS = ("center", "edge", "corner")
FINDING = """# Zeros take most of the field from units at the border; mirrored and wrapped images give it back

Six 3 x 3 convolutions, TRF 13 px. Energy: sum of the field over the image, over that of the centre unit of the same network.
Border share: what of it lies on the outermost pixels. Far share: what lies beyond the TRF, on the other side of the image.
Means over weight seeds with their 95 % t intervals.

{table}
"""


def main(reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep fewer values (see `study.measured`)."""
    found = replicates("padding", reduced)
    rows = {(padding, unit): row(padding, unit, results) for padding, results in found.items() for unit in UNITS}
    figure = draw({padding: results[0] for padding, results in found.items()})
    publish("padding", FINDING, claims(rows), figure, {"table": [*rows.values()]})


def row(padding: str, unit: str, results: list[Result]) -> dict[str, Any]:
    def mean(number: Callable[[Result], float]) -> Coefficient:
        return replicate_mean([number(result) for result in results])

    return {
        "padding": padding,
        "unit": unit,
        "energy": mean(lambda r: float(part(r, unit).map().sum() / part(r, "center").map().sum())),
        "border share": mean(lambda r: border_share(part(r, unit).map())),
        "far share": mean(lambda r: share_outside(part(r, unit).map(), part(r, unit).box or ())),
    }


def part(result: Result, unit: str) -> Result:
    return list(result)[UNITS.index(unit)]


def border_share(map: xr.DataArray) -> float:
    """What of a map of the whole image lies on its outermost pixels."""
    return 1 - float(map[1:-1, 1:-1].sum() / map.sum())


def claims(rows: Mapping[tuple[str, str], dict[str, Any]]) -> list[Claim]:
    energy, far = ({key: row[name] for key, row in rows.items()} for name in ("energy", "far share"))
    edge, corner = energy["zeros", "edge"], energy["zeros", "corner"]
    kept = {key: value for key, value in energy.items() if key[0] != "zeros"}
    return [
        Claim(f"with zeros a unit at the edge has 0.2 to 0.5 of the centre's energy ({edge})", edge.within(0.2, 0.5)),
        Claim(f"with zeros a unit in the corner has 0.05 to 0.2 of it ({corner})", corner.within(0.05, 0.2)),
        Claim(
            "that is less than the share of a wrapped field that stays on this side: paths that leave do not come back",
            all(top(energy["zeros", u]) < 1 - top(far["circular", u]) for u in ("edge", "corner")),
        ),
        Claim("every other padding keeps between 0.7 and 1.4 of it", all(v.within(0.7, 1.4) for v in kept.values())),
        Claim(
            f"wrapping puts 0.35 to 0.5 of an edge unit's field ({far['circular', 'edge']}) and 0.6 to 0.7 of a corner "
            f"unit's ({far['circular', 'corner']}) on the other side",
            far["circular", "edge"].within(0.35, 0.5) and far["circular", "corner"].within(0.6, 0.7),
        ),
        Claim(
            "no other padding reaches beyond the TRF",
            all(v.value < 1e-9 for (p, _), v in far.items() if p != "circular"),
        ),
    ]


def top(mean: Coefficient) -> float:
    return mean.interval[1] if mean.interval is not None else math.inf


def draw(found: Mapping[str, Result]) -> Figure:
    return draw_map_grid(
        [(unit, [ErfPanel(padding, part(result, unit).map()) for padding, result in found.items()]) for unit in UNITS]
    )


if __name__ == "__main__":
    main()
