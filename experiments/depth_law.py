"""Does the effective field grow as the square root of depth, and shrink as its inverse beside the theoretical one?

Figures 1 to 3 of Luo et al. 2016 (arXiv:1701.04128): stacks of 5 to 40 layers of 3 x 3 convolutions. With uniform weights
the field is exact; with random ones (He et al. 2015) it varies from network to network, and weight seeds are the replicates
of every interval. Measures the sweeps of conf/experiment/depth_law.yaml and depth_law_uniform.yaml where they have not run
yet, draws them, and checks the law sigma^2 = n (k^2 - 1) / 12.

    python experiments/depth_law.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import sem
from scipy.stats import t as student
from study import Claim, conclude, measured, number, write_table

from erflab.analysis.scaling import Coefficient, LinearLaw, PowerLaw, fit_linear, fit_power_law, uniform_variance
from erflab.figures.growth import Growth, draw_growth
from erflab.figures.style import PAGE, paper, save

SWEEP = Path("multirun/depth_law")
SLOPE = uniform_variance(layers=1, kernel=3)
QUANTITIES = {"sigma^2": "gradient.sigma", "size": "gradient.luo_size", "ratio": "gradient.luo_size_over_trf"}
AXES = {"sigma^2": "$\\sigma^2$ (px$^2$)", "size": "size (px)", "ratio": "size / TRF"}
EXACT = {"size": 0.489, "ratio": -0.477}
"""Exponents of the exact uniform stack over every depth n = 5..40."""


@dataclass(frozen=True, eq=False)
class Network:
    """One kind of stack: depth, seed and quantities of each that was measured, and the laws they follow."""

    points: dict[str, np.ndarray]
    variance: LinearLaw
    size: PowerLaw
    ratio: PowerLaw


def main(random: Mapping[str, str] | None = None, uniform: Mapping[str, str] | None = None) -> None:
    """`random` and `uniform` give the options of the two sweeps fewer values (see `measured`)."""
    rows = [row("uniform", *key, "0", directory) for key, directory in measured("depth_law_uniform", uniform).items()]
    rows += [row(*key, directory) for key, directory in measured("depth_law", random).items()]
    write_table(SWEEP / "table.csv", rows)
    names = dict.fromkeys(str(r["network"]) for r in rows)
    networks = {name: network([r for r in rows if r["network"] == name]) for name in names}
    print(*save(draw(networks), SWEEP / "depth_law"), sep="\n")
    conclude(SWEEP, finding(networks), [c for name, found in networks.items() for c in claims(name, found)])


def row(network: str, layers: str, seed: str, directory: Path) -> dict[str, str | float]:
    found = {name: number(directory, quantity) for name, quantity in QUANTITIES.items()}
    return {"network": network, "layers": int(layers), "seed": int(seed), **found, "sigma^2": found["sigma^2"] ** 2}


def network(rows: list[dict[str, str | float]]) -> Network:
    points = {name: np.array([r[name] for r in rows]) for name in rows[0] if name != "network"}
    n, seeds = points["layers"], points["seed"].tolist()
    replicates = seeds if len(set(seeds)) > 1 else None
    # sigma^2 scatters from seed to seed in proportion to itself, so its error is taken as proportional to n.
    variance = fit_linear(n, points["sigma^2"], errors=n, replicates=replicates)
    size, ratio = (fit_power_law(n, points[name], replicates=replicates) for name in EXACT)
    return Network(points, variance, size, ratio)


def claims(name: str, found: Network) -> list[Claim]:
    slope, intercept = found.variance.slope, found.variance.intercept
    law = f"{name}: sigma^2 grows by {SLOPE:.4f} px^2 a layer ({said(slope)}) from 0 ({said(intercept)})"
    if name != "uniform":
        return [Claim(law, slope.covers(SLOPE) and intercept.covers(0))]
    exact = abs(slope.value - SLOPE) < 1e-9 and abs(intercept.value) < 1e-9
    exponents = {"size": found.size.exponent.value, "ratio": found.ratio.exponent.value}
    words = " and ".join(f"that of the {q} is {value:.3f} (exactly {EXACT[q]})" for q, value in exponents.items())
    return [
        Claim(law, exact),
        Claim(
            f"{name}: of the exponents over n = 5..40, {words}",
            all(round(v, 3) == EXACT[q] for q, v in exponents.items()),
        ),
    ]


def finding(networks: Mapping[str, Network]) -> str:
    lines = [
        "# The effective field grows as the square root of depth",
        "",
        "Stacks of n 3 x 3 convolutions, no stride. sigma^2 is that of `signed` gradients for uniform weights and of `energy` "
        "for random ones; the size is the side of the square with the area of all pixels above 4.55 % of the peak, whole pixels "
        "counted (Luo et al. 2016), the ratio that over 2 n + 1. Brackets hold 95 % t intervals over weight seeds.",
        "",
        "| weights | depths | seeds | slope of sigma^2 (px^2) | intercept (px^2) | exponent of size | exponent of ratio |",
        "|---|---|---|---|---|---|---|",
        f"| the law | | | {SLOPE:.4f} | 0 | 0.5 in the limit | -0.5 in the limit |",
    ]
    for name, found in networks.items():
        depths, seeds = np.unique(found.points["layers"]), np.unique(found.points["seed"])
        laws = (found.variance.slope, found.variance.intercept, found.size.exponent, found.ratio.exponent)
        cells = [name, f"{len(depths)} in {depths[0]}..{depths[-1]}", str(len(seeds)), *map(said, laws)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def said(coefficient: Coefficient) -> str:
    if coefficient.interval is None or coefficient.interval[1] - coefficient.interval[0] < 1e-9:
        return f"{coefficient.value:.4f}"
    low, high = coefficient.interval
    return f"{coefficient.value:.3f} [{low:.3f}, {high:.3f}]"


def draw(networks: Mapping[str, Network]) -> Figure:
    with paper():
        figure = Figure(figsize=(PAGE, 2.1), layout="constrained")
        for axes, quantity in zip(figure.subplots(1, 3), QUANTITIES, strict=True):
            logarithmic = quantity != "sigma^2"
            draw_growth(
                axes, [growth(name, found, quantity) for name, found in networks.items()], logarithmic=logarithmic
            )
            axes.set(xlabel="depth n (layers)", ylabel=AXES[quantity])
    return figure


def growth(name: str, found: Network, quantity: str) -> Growth:
    """The means over seeds with their 95 % t intervals, at multiples of five layers."""
    depths = np.array([n for n in np.unique(found.points["layers"]) if n % 5 == 0])
    groups = [found.points[quantity][found.points["layers"] == n] for n in depths]
    seeds = len(groups[0])
    reach = np.array([sem(g) * student.ppf(0.975, seeds - 1) for g in groups]) if seeds > 1 else None
    law = {"sigma^2": found.variance, "size": found.size, "ratio": found.ratio}[quantity]
    return Growth(name, depths, np.array([g.mean() for g in groups]), reach, law)


if __name__ == "__main__":
    main()
