"""Fits to all groups of scenes but one, and how well each predicts the one that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from erflab.analysis.falloff import FalloffFit, fit_samples, values_at
from erflab.analysis.jackknife import Estimate, GroupedMap, combine, delete_group
from erflab.analysis.samples import Samples, samples_of
from erflab.errors import MeasurementError

_ROUNDING = 1e-12  # relative error that is rounding

LEAST_GROUPS = 4
"""Fewer groups leave the error of a gain unknown."""


@dataclass(frozen=True, eq=False)
class Folds:
    """The samples of all images, of all but each group, and of each group alone."""

    all: Samples
    without: list[Samples]
    held_out: Float[np.ndarray, "group y x"]
    surplus: Float[np.ndarray, " group"]
    """Variance of a group's mean over that of all images'."""

    @classmethod
    def of(cls, grouped: GroupedMap, largest: int) -> Folds:
        """The folds of a map, block-averaged above `largest` px squared."""
        error = grouped.standard_error
        if error is None or len(grouped) < LEAST_GROUPS:
            raise MeasurementError(
                f"the images are of {len(grouped)} groups of scenes, too few to compare families by held-out groups; "
                f"measure images of at least {LEAST_GROUPS} scenes."
            )
        samples = samples_of(grouped.mean, error**2, largest)
        return cls(
            samples,
            [samples.of(map) for map in grouped.replicates()],
            np.stack([samples.means(mean) for mean in grouped.means]),
            grouped.images.sum() / grouped.images,
        )

    def fitted(self, family: str, *, elliptical: bool, floor: bool) -> tuple[FalloffFit, list[FalloffFit]]:
        """The fit to all images, and the fits to all but each group, started from it."""
        fit = fit_samples(self.all, family, elliptical=elliptical, floor=floor)
        return fit, [
            fit_samples(samples, family, elliptical=elliptical, floor=floor, start=fit) for samples in self.without
        ]

    def losses(self, fits: Sequence[FalloffFit]) -> Float[np.ndarray, " group"]:
        """The loss of each group under the fit that has not seen it."""
        errors = [
            np.mean(((held - values_at(self.all, fit)) / self.all.deviations) ** 2)
            for held, fit in zip(self.held_out, fits, strict=True)
        ]
        return np.asarray(errors / self.surplus)


def error_of_mean(values: Float[np.ndarray, " group"], grouped: GroupedMap) -> float:
    """Jackknife standard error of the mean of the groups' values, each weighing as its images."""
    images = grouped.images
    total, count = float(values @ images), int(images.sum())
    return delete_group(total / count, (total - values * images) / (count - images), images)[1]


def parameter_errors(fit: FalloffFit, replicates: Sequence[FalloffFit], grouped: GroupedMap) -> dict[str, Estimate]:
    """The fit's parameters and widths with their jackknife errors, from the fits to all but each group."""
    found = combine(
        _numbers(fit), [_numbers(replicate) for replicate in replicates], grouped.images, periods={"theta": math.pi}
    )
    return {name: e if _varies(e) else Estimate(e.value) for name, e in found.items()}


def _varies(estimate: Estimate) -> bool:
    """Whether a parameter has an error: one that is held fixed, or ends at its bound in every fit, has none."""
    error, value = estimate.standard_error, estimate.value
    return error is not None and value is not None and error > _ROUNDING * abs(value)


def _numbers(fit: FalloffFit) -> dict[str, float | None]:
    widths = {"sigma": fit.sigma, "half_width": fit.half_width, "moment_sigma": fit.moment_sigma}
    return {**fit.parameters, **widths}
