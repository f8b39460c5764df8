"""Do skip connections make the field smaller, and what do the skips of a U-Net bring to it?

Luo et al. 2016 (arXiv:1701.04128) say that skips make effective fields smaller, Veit et al. 2016 (arXiv:1605.06431) that the
gradient of a residual network comes along short paths. A block of two 3 x 3 convolutions at stride 4 adds 64/3 px^2 to sigma^2
of what passes through it, and nothing to what passes by: sigma^2 counts the blocks passed. A U-Net's field is the sum of those
of its levels, each measured alone. Measures the sweeps of conf/experiment/skip_connections.yaml and skip_connections_unet.yaml
where they have not run yet.

    python experiments/skip_connections.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from study import Claim, numbers, publish, replicate_directories, rows, run

import erflab
from erflab.analysis import Coefficient, GroupedMap, replicate_mean
from erflab.analysis.curves import radial_curve
from erflab.figures import COLORS, DASHES, TEXT, Growth, draw_curve, draw_growth, paper_figure
from erflab.figures.maps import FLOOR

BLOCKS = {"layer1.0": 1, "layer1.1": 2, "layer1.3": 4, "layer1.7": 8, "layer1.15": 16}
A_BLOCK = 2 * (2 / 3) * 4**2
"""What a block adds to sigma^2, in px^2."""
LEVELS = ("0", "1", "2", "3")
SIZES = {
    "sigma (px)": "gradient.sigma",
    "radius 50 % (px)": "gradient.radius_0.5",
    "radius 90 % (px)": "gradient.radius_0.9",
    "exponent": "gradient.fit_beta",
}
LABELS = {"plain": "plain", "residual": "shortcuts", "normalised": "shortcuts, batch norm"}
FINDING = """# Shortcuts narrow the field as gradients pass blocks by; a U-Net's skips add detail and leave the context

Blocks passed: (sigma^2 - sigma^2 of the stem) / {a_block:.2f} px^2. Means over weight seeds with their 95 % t intervals.

{table}

A U-Net of four levels: the whole field, that of the same network without skips, and what passes through each level alone
(3 is the bottom). Share: energy over the whole field's. Exponent: of the fitted generalised Gaussian, 2 for a Gaussian.

{table_unet}
"""


def main(experiment: str = "skip_connections", reduced: Mapping[str, str] | None = None) -> None:
    """`reduced` gives the options of both sweeps fewer values (see `study.measured`)."""
    networks, unet = (replicate_directories(name, reduced) for name in (experiment, f"{experiment}_unet"))
    passed = {kind: blocks_passed(found) for kind, found in networks.items()}
    blocks = [{"blocks": n, **{LABELS[k]: passed[k][layer] for k in LABELS}} for layer, n in BLOCKS.items()]
    maps = {paths: [erflab.load(at).map() for at in found] for paths, found in unet.items()}
    levels = {paths: {"paths": paths, "share": share(maps, paths), **sizes(found)} for paths, found in unet.items()}
    radii = {paths: numbers(found, "gradient.radius_0.5") for paths, found in unet.items()}
    nearer = replicate_mean(radii["all"] / radii["none"])
    claims = residual_claims(passed) + unet_claims(levels, share(maps, *LEVELS), nearer)
    tables = {"table": blocks, "table_unet": [*levels.values()]}
    publish(experiment, FINDING, claims, draw(passed, maps), tables, a_block=A_BLOCK)


def blocks_passed(found: Sequence[Path]) -> dict[str, Coefficient]:
    """After each layer, how many blocks the gradient passes through on average, by the variance they add."""
    sigmas = [{row["layer"]: row["gradient.sigma"]["value"] for row in rows(directory)} for directory in found]
    return {at: replicate_mean([(one[at] ** 2 - one["maxpool"] ** 2) / A_BLOCK for one in sigmas]) for at in BLOCKS}


def sizes(found: Sequence[Path]) -> dict[str, Coefficient]:
    return {label: replicate_mean(numbers(found, name)) for label, name in SIZES.items()}


def share(maps: Mapping[str, Sequence[xr.DataArray]], *paths: str) -> Coefficient:
    """The energy of the fields through these paths, over that of the whole field of the same network."""
    energy = {name: np.array([float(map.sum()) for map in found]) for name, found in maps.items()}
    return replicate_mean(sum(energy[name] for name in paths) / energy["all"])


def residual_claims(passed: Mapping[str, Mapping[str, Coefficient]]) -> list[Claim]:
    plain, residual, normalised = (passed[kind]["layer1.15"] for kind in LABELS)
    short = passed["normalised"]["layer1.1"]
    return [
        Claim(f"without shortcuts the gradient passes all 16 blocks ({plain})", plain.within(15, 17)),
        Claim(
            f"with them it passes 2 of 3, for a block's branch doubles the energy ({residual}): the field is narrower, yet "
            "at initialisation, without batch norm, the long paths carry most",
            residual.within(9, 12),
        ),
        Claim(
            f"with batch norm it passes under half of them ({normalised}), and of two blocks over half ({short}): short "
            "paths carry a deep network",
            normalised.within(0, 8) and short.within(1, 2),
        ),
    ]


def unet_claims(
    levels: Mapping[str, Mapping[str, Coefficient]], total: Coefficient, nearer: Coefficient
) -> list[Claim]:
    top, bottom, without = (levels[paths]["sigma (px)"] for paths in ("0", "3", "none"))
    exponent, exponent_without = (levels[paths]["exponent"] for paths in ("all", "none"))
    return [
        Claim(f"the energies of the levels add up to the whole ({total})", total.within(0.95, 1.05)),
        Claim(f"the top level adds sigma {top} px, that of its four convolutions: 1.633", top.within(1.5, 1.8)),
        Claim(
            f"the bottom's field ({bottom} px) is as wide as the field without skips ({without} px), to 10 %",
            0.9 < bottom.value / without.value < 1.1 and bottom.within(0.85 * without.value, 1.15 * without.value),
        ),
        Claim(f"with skips the radius that holds half is {nearer} of that without: detail first", nearer.below(2 / 3)),
        Claim(
            f"with skips the field is cusped (exponent {exponent}), without it is not ({exponent_without})",
            exponent.below(1) and exponent_without.within(1, 3),
        ),
    ]


def draw(passed: Mapping[str, Mapping[str, Coefficient]], maps: Mapping[str, Sequence[xr.DataArray]]) -> Figure:
    with paper_figure(TEXT, 2.6) as figure:
        left, right = figure.subplots(1, 2)
        n = np.array(list(BLOCKS.values()), float)
        series = [Growth.of(LABELS[kind], n, [*found.values()]) for kind, found in passed.items()]
        draw_growth(left, series, reference=Growth("2 of 3", n, 2 / 3 * n), logarithmic=True)
        left.set(xlabel="blocks", ylabel="blocks passed by the gradient")
        draw_levels(right, maps)
    return figure


def draw_levels(axes: Any, maps: Mapping[str, Sequence[xr.DataArray]]) -> None:
    """Radial profiles over the peak of the whole field's, every seed's whole field having the same energy."""
    totals = [float(map.sum()) for map in maps["all"]]
    relative = {paths: [map / total for map, total in zip(found, totals, strict=True)] for paths, found in maps.items()}
    curves = {paths: radial_curve(GroupedMap.of_replicates(found)) for paths, found in relative.items()}
    peak = float(curves["all"].y.max())
    names = {"all": "with skips", "none": "without skips"} | {name: f"through level {name}" for name in LEVELS}
    for (paths, label), color in zip(names.items(), ("black", COLORS[6], *COLORS), strict=False):
        style = {"linestyle": DASHES} if paths in LEVELS else {"linewidth": 1.2}
        draw_curve(axes, curves[paths].relative_to(peak), color, label, floor=FLOOR / 10, **style)
    axes.set(yscale="log", ylim=(FLOOR / 10, 1.5), xlim=(0, 42), xlabel="distance (px)", ylabel="energy / peak ring")
    axes.legend()


if __name__ == "__main__":
    run(main, "skip_connections")
