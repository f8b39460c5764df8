"""What do the published area ratios of effective fields say, and what do they depend on?

Ding et al. 2022 (arXiv:2203.06717) size a field by the square that holds a share t of log10(A + 1), over the image's area. The
logarithm makes that depend on the scale of A: on the number of channels, on the normalisation of inputs, on images in [0, 1] or
[0, 255]. Measures, by their protocol, the sweep of conf/experiment/published_protocol.yaml and trained weights at hand, where
they have not run yet, and sizes each map times constants, beside a size that has no scale.

    python experiments/published_protocol.py

Other networks are further runs of its sweep, found below its directory: with torchvision's weights, or those of a file,

    erflab +experiment=published_protocol_full 'hydra.sweeper.params={model.name:resnet101,model.weights:pretrained}'
    erflab +experiment=published_protocol_full hydra.sweep.subdir=x 'hydra.sweeper.params={model.name:NAME,model.weights:FILE}'
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from study import Claim, coefficient, measured, publish, rows, run

import erflab
from erflab.analysis import Coefficient, contribution_square, replknet_area_ratio
from erflab.analysis.replknet import REPLKNET_SHARES
from erflab.figures import COLORS, COLUMN, DASHES, paper_figure
from erflab.result import Result

TRAINED = {"model.name": "tf_efficientnet_lite0", "model.weights": "efficientnet_lite0"}
FACTORS = np.logspace(-6, 6, 25)
SHARE = 0.5
FINDING = """# The published area ratio is a choice of units

{images} images, {pixels} px. r(t): area of the square that holds the share t, over that of the image, in %, with 95 % intervals
over images. Published: of log10(A + 1), for A as it is; sides are whole odd numbers of px. Scale-free: of A. Last: the
published r(50 %) of A / 1000, which is about the mean over channels in place of the sum, and of 1000 A.

{table}
"""


def main(experiment: str = "published_protocol", reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of the sweep fewer values (see `study.measured`)."""
    measured(experiment, reduced)
    measured(experiment, {**(reduced or {}), **TRAINED})
    found = sorted(path.parent for path in Path("multirun").glob(f"{experiment}/*/summary.json"))  # others' as well
    results = {label(result): result for result in map(erflab.load, found)}
    summaries = [rows(directory)[0] for directory in found]
    table = [row(*named, summary) for named, summary in zip(results.items(), summaries, strict=True)]
    curves = {name: scaled(result) for name, result in results.items()}
    checked = [*claims(curves, results), order({row["network"]: row for row in table})]
    about = {"images": summaries[0]["gradient.images"]["value"], "pixels": summaries[0]["input_size"][0]}
    publish(experiment, FINDING, checked, draw(curves, results), {"table": table}, **about)


def label(result: Result) -> str:
    weights = str(result.attribute("model")["weights"])
    return f"{result.name}, {'random' if weights.startswith('none') else 'trained'}"


def row(name: str, result: Result, summary: dict[str, Any]) -> dict[str, Any]:
    def percent(key: str) -> Coefficient | str:
        if summary[key]["value"] is None:
            return "none"  # no square about the image's centre holds so much
        found = coefficient(summary, key)
        interval = found.interval and (100 * found.interval[0], 100 * found.interval[1])
        return Coefficient(100 * found.value, None, interval)

    return {
        "network": name,
        **{f"published {t:.0%}": percent(f"gradient.replknet_area_ratio_{t:g}") for t in REPLKNET_SHARES},
        f"scale-free {SHARE:.0%}": percent(f"gradient.square_{SHARE:g}_over_image"),
        "scale-free 99%": percent("gradient.square_0.99_over_image"),
        "/ 1000": Coefficient(100 * published(result, 1e-3)),
        "x 1000": Coefficient(100 * published(result, 1e3)),
    }


def published(result: Result, factor: float) -> float:
    return replknet_area_ratio(result.map() * factor, SHARE) or 1.0


def scaled(result: Result) -> np.ndarray:
    """The published ratio of the map times each factor."""
    return np.array([published(result, factor) for factor in FACTORS])


def square(result: Result, factor: float = 1) -> float:
    """The scale-free one."""
    height, width = result.map().shape
    return contribution_square(result.map() * factor, SHARE) ** 2 / (height * width)


def claims(curves: Mapping[str, np.ndarray], results: Mapping[str, Result]) -> list[Claim]:
    spread = {name: f"{curve.max() / curve.min():.1f}" for name, curve in curves.items()}
    far = [abs(square(r, 1e6) / square(r, 1e-6) - 1) for r in results.values()]
    apart = {n: abs(side(curves[n][0], r) - side(square(r), r)) for n, r in results.items()}
    return [
        Claim(
            f"r(50 %) of one map grows with every factor, from 1e-6 to 1e6 by {', '.join(spread.values())} times",
            all(bool((np.diff(curve) >= 0).all()) and curve.max() > 1.3 * curve.min() for curve in curves.values()),
        ),
        Claim("the scale-free square stays as it is", max(far) < 1e-6),
        Claim(
            "where the map is small the published square is the scale-free one, to 3 px: log10(1 + A) is then linear",
            max(apart.values()) < 3,
        ),
        Claim(
            "a factor can bring any of these networks to the ratio of any other",
            bool(max(curve.min() for curve in curves.values()) <= min(curve.max() for curve in curves.values())),
        ),
    ]


def order(table: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Random ResNet-50 has the narrower field and the larger gradients."""
    (a, b), (free_a, free_b) = (
        [table[name][column] for name in ("resnet18, random", "resnet50, random")]
        for column in (f"published {SHARE:.0%}", f"scale-free {SHARE:.0%}")
    )
    return Claim(
        f"it turns an order round: of random networks ResNet-50 has a published r(50 %) of {b} % and ResNet-18 of {a} %, "
        f"scale-free {free_b} % and {free_a} %",
        a.below(b) and free_b.below(free_a),
    )


def side(ratio: float, result: Result) -> float:
    """Of a square with that share of the image, in px."""
    return float(np.sqrt(ratio * result.map().size))


def draw(curves: Mapping[str, np.ndarray], results: Mapping[str, Result]) -> Figure:
    with paper_figure(COLUMN, 2.9) as figure:
        axes = figure.add_subplot()
        for (name, curve), color in zip(curves.items(), COLORS, strict=False):
            axes.plot(FACTORS, 100 * curve, color=color, label=name)
            axes.axhline(100 * square(results[name]), color=color, linestyle=DASHES, linewidth=0.7)
        axes.axvline(1, color="0.6", linewidth=0.6)
        axes.set(xscale="log", ylim=(0, None), xlabel="the map times", ylabel="r(50 %) (% of the image)")
        figure.legend(loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    run(main, "published_protocol")
