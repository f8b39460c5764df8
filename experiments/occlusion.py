"""Where do gradient and occlusion disagree, and why?

For a linear network and white images of variance 1, a patch of a px sees the gradient's energy summed over its pixels:
sigma_occlusion^2 = sigma_gradient^2 + (a^2 - 1) / 12. Photographs are smooth, so that a patch changes many pixels together,
and networks are not linear: which of the two moves occlusion? A random linear network sees white and smooth noise
(conf/experiment/occlusion_linear.yaml), EfficientNet-Lite0, random and trained, photographs (occlusion.yaml), with patches of
two sides replaced by four baselines. Measures what has not run yet.

    python experiments/occlusion.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from study import Claim, coefficient, conclude, markdown, measured, rows, run, write_table

import erflab
from erflab.analysis.scaling import Coefficient, replicate_mean
from erflab.figures.comparison import draw_shares
from erflab.figures.forest import draw_forest
from erflab.figures.style import TEXT, freeze_layout, paper, save
from erflab.plots.part import blurred_groups
from erflab.result import Result

RATIO = "blurred_gradient_vs_occlusion.sigma_ratio"
ELSEWHERE = "blurred_gradient_vs_occlusion.total_variation"
NAMES = {"none": "random", "efficientnet_lite0": "trained"}
FINDING = """# Occlusion is the blurred gradient, but for weights that work together

The gradient's map blurred by the patch against occlusion's: ratio of their sigmas, 1 if occlusion saw no more than that, and
the share of the one that lies elsewhere in the other. Intervals are over images; those of the linear network over weight seeds.

{}

{}

One gradient map takes 2 passes an image, one of occlusion 17, read at all units at once ({} times as long here); a unit at a
time it would be {} passes.
"""


def main(experiment: str = "occlusion", reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep of photographs other values (see `study.measured`)."""
    sweep = Path("multirun") / experiment
    network = measured(experiment, reduced)
    linear = linear_rows(measured(f"{experiment}_linear"))
    trained = [trained_row(*options, rows(directory)[0]) for options, directory in network.items()]
    write_table(sweep / "table_linear.csv", linear)
    write_table(sweep / "table.csv", trained)
    chosen = network["efficientnet_lite0", "mean", max((patch for *_, patch in network), key=int)]
    print(*save(draw(linear, trained, erflab.load(chosen)), sweep / "occlusion"), sep="\n")
    text = FINDING.format(markdown(linear), markdown(trained), *cost(list(network.values())))
    conclude(sweep, text, linear_claims(linear) + network_claims(trained))


def linear_rows(found: Mapping[tuple[str, ...], Path]) -> list[dict[str, Any]]:
    seeds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (blur, patch, _), directory in found.items():
        seeds.setdefault((blur, patch), []).append(rows(directory)[0])
    return [
        {
            "noise": "white" if blur == "0" else f"smooth ({blur} px)",
            "patch (px)": int(patch),
            "gradient sigma (px)": mean(found, "gradient.sigma"),
            "occlusion sigma (px)": mean(found, "occlusion.sigma"),
            "ratio": mean(found, RATIO),
            "elsewhere": mean(found, ELSEWHERE),
            "added variance (px^2)": replicate_mean(
                [r["occlusion.sigma"]["value"] ** 2 - r["gradient.sigma"]["value"] ** 2 for r in found]
            ),
            "(a^2 - 1) / 12": round((int(patch) ** 2 - 1) / 12, 3),
        }
        for (blur, patch), found in seeds.items()
    ]


def mean(found: list[dict[str, Any]], name: str) -> Coefficient:
    return replicate_mean([row[name]["value"] for row in found])


def trained_row(weights: str, baseline: str, patch: str, summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "weights": NAMES[weights],
        "baseline": baseline,
        "patch (px)": int(patch),
        "gradient sigma (px)": coefficient(summary, "gradient.sigma"),
        "occlusion sigma (px)": coefficient(summary, "occlusion.sigma"),
        "ratio": coefficient(summary, RATIO),
        "elsewhere": coefficient(summary, ELSEWHERE),
    }


def cost(found: list[Path]) -> tuple[str, int]:
    """How many times as long occlusion took as the gradient, median over runs, and the passes of the classical loop."""
    timings = [json.loads((directory / "provenance.json").read_text())["timings"] for directory in found]
    (row,) = rows(found[0])
    step = row["stride_y"]["value"] / 4
    positions = (row["trf_size_y"]["value"] + step) / step
    return f"{np.median([t['occlusion'] / t['gradient'] for t in timings]):.1f}", round(positions) ** 2


def linear_claims(table: list[dict[str, Any]]) -> list[Claim]:
    white = [row for row in table if row["noise"] == "white"]
    smooth = [row for row in table if row["noise"] != "white"]
    return [
        Claim(
            "linear, white: occlusion adds (a^2 - 1) / 12 to the variance: "
            + ", ".join(f"{row['added variance (px^2)']} for {row['(a^2 - 1) / 12']}" for row in white),
            all(row["ratio"].within(0.98, 1.02) for row in white),
        ),
        Claim(
            "linear, smooth: so it does on average over weights, for these do not work together: ratio "
            + ", ".join(str(row["ratio"]) for row in smooth),
            all(row["ratio"].covers(1) for row in smooth),
        ),
        Claim(
            "but a single network's occlusion map lies further from its gradient's: elsewhere "
            + ", ".join(str(row["elsewhere"]) for row in table),
            all(s["elsewhere"].interval[0] > w["elsewhere"].interval[1] for w, s in zip(white, smooth, strict=True)),
        ),
    ]


def network_claims(table: list[dict[str, Any]]) -> list[Claim]:
    ratio = {(row["weights"], row["baseline"], row["patch (px)"]): row["ratio"] for row in table}
    small, large = min(patch for *_, patch in ratio), max(patch for *_, patch in ratio)
    smooth, detail = ratio["trained", "mean", large], ratio["trained", "blur", large]
    return [
        Claim(
            f"trained, photographs: occlusion by {large} px is wider than the blurred gradient ({smooth})",
            smooth.below(0.98),
        ),
        Claim(
            f"a blurred image as baseline leaves only detail to take away, and takes the difference away ({detail})",
            detail.covers(1) and detail.value > smooth.interval[1],
        ),
        Claim(
            f"with {small} px there is none, whatever the baseline",
            all(
                value.covers(1)
                for (weights, _, patch), value in ratio.items()
                if weights == "trained" and patch == small
            ),
        ),
        Claim(
            "random, photographs: occlusion is never the wider one, by any patch and baseline",
            all(value.interval[1] > 1 for (weights, *_), value in ratio.items() if weights == "random"),
        ),
    ]


def draw(linear: list[dict[str, Any]], trained: list[dict[str, Any]], result: Result) -> Figure:
    series: dict[str, dict[str, Coefficient]] = {"linear": {}}
    for row in linear:
        series["linear"][f"{row['noise']} noise, {row['patch (px)']} px"] = row["ratio"]
    for row in trained:
        series.setdefault(f"Lite0, {row['weights']}", {})[f"{row['baseline']}, {row['patch (px)']} px"] = row["ratio"]
    with paper():
        figure = Figure(figsize=(TEXT, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        draw_forest(left, series, reference=1)
        left.set_xlabel("sigma: blurred gradient / occlusion")
        left.legend(loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=3, columnspacing=1, handletextpad=0.2)
        draw_shares(right, blurred_groups(result))
        right.set_title(f"trained, mean, {result.dataset['occlusion'].attrs['patch']} px")
        freeze_layout(figure)
    return figure


if __name__ == "__main__":
    run(main, "occlusion")
