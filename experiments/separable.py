"""What do grouped and depthwise separable convolutions do to the field?

Eight 3 x 3 layers of 32 channels, dense, in 4 groups and depthwise, each alone and followed by 1 x 1 convolutions, which mix
the groups. Measures the sweep of conf/experiment/separable.yaml where it has not run yet: the field by theory, by the weights,
by gradient and by occlusion, how much it scatters from network to network, and how evenly it fills its area.

    python experiments/separable.py [--full]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fields import Structure, draw_structures, flat, near, structures
from matplotlib.axes import Axes
from scipy.stats import f as fisher
from study import Claim, numbers, publish, run

from erflab.analysis import Coefficient, replicate_mean
from erflab.figures import draw_replicates

NAMES = {
    "c1-c3x8": "dense",
    "c1-c3+c1x8": "dense\n+ 1 × 1",
    "c1-c3g4x8": "4 groups",
    "c1-c3g4+c1x8": "4 groups\n+ 1 × 1",
    "c1-c3g32x8": "depthwise",
    "c1-c3g32+c1x8": "depthwise\nseparable",
}
DENSE, CONTROL, GROUPED, MIXED, DEPTHWISE, SEPARABLE = NAMES.values()
FINDING = """# Separable convolutions see as far as dense ones for a seventh of the price, once 1 x 1 layers mix the channels

Eight 3 x 3 layers of 32 channels after a 1 x 1 one, random weights, ReLU, white noise. sigma: of the energy, in px; expected to
be the same for all. Scatter: standard deviation over weight seeds of the sigma that the weights predict, over its mean: no
image blurs it. Evenness: exp(entropy) of the gradient field over that of a Gaussian of the same sigma. FLOPs: a pixel of the
input. Brackets: 95 % t intervals over weight seeds.

{table}
"""


def main(experiment: str = "separable", reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep fewer values (see `study.measured`)."""
    found = structures(experiment, NAMES, reduced)
    table = [row(name, structure) for name, structure in found.items()]
    figure = draw_structures(found, 9, draw_scatter, lower=1.5)
    publish(experiment, FINDING, claims(found), figure, {"table": table})


def row(name: str, structure: Structure) -> dict[str, Any]:
    return structure.row(name) | {"scatter": round(scatter(structure), 4), "evenness": evenness(structure)}


def scatter(structure: Structure) -> float:
    sigma = structure.sigmas["predicted"]
    return float(sigma.std(ddof=1) / sigma.mean())


def evenness(structure: Structure) -> Coefficient:
    areas = numbers(structure.directories, "gradient.entropy_area")
    return replicate_mean(areas / (2 * math.pi * math.e * structure.sigmas["gradient"] ** 2))


def claims(found: Mapping[str, Structure]) -> list[Claim]:
    seeds = len(found[DENSE].directories)
    told = math.sqrt(fisher.ppf(0.975, seeds - 1, seeds - 1))  # of two standard deviations over as many seeds
    wider, widest = (scatter(found[name]) / scatter(found[DENSE]) for name in (SEPARABLE, DEPTHWISE))
    separable, control = (found[name].over(found[DENSE], "gradient") for name in (SEPARABLE, CONTROL))
    price = found[DENSE].flops / found[SEPARABLE].flops
    even, uneven = evenness(found[SEPARABLE]), evenness(found[DEPTHWISE])
    return [
        Claim("all have the same theoretical field, 17 px", {structure.trf for structure in found.values()} == {17}),
        near(found, "expected", 0.1),
        near(found, "predicted", 0.1),
        Claim(
            f"1 x 1 convolutions between dense layers change nothing: sigma is {control}", control.within(0.95, 1.05)
        ),
        Claim(
            f"separable: sigma is {separable} of the dense one's, within 7 %, at 1 / {price:.1f} of the operations",
            separable.within(0.93, 1.07) and price > 5,
        ),
        Claim(f"separable networks scatter {wider:.1f} times as much from seed to seed as dense ones", wider > told),
        Claim(f"depthwise ones that never mix scatter {widest:.1f} times as much", widest > max(told, wider)),
        Claim(
            f"where channels never mix a few of them carry the field: evenness {uneven}, separable {even}",
            even.above(uneven),
        ),
    ]


def draw_scatter(axes: Axes, found: Mapping[str, Structure]) -> None:
    """Every seed's sigma over the expected one."""
    ratios = {
        method: [structure.sigmas[method] / structure.sigmas["expected"] for structure in found.values()]
        for method in ("predicted", "gradient")
    }
    draw_replicates(axes, [*map(flat, found)], ratios, "$\\sigma$ / expected, each seed", reference=1)


if __name__ == "__main__":
    run(main, "separable")
