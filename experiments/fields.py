"""What the studies of structure tell of a spelled network: its field by theory, weights and images, and its cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from spelled import expected_variance, network
from study import Claim, number, numbers, predicted_sigma, replicate_directories

import erflab
from erflab.analysis import Coefficient, Quantity, replicate_mean
from erflab.figures import PAGE, ErfPanel, draw_bars, draw_map_row, legend_above, paper_figure
from erflab.result import Result
from erflab.theory.cost import Cost

METHODS = ("predicted", "gradient", "occlusion")
SIDE = 64  # px of the image whose operations are counted


@dataclass(frozen=True, eq=False)
class Structure:
    """A network as measured with several weight seeds."""

    layers: str
    directories: Sequence[Path]

    @cached_property
    def sigmas(self) -> dict[str, np.ndarray]:
        """Sigma in px by each method, one a seed; "expected" from taps and strides alone (`expected_variance`)."""
        found = {
            "expected": [math.sqrt(expected_variance(self.layers))] * len(self.directories),
            "predicted": [predicted_sigma(directory) for directory in self.directories],
            **{name: numbers(self.directories, f"{name}.sigma") for name in METHODS[1:]},
        }
        return {name: np.array(values, float) for name, values in found.items()}

    @cached_property
    def first(self) -> Result:
        """The result of the first seed."""
        return erflab.load(self.directories[0])

    @cached_property
    def trf(self) -> int:
        """Side of the theoretical field in px."""
        return int(number(self.directories[0], "trf_size_y"))

    @property
    def holes(self) -> float:
        """Share of the theoretical field that no path reaches, exact."""
        return 1 - erflab.theoretical_field(network(self.layers), input_size=(SIDE, SIDE)).support().density

    @cached_property
    def cost(self) -> Cost:
        """Parameters, and operations of an image of `SIDE` x `SIDE` px, zeros keeping the maps at their size."""
        options = self.first.attribute("config")["model"]["arguments"] | {"padding": "zeros"}
        return [*erflab.layer_costs(network(**options), (SIDE, SIDE)).values()][-1]

    @property
    def flops(self) -> float:
        """Operations an input pixel."""
        return self.cost.flops / SIDE**2

    def mean(self, method: str) -> Coefficient:
        """Sigma in px, over seeds."""
        return replicate_mean(self.sigmas[method])

    def compared(self, other: Structure, method: str, how: Callable[..., np.ndarray]) -> Coefficient:
        """`how` of this network's sigma and the other's, seed by seed: one seed draws the layers that they share alike."""
        return replicate_mean(how(self.sigmas[method], other.sigmas[method]))

    def over(self, other: Structure, method: str) -> Coefficient:
        """Sigma over that of the other network."""
        return self.compared(other, method, np.divide)

    def row(self, name: str) -> dict[str, Any]:
        """The columns that all tables begin with."""
        return {
            "network": flat(name),
            "TRF (px)": self.trf,
            "parameters": self.cost.parameters,
            "FLOP / px": round(self.flops),
            "sigma expected (px)": round(float(self.sigmas["expected"][0]), 3),
            **{f"sigma {method} (px)": self.mean(method) for method in METHODS},
        }


def per_cost(unit: str, gain: float, parameters: float, flops: float) -> dict[str, Any]:
    """Columns of what is gained for a thousand parameters and operations an input pixel; empty where they cost nothing."""
    costs = {"parameters": parameters, "FLOP / px": flops}
    return {f"{unit} / 1000 {cost}": round(1000 * gain / paid, 3) if paid > 0 else "" for cost, paid in costs.items()}


def flat(name: str) -> str:
    """A name in one line."""
    return name.replace("\n", " ")


def structures(
    experiment: str, names: Mapping[str, str], reduced: Mapping[str, str] | None = None
) -> dict[str, Structure]:
    """The networks of an experiment whose first option is their layers, by the names that those have here."""
    found = replicate_directories(experiment, reduced)
    return {names.get(layers, layers): Structure(layers, directories) for layers, directories in found.items()}


def near(found: Mapping[str, Structure], reference: str, tolerance: float) -> Claim:
    """That every measured sigma is the reference's within a tolerance, the whole interval of their ratio."""
    ratios = [
        replicate_mean(structure.sigmas["gradient"] / structure.sigmas[reference]) for structure in found.values()
    ]
    least, most = (pick(ratios, key=lambda ratio: ratio.value) for pick in (min, max))
    return Claim(
        f"on every network sigma by gradient is within {tolerance:.0%} of the {reference} sigma: {least} to {most} of it",
        all(ratio.within(1 - tolerance, 1 + tolerance) for ratio in ratios),
    )


def draw_structures(
    found: Mapping[str, Structure],
    half: float,
    draw_beside: Callable[[Axes, Mapping[str, Structure]], None],
    *,
    lower: float = 1.7,
    left: float = 1.0,
) -> Figure:
    """The fields above; sigma by each method below them on the left, and beside it what the study draws.

    half: px shown to either side of the centre. lower, left: height and width of what is there over that of its neighbour.
    """
    with paper_figure(PAGE, 4.0) as figure:
        above, below = figure.subfigures(2, 1, height_ratios=(1, lower))
        draw_fields(above.subplots(1, len(found)), found, half)
        sigmas, beside = below.subplots(1, 2, width_ratios=(left, 1))
        draw_sigmas(sigmas, found)
        draw_beside(beside, found)
    return figure


def draw_fields(row: Sequence[Axes], found: Mapping[str, Structure], half: float) -> None:
    """The gradient field of each network's first seed with its theoretical one, `half` px to either side."""
    panels = [
        ErfPanel(name, structure.first.map("gradient"), box=structure.first.box) for name, structure in found.items()
    ]
    draw_map_row([*row], panels, (-half, half, -half, half))


def draw_sigmas(axes: Axes, found: Mapping[str, Structure]) -> None:
    """Sigma of each network by each method, with intervals over seeds, and a tick across the bars where the law has it."""
    bars = {method: [Quantity.of(structure.mean(method), "px") for structure in found.values()] for method in METHODS}
    draw_bars(axes, [*map(flat, found)], bars, "$\\sigma$ (px)")
    laws = [structure.sigmas["expected"][0] for structure in found.values()]
    places = np.arange(len(laws))
    axes.hlines(laws, places - 0.45, places + 0.45, "black", linewidth=0.8, label="expected")
    legend_above(axes, 4, columnspacing=1.0)
