"""Standard errors and intervals of any number derived from a mean map, by leaving out one group of scenes at a time.

Images of one scene resemble each other, so all of a scene are in one group, and groups are left out whole. The delete-m_j
jackknife of Busing, Meijer and van der Leeden (Statistics and Computing 9, 1999) allows groups of unequal size; with equal
ones it is the classical jackknife (Quenouille 1956, Tukey 1958).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.stats import t as student

from erflab.analysis.profile import check_map, same_grid
from erflab.errors import MeasurementError

CONFIDENCE = 0.95
"""Coverage that the intervals aim at."""

Statistics = Callable[..., Mapping[str, float | None]]
"""One map, or several of the same scenes -> named numbers."""


@dataclass(frozen=True)
class Estimate:
    """A number from all images, with its jackknife standard error; None where a replicate has no such number."""

    value: float | None
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    """95 % t interval with G - 1 degrees of freedom."""


@dataclass(frozen=True, eq=False)
class GroupedMap:
    """A map as the sums of its groups of scenes.

    mean: over all images, dims (y, x). sums: dims (group, v, u), of the part of the map that begins at row and column
    `corner`; zero elsewhere. images: number of images in each group; empty groups are left out.
    """

    mean: xr.DataArray
    sums: Float[np.ndarray, "group v u"]
    images: Int[np.ndarray, " group"]
    corner: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Drop empty groups."""
        kept = np.asarray(self.images) > 0
        object.__setattr__(self, "sums", np.asarray(self.sums)[kept])
        object.__setattr__(self, "images", np.asarray(self.images)[kept])

    @classmethod
    def without_groups(cls, map: xr.DataArray) -> GroupedMap:
        """A map whose images are not known apart: its numbers have no errors."""
        return cls(map, np.empty((0, *map.shape)), np.empty(0, dtype=int))

    @classmethod
    def of_replicates(cls, maps: Sequence[xr.DataArray]) -> GroupedMap:
        """The mean of several maps on one grid, such as those of several weight seeds: errors are then over these.

        Raises MeasurementError if the grids differ, or there is no map.
        """
        if not maps:
            raise MeasurementError("there is no map to average; give at least one.")
        same = [check_map(maps[0]), *(same_grid(map, maps[0]) for map in maps[1:])]
        sums = np.stack([map.values for map in same])
        return cls(same[0].copy(data=sums.mean(0)), sums, np.ones(len(same), dtype=int))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def means(self) -> Iterator[xr.DataArray]:
        """The mean map over the images of each group in turn."""
        for group, images in zip(self.sums, self.images, strict=True):
            yield self.mean.copy(data=self._placed(group) / images)

    def changed(self, change: Callable[[xr.DataArray], xr.DataArray]) -> GroupedMap:
        """The same linear change of the mean map and of every group's sum."""
        mean = change(self.mean)
        sums = [change(group).values * images for group, images in zip(self.means, self.images, strict=True)]
        return GroupedMap(mean, np.asarray(sums).reshape(-1, *mean.shape), self.images)

    def replicates(self) -> Iterator[xr.DataArray]:
        """The mean map over all images but those of one group, for each group in turn."""
        count = int(self.images.sum())
        total = self.mean.values * count
        for group, images in zip(self.sums, self.images, strict=True):
            left = (total - self._placed(group)) / (count - images)
            yield self.mean.copy(data=_not_below_zero(left, self.mean.values))

    def _placed(self, group: Float[np.ndarray, "v u"]) -> Float[np.ndarray, "y x"]:
        """A group's sum on the whole map."""
        if group.shape == self.mean.shape:
            return group
        after = (n - first - m for n, first, m in zip(self.mean.shape, self.corner, group.shape, strict=True))
        return np.pad(group, [*zip(self.corner, after, strict=True)])

    @property
    def standard_error(self) -> xr.DataArray | None:
        """Jackknife standard error of the mean map per pixel, dims (y, x); None for fewer than two groups."""
        if len(self) < 2:
            return None
        squares = np.zeros_like(self.mean.values)
        count = int(self.images.sum())
        for group, images in zip(self.means, self.images, strict=True):
            # For a mean the pseudo-value of a group is the group's own mean.
            squares += (group.values - self.mean.values) ** 2 / (count / images - 1)
        return self.mean.copy(data=np.sqrt(squares / len(self)))


def _not_below_zero(values: Float[np.ndarray, "y x"], mean: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
    """Group sums are kept in float32: where one group holds all of a pixel, rounding may leave less than nothing."""
    return np.where(mean >= 0, np.maximum(values, 0.0), values)


def jackknife(
    statistics: Statistics,
    *grouped: GroupedMap,
    corrected: Collection[str] = (),
    periods: Mapping[str, float] | None = None,
) -> dict[str, Estimate]:
    """Every number of the mean map with its standard error and 95 % interval over images.

    Several maps of the same scenes (by gradient and by occlusion, say) leave out the same group together, so that what
    they have in common does not count as error of a number that compares them.

    Args:
        statistics: maps -> named numbers; called once on the mean maps and once a group. A replicate that raises
            MeasurementError leaves the numbers without an error, not the measurement without numbers.
        grouped: the maps by groups of scenes.
        corrected: names of numbers that are corrected for their bias (sizes of area type, which noise changes).
        periods: name -> period of numbers that are angles, whose replicates are taken nearest to the value.

    Raises:
        MeasurementError: if the maps do not have the same groups.
    """
    images = grouped[0].images
    for other in grouped[1:]:
        if not np.array_equal(other.images, images):
            raise MeasurementError(
                f"the maps have groups of {images.tolist()} and {other.images.tolist()} images; compare maps of one "
                "measurement, whose groups are the same scenes."
            )
    full = statistics(*(map.mean for map in grouped))
    if len(images) < 2:
        return {name: Estimate(value) for name, value in full.items()}
    try:
        replicates = [statistics(*maps) for maps in zip(*(map.replicates() for map in grouped), strict=True)]
    except MeasurementError:
        return {name: Estimate(value) for name, value in full.items()}
    return combine(full, replicates, images, corrected=corrected, periods=periods)


def combine(
    full: Mapping[str, float | None],
    replicates: Sequence[Mapping[str, float | None]],
    images: Int[np.ndarray, " group"],
    *,
    corrected: Collection[str] = (),
    periods: Mapping[str, float] | None = None,
) -> dict[str, Estimate]:
    """As `jackknife`, from numbers that are known already: of all images, and of all but each group in turn."""
    return {
        name: _estimate(
            value,
            [found.get(name) for found in replicates],
            images,
            corrected=name in corrected,
            period=(periods or {}).get(name),
        )
        for name, value in full.items()
    }


def _estimate(
    value: float | None,
    replicates: Sequence[float | None],
    images: Int[np.ndarray, " group"],
    *,
    corrected: bool,
    period: float | None,
) -> Estimate:
    known = [r for r in replicates if r is not None and math.isfinite(r)]
    if value is None or not math.isfinite(value) or len(known) < len(replicates):
        return Estimate(value)
    left_out = np.array(known)
    if period is not None:
        left_out = value + (left_out - value + period / 2) % period - period / 2
    center, error = delete_group(value, left_out, images)
    best = center if corrected else value
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(known) - 1)) * error
    return Estimate(best, error, (best - reach, best + reach))


def delete_group(
    value: float, replicates: Float[np.ndarray, " group"], images: Int[np.ndarray, " group"]
) -> tuple[float, float]:
    """The delete-m_j jackknife: the bias-corrected value and its standard error.

    With n images in g groups of m_j, h_j = n / m_j and pseudo-values h_j T - (h_j - 1) T_(j): the estimate is
    g T - sum_j (1 - m_j / n) T_(j), its variance the mean of (pseudo-value - estimate)^2 / (h_j - 1) (Busing et al. 1999).

    Args:
        value: T, from all images.
        replicates: T_(j), from all images but group j's.
        images: m_j, how many images each group has.
    """
    h = images.sum() / images
    estimate = float(len(images) * value - np.sum((1 - 1 / h) * replicates))
    pseudo = h * value - (h - 1) * replicates
    return estimate, float(np.sqrt(np.mean((pseudo - estimate) ** 2 / (h - 1))))


def effective_images(totals: Float[np.ndarray, " images"]) -> float:
    """N_eff = (sum w)^2 / sum w^2, w an image's total: how many equal images would weigh as these do (Kish 1965).

    Zero where all totals are zero.
    """
    squares = float(np.sum(totals**2))
    return float(np.sum(totals)) ** 2 / squares if squares > 0 else 0.0


def largest_share(totals: Float[np.ndarray, " images"]) -> float:
    """Share of the sum over images that the largest one holds; zero where all totals are zero."""
    total = float(np.sum(totals))
    return float(np.max(totals)) / total if total > 0 else 0.0
