"""How far do common architectures see, by theory, by their weights, by gradient and by occlusion?

The last feature map of 24 networks from torchvision and timm with random weights, on white noise of 224 px, and of
EfficientNet-Lite0, trained and random, on photographs. Measures the sweeps of conf/experiment/architectures.yaml and
architectures_trained.yaml where they have not run yet, predicts each field from the weights, and writes the table of a paper.

    python experiments/architectures.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from study import Claim, markdown, measured, predicted_sigma, publish, rows, run

import erflab
from erflab.analysis import Coefficient
from erflab.errors import ErflabError
from erflab.figures import ErfPanel, draw_gallery
from erflab.tables import latex_table, quoted

COLUMNS = {
    "network": "network",
    "weights": "weights",
    "part": "layer",
    "trf_size_y (px)": "TRF (px)",
    "trf_local_size_y (px)": "local TRF (px)",
    "predicted (px)": "predicted (px)",
    "gradient.sigma (px)": "gradient (px)",
    "occlusion.sigma (px)": "occlusion (px)",
}
KINDS = ("trained", "random")
SCALED = {"convnext_atto": 32, "resmlp_12_224": 16}
"""Side in px of the patch of networks whose branches are initialised with a scale near zero."""
FINDING = """# Wide fields by theory, narrow ones in use

Sigma in px of the unit at the centre of the last feature map, {side} px images; an even field of that size has {even:.1f} px.
Brackets: 95 % intervals over images. Local: without global side paths.

{table}
"""


def main(experiment: str = "architectures", reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep fewer values (see `study.measured`)."""
    sweep = Path("multirun") / experiment
    found = [*measured(experiment, reduced).values(), *measured(f"{experiment}_trained").values()]
    table = erflab.collect(found)
    table.insert(1, "network", table["model"])
    table["weights"] = ["random" if text.startswith("none") else "trained" for text in table["weights"]]
    table["predicted (px)"] = [predicted(Path(directory)) for directory in table["run"]]
    table.to_csv(sweep / "table.csv", index=False)
    (sweep / "table.tex").write_text(latex_table(table, COLUMNS))
    side = rows(found[0])[0]["input_size"][0]
    shown = markdown(quoted(table, COLUMNS).to_dict("records"))
    publish(experiment, FINDING, claims(table, side), draw(table), {}, table=shown, side=side, even=even(side))


def even(side: int) -> float:
    """Sigma in px of an even field of that side in px."""
    return side / math.sqrt(12)


def predicted(directory: Path) -> float | None:
    """Sigma in px by structure and weights alone; None where an operation has no rule for it."""
    try:
        return predicted_sigma(directory)
    except ErflabError:
        return None


def claims(table: pd.DataFrame, side: int) -> list[Claim]:
    photographs = table["run"].str.contains("/trained/")
    random = table[~photographs]
    gradient = random["gradient.sigma (px)"]
    ratio = (random["predicted (px)"] / gradient).dropna()
    near = (abs(ratio - 1) < 0.1).mean()
    occluded = random["blurred_gradient_vs_occlusion.sigma_ratio"]
    fill = (gradient / even(side))[random["trf_size_y (px)"] >= side]
    trained, untrained = (
        coefficient_of(table[photographs & (table["weights"] == kind)].iloc[0], "occlusion.sigma") for kind in KINDS
    )
    patches = {name: gradient[random["network"] == name].iloc[0] / even(1) for name in SCALED}
    return [
        Claim(
            f"weights alone predict the gradient's sigma: median ratio {ratio.median():.3f}, "
            f"{near:.0%} of {len(ratio)} networks within 10 %",
            abs(ratio.median() - 1) < 0.05 and near >= 0.5,
        ),
        Claim(
            f"occlusion is the blurred gradient: median ratio of sigmas {occluded.median():.3f} over {len(occluded)} networks",
            abs(occluded.median() - 1) < 0.05,
        ),
        Claim(
            f"the {len(fill)} networks whose theoretical field covers the image see it unevenly: sigma is "
            f"{fill.min():.2f} to {fill.max():.2f} (median {fill.median():.2f}) of an even field's",
            fill.max() < 0.9,
        ),
        Claim(
            "branches scaled by almost nothing leave the patch: the gradient is an even square of "
            + ", ".join(f"{side:.1f} px ({name}: {SCALED[name]})" for name, side in patches.items()),
            all(abs(side / SCALED[name] - 1) < 0.02 for name, side in patches.items()),
        ),
        Claim(
            f"by occlusion EfficientNet-Lite0 sees less of photographs trained ({trained} px) than random ({untrained} px)",
            trained.below(untrained),
        ),
    ]


def coefficient_of(row: pd.Series, name: str) -> Coefficient:
    value, error, low, high = (float(row[f"{name}{end} (px)"]) for end in ("", "_error", "_low", "_high"))
    return Coefficient(value, error, (low, high))


def draw(table: pd.DataFrame) -> Figure:
    """The gradient's maps, of the network on photographs the trained one alone."""
    panels = []
    for row in table[(table["weights"] == "trained") | ~table["run"].str.contains("/trained/")].to_dict("records"):
        result = erflab.load(row["run"])
        title = f"{row['network']}{', trained' if row['weights'] == 'trained' else ''}"
        panels.append(ErfPanel(title, result.map(), box=result.box))
    return draw_gallery(panels)


if __name__ == "__main__":
    run(main, "architectures")
