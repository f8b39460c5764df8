"""The same theoretical field by depth, by kernel size, by dilation or by one depthwise kernel: which uses most of it, for what?

Networks that see 25 px, of 16 channels. Measures the sweep of conf/experiment/local_or_deep.yaml where it has not run yet: the
field by theory, by the weights, by gradient and by occlusion, its holes, and sigma for each parameter and operation.

    python experiments/local_or_deep.py [--full]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fields import Structure, draw_structures, flat, near, per_cost, structures
from matplotlib.axes import Axes
from study import Claim, publish, run

from erflab.figures import draw_points

NAMES = {
    "c1-c3x12": "twelve\n3 × 3",
    "c1-c5x6": "six\n5 × 5",
    "c1-c7x4": "four\n7 × 7",
    "c1-c13x2": "two\n13 × 13",
    "c1-c25": "one\n25 × 25",
    "c1-c3d3x4": "dilations\n3, 3, 3, 3",
    "c1-c3-c3d2-c3d3-c3d6": "dilations\n1, 2, 3, 6",
    "c1-c25g16-c1": "depthwise\n25 × 25",
}
DEEP, *KERNELS, LATTICE, DILATED, DEPTHWISE = NAMES.values()
FINDING = """# Small kernels in a stack see as far as a large one, and use the least of it

All networks have a theoretical field of 25 px. Random weights, ReLU, white noise. sigma: of the energy, in px; expected:
d^2 (k^2 - 1) / 12 added to sigma^2 by each layer of kernel k and dilation d. That a stack of 3 x 3 layers has the field of one
large kernel (Simonyan and Zisserman 2015) holds for the theoretical field alone. FLOPs: a pixel of the input. Holes: share of
the theoretical field that no path reaches, exact. Brackets: 95 % t intervals over weight seeds.

{table}
"""


def main(experiment: str = "local_or_deep", reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep fewer values (see `study.measured`)."""
    found = structures(experiment, NAMES, reduced)
    table = [row(name, structure) for name, structure in found.items()]
    figure = draw_structures(found, 14, draw_price, lower=1.8, left=1.3)
    publish(experiment, FINDING, claims(found), figure, {"table": table})


def row(name: str, structure: Structure) -> dict[str, Any]:
    sigma = structure.mean("gradient").value
    return structure.row(name) | {
        "sigma / TRF": round(sigma / structure.trf, 3),
        "holes": round(structure.holes, 3),
        **per_cost("px", sigma, structure.cost.parameters, structure.flops),
    }


def claims(found: Mapping[str, Structure]) -> list[Claim]:
    deep, by_occlusion = (found[DEEP].over(found[KERNELS[-1]], method) for method in ("gradient", "occlusion"))
    sigmas = [found[name].mean("gradient").value for name in (DEEP, *KERNELS)]
    dilated = found[DILATED].over(found[DEEP], "gradient")
    width_for_operations = [found[name].mean("gradient").value / found[name].flops for name in (DEEP, *KERNELS)]
    return [
        Claim("all see 25 px", {structure.trf for structure in found.values()} == {25}),
        near(found, "expected", 0.07),
        near(found, "predicted", 0.07),
        Claim("the larger the kernels and the fewer, the larger the effective field", sigmas == sorted(sigmas)),
        Claim(
            "for its operations it is the other way round, while all channels are joined",
            width_for_operations == sorted(width_for_operations, reverse=True),
        ),
        Claim(
            f"twelve 3 x 3 layers use {deep} of the width of one 25 x 25 by gradient, {by_occlusion} by occlusion",
            deep.within(0.35, 0.45) and by_occlusion.below(0.5),
        ),
        Claim(
            f"dilations 1, 2, 3, 6 reach {dilated} of the width of twelve 3 x 3 at a third of the operations, without holes",
            dilated.above(1.8) and found[DILATED].flops < 0.4 * found[DEEP].flops and found[DILATED].holes == 0,
        ),
        Claim("dilations 3, 3, 3, 3 leave holes", found[LATTICE].holes > 0.5),
        *(
            Claim(
                f"one depthwise 25 x 25 has the largest field for its {cost} (found: {flat(name)})", name == DEPTHWISE
            )
            for cost, name in (("operations", best(found, "flops")), ("parameters", best(found, "parameters")))
        ),
    ]


def best(found: Mapping[str, Structure], cost: str) -> str:
    """The network of the largest sigma for its operations or parameters, of those without holes."""
    whole = {name: structure for name, structure in found.items() if name != LATTICE}
    return max(whole, key=lambda name: whole[name].mean("gradient").value / getattr(whole[name].cost, cost))


def draw_price(axes: Axes, found: Mapping[str, Structure]) -> None:
    """Sigma against the operations that it costs, the best at the upper left."""
    draw_points(
        axes, {flat(name): (structure.flops / 1000, structure.mean("gradient")) for name, structure in found.items()}
    )
    axes.set(xscale="log", xlabel="thousand FLOP / px", ylabel="$\\sigma$ (px)", ylim=(0, 8))
    axes.set_xticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    axes.minorticks_off()


if __name__ == "__main__":
    run(main, "local_or_deep")
