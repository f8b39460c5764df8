"""What do depth, kernel, dilation, stride and pooling each do to the field, and what do they cost?

Six 3 x 3 convolutions, and the same network with one thing changed that enlarges the theoretical field. Measures the sweeps
of conf/experiment/enlarge.yaml and, on photographs, enlarge_photographs.yaml where they have not run yet: the field by theory,
by the weights, by gradient and by occlusion, and how much it grows for each added pixel of theoretical field, parameter and
operation.

    python experiments/enlarge.py [--full]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fields import Structure, draw_structures, flat, near, per_cost, structures
from matplotlib.axes import Axes
from study import Claim, numbers, publish, run

from erflab.analysis import Coefficient, replicate_mean
from erflab.figures import draw_points

NAMES = {
    "c3x6": "six 3 × 3",
    "c3x8": "eight 3 × 3\n(depth)",
    "c3x3-c7-c3x2": "one 7 × 7\n(kernel)",
    "c3x3-c3d3-c3x2": "one with\ndilation 3",
    "c3x3-c3s2-c3x2": "stride 2\nin fourth",
    "c3s2-c3x5": "stride 2\nin first",
    "c3x3-p2s2-c3x3": "max pool\n2/2",
    "c3x3-a2s2-c3x3": "mean pool\n2/2",
}
BASE, DEPTH, KERNEL, DILATION, STRIDE, EARLY, MAX, MEAN = NAMES.values()
PHOTOGRAPHS = "enlarge_photographs"
FINDING = """# Depth dilutes the field; kernels, dilation and strides do not

Six 3 x 3 convolutions of 16 channels, random weights, ReLU, white noise; each other network changes one thing. sigma: of the
energy, in px; expected: j^2 d^2 (k^2 - 1) / 12 added to sigma^2 by kernel k, dilation d and the strides j before it. Growth:
relative growth of sigma over that of the theoretical field, 1 where both grow alike; the added numbers are against the six
3 x 3. FLOPs: a pixel of the input, zeros keeping the maps at their size. Photographs: sigma on them over that on noise.
Brackets: 95 % t intervals over weight seeds.

{table}
"""


def main(experiment: str = "enlarge", reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep fewer values (see `study.measured`)."""
    found = structures(experiment, NAMES, reduced)
    shown = on_photographs(found, reduced)
    table = [row(name, structure, found[BASE]) | {"photographs": shown[name]} for name, structure in found.items()]
    figure = draw_structures(found, 13, draw_growths, left=1.5)
    publish(experiment, FINDING, claims(found, shown), figure, {"table": table})


def on_photographs(found: Mapping[str, Structure], reduced: Mapping[str, str] | None) -> dict[str, Coefficient]:
    """Sigma on photographs over that on noise, by gradient, of the seeds that were shown both."""
    shown = structures(PHOTOGRAPHS, NAMES, reduced)
    sigmas = {name: numbers(structure.directories, "gradient.sigma") for name, structure in shown.items()}
    return {
        name: replicate_mean(sigma / found[name].sigmas["gradient"][: len(sigma)]) for name, sigma in sigmas.items()
    }


def growth(structure: Structure, base: Structure, method: str = "gradient") -> Coefficient:
    """Relative growth of sigma over that of the theoretical field, seed by seed."""
    longer = structure.trf / base.trf - 1
    return structure.compared(base, method, lambda grown, before: (grown / before - 1) / longer)


def row(name: str, structure: Structure, base: Structure) -> dict[str, Any]:
    added = structure.compared(base, "gradient", lambda grown, before: grown**2 - before**2)
    parameters, flops = structure.cost.parameters - base.cost.parameters, structure.flops - base.flops
    same = structure is base
    return structure.row(name) | {
        "growth": "" if same else growth(structure, base),
        "growth by occlusion": "" if same else growth(structure, base, "occlusion"),
        "added sigma^2 (px^2)": "" if same else added,
        "added parameters": parameters,
        "added FLOP / px": round(flops),
        **per_cost("px^2", added.value, parameters, flops),
    }


def claims(found: Mapping[str, Structure], shown: Mapping[str, Coefficient]) -> list[Claim]:
    growths = {name: growth(structure, found[BASE]) for name, structure in found.items() if name != BASE}
    faster = [growths[name] for name in (KERNEL, DILATION, STRIDE, EARLY)]
    better = found[DILATION].over(found[KERNEL], "gradient")
    early = found[EARLY].over(found[BASE], "gradient")
    return [
        near(found, "expected", 0.05),
        near(found, "predicted", 0.05),
        Claim(
            f"depth: the effective field grows by {growths[DEPTH]} of the theoretical one's growth, below 1",
            growths[DEPTH].below(1),
        ),
        Claim(
            f"kernel ({faster[0]}), dilation ({faster[1]}) and stride ({faster[2]}, {faster[3]}) let it grow faster than that",
            all(growth.above(1) for growth in faster),
        ),
        Claim(
            f"dilation 3 reaches the {found[KERNEL].trf} px of a 7 x 7 kernel without a parameter; sigma is {better} of its",
            found[DILATION].trf == found[KERNEL].trf and better.above(1),
        ),
        Claim(
            f"a stride in the first layer multiplies all that follows: sigma is {early} times as large, at fewer operations",
            early.above(1.7) and found[EARLY].flops < found[BASE].flops / 2,
        ),
        Claim(
            "on photographs every sigma is that on noise within 10%",
            all(ratio.within(0.9, 1.1) for ratio in shown.values()),
        ),
    ]


def draw_growths(axes: Axes, found: Mapping[str, Structure]) -> None:
    """Sigma against the theoretical field, both relative to the base; on the line both grow alike."""
    base, (_, *others) = found[BASE], found.items()
    axes.plot([1, 1.9], [1, 1.9], "--", color="black", linewidth=0.7)
    draw_points(axes, {flat(name): (grown.trf / base.trf, grown.over(base, "gradient")) for name, grown in others})
    axes.set(xlabel="TRF / TRF of six 3 × 3", ylabel="$\\sigma$ / $\\sigma$ of six 3 × 3")


if __name__ == "__main__":
    run(main, "enlarge")
