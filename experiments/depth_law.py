"""Does the effective field grow as the square root of depth, and shrink as its inverse beside the theoretical one?

Figures 1 to 3 of Luo et al. 2016 (arXiv:1701.04128): stacks of 5 to 40 layers of 3 x 3 convolutions. With uniform weights
the field is exact; with random ones (He et al. 2015) it varies from network to network, and weight seeds are the replicates
of every interval. Measures the sweeps of conf/experiment/depth_law.yaml and depth_law_uniform.yaml where they have not run
yet, draws them, and checks the law sigma^2 = n (k^2 - 1) / 12.

    python experiments/depth_law.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from study import Claim, measured, number, publish

from erflab.analysis import LinearLaw, PowerLaw, fit_linear, fit_power_law, replicate_means, uniform_variance
from erflab.analysis.metrics import LUO_LEVEL
from erflab.figures import TEXT, Growth, draw_growth, paper_figure

LABELS = {"uniform": "uniform", "linear": "linear", "relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid"}
SLOPE = uniform_variance(layers=1, kernel=3)
EXACT = {"size": 0.489, "ratio": -0.477}  # exponents of the exact uniform stack over every depth n = 5..40
GAUSSIAN = math.sqrt(-2 * math.pi * math.log(LUO_LEVEL))  # 4.406: the size of a Gaussian, in sigma
RESOLUTION = 0.05  # largest relative standard error of a slope that may confirm the law
FINDING = """# The effective field grows as the square root of depth

Stacks of n 3 x 3 convolutions without stride. sigma is that of `signed` gradients with uniform weights and of `energy` with
random ones (that of `absolute` would be sqrt(2) larger). The size is the paper's: the side of the square with the area of
all pixels above 4.55 % of the peak, in whole pixels; the ratio is that over 2 n + 1. Brackets: 95 % t intervals over seeds.

The law has slope {slope:.4f} px^2 and intercept 0; the exponents 0.5 and -0.5 are limits, so each row of random weights is
read beside the exact exponents of the same depths. At equal sigma the size of a random network is a few per cent smaller
than the uniform one's: it is counted down from the peak, which scatter raises.

{table}
"""


@dataclass(frozen=True, eq=False)
class Stack:
    """One kind of stack: depths, seeds, variance, size and ratio as measured, and the laws they follow."""

    points: dict[str, np.ndarray]
    variance: LinearLaw
    size: PowerLaw
    ratio: PowerLaw


def main(random: Mapping[str, str] | None = None, uniform: Mapping[str, str] | None = None) -> None:
    """`random` and `uniform` give the options of the two sweeps fewer values (see `measured`)."""
    points = [point("uniform", layers, "0", at) for (layers,), at in measured("depth_law_uniform", uniform).items()]
    points += [point(*values, at) for values, at in measured("depth_law", random).items()]
    stacks = {name: fitted([p for p in points if p["weights"] == name]) for name in LABELS}
    depths = set(stacks["linear"].points["layers"])
    same = fitted([p for p in points if p["weights"] == "uniform" and p["layers"] in depths])
    table = [row(LABELS[name], stack) for name, stack in stacks.items()]
    table.insert(1, row("uniform, fewer depths", same))
    publish("depth_law", FINDING, claims(stacks), draw(stacks), {"points": points, "table": table}, slope=SLOPE)


def point(weights: str, layers: str, seed: str, directory: Path) -> dict[str, str | float]:
    return {
        "weights": weights,
        "layers": int(layers),
        "seed": int(seed),
        "variance": number(directory, "gradient.sigma") ** 2,
        "size": number(directory, "gradient.luo_size"),
        "ratio": number(directory, "gradient.luo_size_over_trf"),
    }


def fitted(points: Sequence[Mapping[str, str | float]]) -> Stack:
    found = {name: np.array([p[name] for p in points], float) for name in points[0] if name != "weights"}
    n, seeds = found["layers"], found["seed"].tolist()
    # sigma^2 scatters from seed to seed in proportion to itself, so its error is taken as proportional to n.
    variance = fit_linear(n, found["variance"], errors=n, replicates=seeds)
    return Stack(found, variance, *(fit_power_law(n, found[name], replicates=seeds) for name in EXACT))


def row(label: str, stack: Stack) -> dict[str, object]:
    depths = np.unique(stack.points["layers"]).astype(int)
    return {
        "weights": label,
        "depths": f"{len(depths)} in {depths[0]}..{depths[-1]}",
        "seeds": len(np.unique(stack.points["seed"])),
        "slope of sigma^2 (px^2)": stack.variance.slope,
        "intercept (px^2)": stack.variance.intercept,
        "exponent of size": stack.size.exponent,
        "exponent of ratio": stack.ratio.exponent,
    }


def claims(stacks: Mapping[str, Stack]) -> list[Claim]:
    found = [law_holds(name, stack.variance) for name, stack in stacks.items()]
    for name, truth in EXACT.items():
        exponent = getattr(stacks["uniform"], name).exponent
        sentence = f"uniform: the exponent of the {name} is {truth} over n = 5..40 (measured: {exponent})"
        found.append(Claim(sentence, round(exponent.value, 3) == truth))
    return found


def law_holds(name: str, law: LinearLaw) -> Claim:
    sentence = f"{LABELS[name]}: sigma^2 grows from 0 ({law.intercept}) by {SLOPE:.3f} px^2 a layer ({law.slope})"
    if name == "uniform":  # nothing is left to chance
        return Claim(sentence, abs(law.slope.value - SLOPE) < 1e-9 and abs(law.intercept.value) < 1e-9)
    told = law.slope.standard_error is not None and law.slope.standard_error < RESOLUTION * SLOPE
    return Claim(sentence, told and law.slope.covers(SLOPE) and law.intercept.covers(0))


def draw(stacks: Mapping[str, Stack]) -> Figure:
    n = np.geomspace(5, 40, 50)
    limits = {
        "variance": ("$\\sigma^2$ (px$^2$)", Growth("law", n, SLOPE * n)),
        "size": ("size (px)", Growth("Gaussian limit", n, GAUSSIAN * np.sqrt(SLOPE * n))),
        "ratio": ("size / TRF", Growth("Gaussian limit", n, GAUSSIAN * np.sqrt(SLOPE * n) / (2 * n + 1))),
    }
    with paper_figure(TEXT, 3.0) as figure:
        for axes, (name, (label, limit)) in zip(figure.subplots(1, 3), limits.items(), strict=True):
            series = [growth(LABELS[weights], stack, name) for weights, stack in stacks.items()]
            draw_growth(axes, series, reference=limit, logarithmic=name != "variance")
            axes.set(xlabel="depth n (layers)", ylabel=label)
    return figure


def growth(label: str, stack: Stack, name: str) -> Growth:
    """At every fifth depth, so that the markers stay apart."""
    kept = stack.points["layers"] % 5 == 0
    means = replicate_means(stack.points["layers"][kept], stack.points[name][kept])
    return Growth(label, *means, law=getattr(stack, name))


if __name__ == "__main__":
    main()
