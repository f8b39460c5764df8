"""Does training widen or narrow the field?

Measures the gradient field of EfficientNet-Lite0 at three depths, with random and with ImageNet weights, on the same crops
of real photographs (the sweep of conf/experiment/trained_against_random.yaml, where it has not run yet), draws sigma against
depth, and checks the finding: on these photographs training narrowed the field at every depth, to about half its width.

    python experiments/trained_against_random.py
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from study import Claim, conclude, measured, number, write_table

from erflab.figures.style import COLORS, COLUMN, paper, save

SWEEP = Path("multirun/trained_against_random")
WEIGHTS = {"none": "random weights", "efficientnet_lite0": "trained on ImageNet"}


def main() -> None:
    sigma: dict[str, dict[str, float]] = {weights: {} for weights in WEIGHTS}
    for (weights, layer), directory in measured("trained_against_random").items():
        sigma[weights][layer] = number(directory, "gradient.sigma")
    print(*save(draw(sigma), SWEEP / "sigma_against_depth"), sep="\n")
    rows = [
        {"layer": layer, "sigma_random_px": random, "sigma_trained_px": sigma["efficientnet_lite0"][layer]}
        for layer, random in sigma["none"].items()
    ]
    write_table(SWEEP / "table.csv", rows)
    conclude(
        SWEEP,
        "# On these photographs training narrowed the field of EfficientNet-Lite0\n",
        [claim(**row) for row in rows],
    )


def claim(layer: str, sigma_random_px: float, sigma_trained_px: float) -> Claim:
    ratio = sigma_trained_px / sigma_random_px
    return Claim(
        f"at {layer} the trained field is about half as wide as the random one: sigma {sigma_trained_px:.2f} px against "
        f"{sigma_random_px:.2f} px, ratio {ratio:.2f} in 0.3..0.7",
        0.3 < ratio < 0.7,
    )


def draw(sigma: dict[str, dict[str, float]]) -> Figure:
    with paper():
        figure = Figure(figsize=(COLUMN, 2.0), layout="constrained")
        axes = figure.add_subplot(ylabel="ERF sigma (px)")
        for (weights, values), color in zip(sigma.items(), COLORS, strict=False):
            axes.plot(list(values), list(values.values()), "o-", color=color, markersize=3, label=WEIGHTS[weights])
        axes.set_ylim(bottom=0)
        axes.legend()
    return figure


if __name__ == "__main__":
    main()
