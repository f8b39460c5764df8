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
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from study import Claim, coefficient, measured, number, numbers, publish, rows, run

import erflab
from erflab.analysis import replicate_mean
from erflab.figures import TEXT, draw_forest, draw_shares, legend_above, paper_figure
from erflab.plots.part import blurred_groups
from erflab.result import Result

COLUMNS = {
    "gradient sigma (px)": "gradient.sigma",
    "occlusion sigma (px)": "occlusion.sigma",
    "ratio": "blurred_gradient_vs_occlusion.sigma_ratio",
    "elsewhere": "blurred_gradient_vs_occlusion.total_variation",
}
NAMES = {"none": "random", "efficientnet_lite0": "trained"}
FINDING = """# Occlusion is the blurred gradient, but for weights that work together

The gradient's map blurred by the patch against occlusion's: ratio of their sigmas, 1 if occlusion saw no more than that, and
the share of the one that lies elsewhere in the other. Intervals are over images; those of the linear network over weight seeds.

{table_linear}

{table}

One gradient map takes 2 passes an image, one of occlusion 17, read at all units at once ({longer} times as long here); a unit
at a time it would be {passes} passes.
"""


def main(experiment: str = "occlusion", reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep of photographs other values (see `study.measured`)."""
    network = measured(experiment, reduced)
    linear = linear_rows(measured(f"{experiment}_linear"))
    trained = [trained_row(*options, rows(directory)[0]) for options, directory in network.items()]
    chosen = network["efficientnet_lite0", "mean", max((patch for *_, patch in network), key=int)]
    figure = draw(linear, trained, erflab.load(chosen))
    longer, passes = cost([*network.values()])
    claims, tables = linear_claims(linear) + network_claims(trained), {"table_linear": linear, "table": trained}
    publish(experiment, FINDING, claims, figure, tables, longer=longer, passes=passes)


def linear_rows(found: Mapping[tuple[str, ...], Path]) -> list[dict[str, Any]]:
    """The means over weight seeds, the last option, for each of the others."""
    conditions = groupby(found.items(), key=lambda run: run[0][:-1])
    return [linear_row(*options, [directory for _, directory in runs]) for options, runs in conditions]


def linear_row(blur: str, patch: str, seeds: list[Path]) -> dict[str, Any]:
    gradient, occlusion = (numbers(seeds, f"{method}.sigma") for method in ("gradient", "occlusion"))
    return {
        "noise": "white" if blur == "0" else f"smooth ({blur} px)",
        "patch (px)": int(patch),
        **{column: replicate_mean(numbers(seeds, name)) for column, name in COLUMNS.items()},
        "added variance (px^2)": replicate_mean(occlusion**2 - gradient**2),
        "(a^2 - 1) / 12": round((int(patch) ** 2 - 1) / 12, 3),
    }


def trained_row(weights: str, baseline: str, patch: str, summary: dict[str, Any]) -> dict[str, Any]:
    read = {column: coefficient(summary, name) for column, name in COLUMNS.items()}
    return {"weights": NAMES[weights], "baseline": baseline, "patch (px)": int(patch), **read}


def cost(found: list[Path]) -> tuple[str, int]:
    """How many times as long occlusion took as the gradient, median over runs, and the passes of the classical loop."""
    timings = [json.loads((directory / "provenance.json").read_text())["timings"] for directory in found]
    step = number(found[0], "stride_y") / 4
    positions = number(found[0], "trf_size_y") / step + 1
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
            all(s["elsewhere"].above(w["elsewhere"]) for w, s in zip(white, smooth, strict=True)),
        ),
    ]


def network_claims(table: list[dict[str, Any]]) -> list[Claim]:
    ratios = {(row["weights"], row["baseline"], row["patch (px)"]): row["ratio"] for row in table}
    trained = {(baseline, patch): ratio for (weights, baseline, patch), ratio in ratios.items() if weights == "trained"}
    small, large = (pick(patch for _, patch in trained) for pick in (min, max))
    smooth, detail = trained["mean", large], trained["blur", large]
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
            all(ratio.covers(1) for (_, patch), ratio in trained.items() if patch == small),
        ),
        Claim(
            "random, photographs: occlusion is never the wider one, by any patch and baseline",
            not any(ratio.below(1) for (weights, *_), ratio in ratios.items() if weights == "random"),
        ),
    ]


def draw(linear: list[dict[str, Any]], trained: list[dict[str, Any]], result: Result) -> Figure:
    series = {"linear": {f"{row['noise']} noise, {row['patch (px)']} px": row["ratio"] for row in linear}}
    for row in trained:
        series.setdefault(f"Lite0, {row['weights']}", {})[f"{row['baseline']}, {row['patch (px)']} px"] = row["ratio"]
    with paper_figure(TEXT, 2.9) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        draw_forest(left, series, reference=1)
        left.set_xlabel("sigma: blurred gradient / occlusion")
        legend_above(left, 3, at=0.3, columnspacing=1, handletextpad=0.2)
        draw_shares(right, blurred_groups(result))
        right.set_title(f"trained, mean, {result.dataset['occlusion'].attrs['patch']} px")
    return figure


if __name__ == "__main__":
    run(main, "occlusion")
