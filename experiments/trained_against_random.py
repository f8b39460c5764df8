"""Does training widen or narrow the field?

Measures the gradient field of EfficientNet-Lite0 at three depths, with random and with ImageNet weights, on the same crops
of real photographs (the sweep of conf/experiment/trained_against_random.yaml, where it has not run yet), draws sigma against
depth, and checks the finding: on these photographs training narrowed the field at every depth, to about half its width.

    python experiments/trained_against_random.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure

import erflab
from erflab.figures.style import COLORS, COLUMN, paper, save

SWEEP = Path("multirun/trained_against_random")
LAYERS = ("blocks.2", "blocks.3", "blocks.4")
WEIGHTS = {"none": "random weights", "efficientnet_lite0": "trained on ImageNet"}


def main() -> None:
    if not all((SWEEP / f"{w}_{layer}" / "result.nc").exists() for w in WEIGHTS for layer in LAYERS):
        subprocess.run([sys.executable, "-m", "erflab", "+experiment=trained_against_random"], check=True)
    sigma = {w: [sigma_of(SWEEP / f"{w}_{layer}") for layer in LAYERS] for w in WEIGHTS}
    print(*save(draw(sigma), SWEEP / "sigma_against_depth"), sep="\n")
    for layer, random, trained in zip(LAYERS, sigma["none"], sigma["efficientnet_lite0"], strict=True):
        print(f"{layer}: sigma {random:.2f} px random, {trained:.2f} px trained, ratio {trained / random:.2f}")
        if not 0.3 < trained / random < 0.7:
            sys.exit(
                f"the finding does not hold at {layer}: the trained field is not about half as wide as the random one"
            )


def sigma_of(directory: Path) -> float:
    return float(erflab.load(directory).summary()["gradient.sigma"]["value"])


def draw(sigma: dict[str, list[float]]) -> Figure:
    with paper():
        figure = Figure(figsize=(COLUMN, 2.0), layout="constrained")
        axes = figure.add_subplot(ylabel="ERF sigma (px)")
        for (weights, values), color in zip(sigma.items(), COLORS, strict=False):
            axes.plot(LAYERS, values, "o-", color=color, markersize=3, label=WEIGHTS[weights])
        axes.set_ylim(bottom=0)
        axes.legend()
    return figure


if __name__ == "__main__":
    main()
