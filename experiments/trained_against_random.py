"""What does training do to the field?

Measures the gradient field of every block of EfficientNet-Lite0, with ImageNet weights and with random weights of four seeds,
on the same crops of real photographs (conf/experiment/trained_against_random.yaml, where it has not run yet), draws sigma
against depth, and checks the finding: on these photographs training narrowed the field of every block. Intervals of the
trained network are over scenes, those of random networks over weight seeds.

    python experiments/trained_against_random.py
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from study import Claim, coefficient, measured, publish, rows

from erflab.analysis import quotient, replicate_mean
from erflab.figures import DepthPoint, draw_depth

EXPERIMENT = "trained_against_random"
TRAINED = {"model.weights": "efficientnet_lite0", "model.seed": "0"}
RANDOM = {"model.weights": "none"}
FINDING = """# Training narrows the field

EfficientNet-Lite0, gradient energy of the centre unit on {images} crops of photographs, 352 x 352 px. Brackets: 95 %
intervals, for the trained network over scenes, for random ones over {seeds} weight seeds; those of the ratio join both errors.
Where the theoretical field is larger than the image, sigma is that of the part inside it.

{table}
"""


def main(seeds: str | None = None) -> None:
    """`seeds` gives the random networks other seeds than those of the sweep."""
    (trained,) = measured(EXPERIMENT, TRAINED).values()
    random = list(measured(EXPERIMENT, RANDOM | ({"model.seed": seeds} if seeds else {})).values())
    blocks = [block(row, [at[place] for at in map(rows, random)]) for place, row in enumerate(rows(trained))]
    images, claims = rows(trained)[0]["gradient.images"]["value"], [narrowed(found) for found in blocks]
    publish(EXPERIMENT, FINDING, claims, draw(blocks), {"table": blocks}, images=images, seeds=len(random))


def block(trained: dict[str, Any], random: list[dict[str, Any]]) -> dict[str, Any]:
    """One block: sigma of both, and their ratio."""
    sigma = coefficient(trained, "gradient.sigma")
    seeds = replicate_mean([row["gradient.sigma"]["value"] for row in random])
    return {
        "block": trained["layer"],
        "TRF (px)": trained["trf_size_y"]["value"],
        "cut by the image": "yes" if any(flag["code"] == "trf_clipped" for flag in trained["flags"]) else "no",
        "sigma trained (px)": sigma,
        "sigma random (px)": seeds,
        "trained / random": quotient(sigma, seeds, freedom=max(1, len(random) - 1)),
    }


def narrowed(found: dict[str, Any]) -> Claim:
    ratio = found["trained / random"]
    return Claim(f"{found['block']}: training narrowed the field, to {ratio} of its width", ratio.below(1))


def draw(blocks: list[dict[str, Any]]) -> Figure:
    lines = {
        label: [DepthPoint(b[column].value, b[column].interval, b["TRF (px)"]) for b in blocks]
        for label, column in (("trained", "sigma trained (px)"), ("random", "sigma random (px)"))
    }
    return draw_depth([b["block"] for b in blocks], lines, title="EfficientNet-Lite0")


if __name__ == "__main__":
    main()
