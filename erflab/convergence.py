"""When to stop: the standard error of sigma, looked at after image counts fixed beforehand.

A rule that looks at every image stops at lucky moments; one that looks seldom, and only with many effective images, does so
hardly at all. The interval of a measurement that was stopped is nevertheless marked as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from erflab.analysis.jackknife import GroupedMap, effective_images, jackknife
from erflab.analysis.moments import moments
from erflab.errors import MeasurementError
from erflab.flags import Flag

FIRST_LOOK = 64
LEAST_EFFECTIVE_IMAGES = 100
"""With fewer, the jackknife's own error is too uncertain to stop by."""


@dataclass(frozen=True)
class Look:
    """What one look saw: sigma and its standard error in px (None where the map has none), after so many images."""

    images: int
    sigma: float | None
    standard_error: float | None
    effective_images: float

    def satisfies(self, tolerance: float) -> bool:
        """Whether SE(sigma) / sigma is below the tolerance, and known well enough to say so."""
        if self.sigma is None or self.standard_error is None or self.effective_images < LEAST_EFFECTIVE_IMAGES:
            return False
        return self.standard_error < tolerance * self.sigma


@dataclass
class Convergence:
    """The looks at one map while it is measured, on at most `images` images.

    tolerance: of SE(sigma) / sigma, at which to stop; None measures all images.
    """

    images: int
    tolerance: float | None = None
    looks: list[Look] = field(default_factory=list)

    def due(self, count: int) -> bool:
        """Whether a look is due after so many images."""
        return count in look_counts(self.images)

    def look(self, map: GroupedMap, totals: Sequence[float]) -> bool:
        """Note sigma and its error as they are now, and say whether they are good enough to stop."""
        try:
            found = jackknife(lambda mean: {"sigma": moments(mean).sigma}, map)["sigma"]
            sigma, error = found.value, found.standard_error
        except MeasurementError:  # a map of zeros, or one with negative values, has no size
            sigma = error = None
        self.looks.append(Look(len(totals), sigma, error, effective_images(np.asarray(totals))))
        return self.tolerance is not None and self.looks[-1].satisfies(self.tolerance)

    def state(self) -> list[dict[str, Any]]:
        """The looks so far, for `restore`."""
        return [asdict(look) for look in self.looks]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on from a `state`."""
        self.looks = [Look(**look) for look in state]

    def flags(self, method: str) -> Iterator[Flag]:
        """That the measurement was stopped, or that it ran out of images first."""
        last = self.looks[-1]
        if self.tolerance is None:
            return
        seen = "unknown" if not last.sigma or last.standard_error is None else f"{last.standard_error / last.sigma:.2%}"
        if not last.satisfies(self.tolerance):
            wanted = f"SE/sigma {seen}, N_eff {last.effective_images:.0f}, {last.images} images"
            yield Flag("tolerance_not_reached", method, wanted)
        elif last.images < self.images:
            yield Flag("stopped", method, f"SE/sigma {seen} after {last.images} of {self.images} images")


def look_counts(total: int) -> list[int]:
    """The image counts at which to look: 64, 128, 256, ... and, last, all."""
    counts = []
    count = FIRST_LOOK
    while count < total:
        counts.append(count)
        count *= 2
    return [*counts, total]
