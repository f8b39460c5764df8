"""Simulated truth: how often 95 % intervals cover the known value, and how often the right falloff family is chosen.

    python benchmarks/coverage.py [--experiments 500] [--choices 100] [--family NAME ...] [--json FILE]

An experiment is a set of image maps: a known map, times noise of mean 1 that is correlated over 3 px and in part shared by
the images of a scene, times a weight an image. Each goes through the lab's own jackknife over 16 groups of scenes. The
known values are those of the known map itself. Weights are drawn twice: nearly equal ones, with an effective number of
images above 100, and heavy-tailed ones, under which the intervals are known to be too short.

Measured with a Gaussian truth: light weights (N_eff 115) cover every quantity in 92.4 to 96.2 % of 500 experiments. Heavy
ones (N_eff 27) in 82 to 96 % of 200: worst the floor (82 %), the amplitude (86 %) and radius_0.9545 (88 %). Areas are
covered only while the share asked for lies in the falloff: where a flat floor holds 23 % of the sum, ranking its noisy
pixels makes area_0.9545 too small by 1.6 standard deviations, covered in 68 % of 150. The right family was chosen in 100 of
100 (Gaussian, exponential, beta = 3.5), 98 (beta = 1.4) and 95 (Moffat of exponent 2.5 and sigma 5 px). A narrower Moffat is
less clearly one: at sigma 3 px it was chosen in 90, else the exponential.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from erflab.analysis import Ellipse, contribution_area, contribution_square, fit_falloff, luo_size, moments, radius_at
from erflab.analysis.families import compare_families
from erflab.analysis.jackknife import Estimate, GroupedMap, effective_images, jackknife
from erflab.analysis.lineshapes import LINE_SHAPES

SHARES = (0.5, 0.9, 0.9545)
# Not luo_size: it hangs on the one highest pixel, so that its corrections are noise (corrected it is covered in 73 % of
# experiments, as it is in 93 %).
AREAS = tuple(f"area_{t:g}" for t in SHARES)
PERIODS = {"theta": math.pi, "orientation": math.pi}
KERNEL = 1.5  # px; noise filtered with it is correlated by 1 / e at 3 px
NOISE = 0.5  # relative standard deviation of a pixel's noise in one image
SHARED = 0.3  # share of the variance of noise and of weights that the images of a scene have in common


@dataclass(frozen=True)
class Truth:
    """A known map, and the families that contain it."""

    family: str
    extras: tuple[float, ...] = ()
    contained: tuple[str, ...] = ()
    half: int = 24
    sigma: float = 5.0
    anisotropy: float = 1.4
    floor: float = 0.001

    @property
    def name(self) -> str:
        """The family with its own parameters."""
        return " ".join([self.family, *(f"{e:g}" for e in self.extras)])

    @property
    def map(self) -> xr.DataArray:
        """Off centre and tilted, so that nothing is at a special value."""
        y = np.arange(-self.half, self.half + 1.0)
        ellipse = Ellipse(self.sigma * math.sqrt(self.anisotropy), self.sigma / math.sqrt(self.anisotropy), 0.5)
        t = ellipse.squared_radius(y[:, None] - 0.6, y[None, :] + 0.4)
        return xr.DataArray(
            self.floor + LINE_SHAPES[self.family].function(t, *self.extras), {"y": y, "x": y}, ("y", "x")
        )


TRUTHS = (
    Truth("gaussian", contained=("generalised_gaussian", "moffat")),
    Truth("exponential", contained=("generalised_gaussian",), sigma=2.0),
    Truth("generalised_gaussian", (1.4,), sigma=4.0),
    Truth("generalised_gaussian", (3.5,), sigma=6.0),
    Truth("moffat", (2.5,), sigma=5.0),
)


@dataclass(frozen=True)
class Weights:
    """Log-normal image weights of mean 1, with the standard deviation of their logarithm."""

    name: str
    deviation: float


LIGHT, HEAVY = Weights("light", 0.3), Weights("heavy", 1.5)


def experiment(
    truth: Truth, weights: Weights, seed: int, scenes: int = 32, each: int = 4, groups: int = 16
) -> tuple[GroupedMap, float]:
    """The maps of one set of images by groups of scenes, and the effective number of images."""
    rng, known = np.random.default_rng(seed), truth.map
    noise = math.sqrt(SHARED) * np.repeat(_noise(rng, scenes, known.shape), each, axis=0)
    noise += math.sqrt(1 - SHARED) * _noise(rng, scenes * each, known.shape)
    spread = math.sqrt(math.log1p(NOISE**2))  # of the logarithm
    both = math.sqrt(SHARED) * np.repeat(rng.normal(size=scenes), each) + math.sqrt(1 - SHARED) * rng.normal(
        size=scenes * each
    )
    weight = np.exp(weights.deviation * both - weights.deviation**2 / 2)  # of mean 1
    maps = weight[:, None, None] * known.values * np.exp(spread * noise - spread**2 / 2)
    sums = np.stack([maps[np.arange(len(maps)) // each % groups == group].sum(0) for group in range(groups)])
    grouped = GroupedMap(known.copy(data=maps.mean(0)), sums, np.full(groups, len(maps) // groups))
    return grouped, effective_images(maps.sum((1, 2)))


def _noise(rng: np.random.Generator, count: int, shape: Sequence[int]) -> np.ndarray:
    """Fields of mean 0 and variance 1, correlated over 3 px."""
    white = gaussian_filter(rng.normal(size=(count, *shape)), (0, KERNEL, KERNEL), mode="wrap")
    return white * (2 * KERNEL * math.sqrt(math.pi))  # the filter leaves a variance of 1 / (4 pi KERNEL^2)


def sizes(map: xr.DataArray) -> dict[str, float | None]:
    """What is measured on a map, the fit aside."""
    about = moments(map)
    return {
        "sigma": about.sigma,
        "centroid_y": about.centroid_y,
        "centroid_x": about.centroid_x,
        "anisotropy": about.anisotropy,
        "orientation": about.orientation,
        **{f"radius_{q:g}": radius_at(map, q) for q in SHARES},
        **{f"square_{t:g}": contribution_square(map, t) for t in SHARES},
        **{f"area_{t:g}": contribution_area(map, t) for t in SHARES},
        "luo_size": luo_size(map),
    }


def measured(truth: Truth, grouped: GroupedMap) -> dict[str, Estimate]:
    """Every number with its interval."""
    found = jackknife(sizes, grouped, corrected=AREAS, periods=PERIODS)
    compared = compare_families(grouped, [truth.family]).row()
    return found | {f"fit_{name}": estimate for name, estimate in compared.estimates.items()}


def known_values(truth: Truth) -> dict[str, float | None]:
    """The numbers of the known map."""
    fit = fit_falloff(truth.map, truth.family)
    widths = {"sigma": fit.sigma, "half_width": fit.half_width, "moment_sigma": fit.moment_sigma}
    return sizes(truth.map) | {f"fit_{name}": value for name, value in {**fit.parameters, **widths}.items()}


@dataclass(frozen=True)
class Coverage:
    """One quantity over all experiments; errors are in units of its true scatter."""

    truth: str
    weights: str
    quantity: str
    known: float
    covered: float
    bias: float
    """Mean of (value - known) over the standard deviation of the values."""
    error_ratio: float
    """Root mean square jackknife error over the standard deviation of the values."""
    experiments: int
    effective_images: float

    def __str__(self) -> str:
        return (
            f"{self.truth:<26} {self.weights:<6} {self.quantity:<17} {self.known:9.4f}  covered {100 * self.covered:5.1f} %  "
            f"bias {self.bias:+.2f}  error/scatter {self.error_ratio:.2f}  N_eff {self.effective_images:.0f}"
        )


def coverage(truth: Truth, weights: Weights, experiments: int) -> list[Coverage]:
    """The coverage of every quantity."""
    known, found, images = known_values(truth), list[dict[str, Estimate]](), []
    for seed in range(experiments):
        grouped, effective = experiment(truth, weights, seed)
        found.append(measured(truth, grouped))
        images.append(effective)
    return [
        _coverage(truth, weights, name, value, [f[name] for f in found], float(np.median(images)))
        for name, value in known.items()
        if value is not None
    ]


def _coverage(
    truth: Truth, weights: Weights, name: str, known: float, found: Sequence[Estimate], effective: float
) -> Coverage:
    whole = [e for e in found if e.value is not None and e.standard_error is not None and e.interval is not None]
    values = np.array([e.value for e in whole])
    errors = np.array([e.standard_error for e in whole])
    period = PERIODS.get(name.removeprefix("fit_"))
    away = values - known if period is None else (values - known + period / 2) % period - period / 2
    reach = np.array([e.interval[1] - e.value for e in whole])  # type: ignore[index, operator]
    return Coverage(
        truth=truth.name,
        weights=weights.name,
        quantity=name,
        known=known,
        covered=float((np.abs(away) <= reach).sum() / len(found)),  # an interval that is missing covers nothing
        bias=float(away.mean() / away.std()),
        error_ratio=float(np.sqrt(np.mean(errors**2)) / away.std()),
        experiments=len(found),
        effective_images=effective,
    )


@dataclass(frozen=True)
class Choice:
    """How often the family of the truth was chosen, or one that contains it."""

    truth: str
    right: float
    right_or_containing: float
    chosen: dict[str, int]

    def __str__(self) -> str:
        return (
            f"{self.truth:<26} right {100 * self.right:5.1f} %  right or containing {100 * self.right_or_containing:5.1f} %  "
            f"{self.chosen}"
        )


def choice(truth: Truth, experiments: int) -> Choice:
    """The families chosen over the experiments, with light weights."""
    chosen = [compare_families(experiment(truth, LIGHT, 10_000 + seed)[0]).chosen for seed in range(experiments)]
    count = {name: chosen.count(name) for name in LINE_SHAPES if name in chosen}
    containing = sum(count.get(name, 0) for name in (truth.family, *truth.contained))
    return Choice(truth.name, count.get(truth.family, 0) / experiments, containing / experiments, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=500, help="of the coverage")
    parser.add_argument("--choices", type=int, default=100, help="of the choice of a family")
    parser.add_argument(
        "--family", nargs="*", default=["gaussian"], choices=[t.name for t in TRUTHS], help="of the coverage"
    )
    parser.add_argument(
        "--weights", nargs="*", default=["light", "heavy"], choices=["light", "heavy"], help="of the coverage"
    )
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    started = time.perf_counter()
    rows = [
        asdict(row)
        for truth in TRUTHS
        if truth.name in settings.family
        for weights in (LIGHT, HEAVY)
        if weights.name in settings.weights
        for row in _printed(coverage(truth, weights, settings.experiments))
    ]
    choices = [asdict(row) for row in _printed(choice(t, settings.choices) for t in TRUTHS if settings.choices)]
    print(f"{time.perf_counter() - started:.0f} s")
    if settings.json:
        settings.json.write_text(json.dumps({"coverage": rows, "choice": choices}, indent=1) + "\n")


def _printed(rows: Sequence[Coverage] | Iterator[Choice]) -> Iterator[Coverage | Choice]:
    for row in rows:
        print(row, flush=True)
        yield row


if __name__ == "__main__":
    sys.exit(main())
