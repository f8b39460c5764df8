"""The stored groups of scenes, as the analysis takes them, and what the images' weights warn of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from erflab.analysis.jackknife import Estimate, GroupedMap, effective_images, jackknife, largest_share
from erflab.analysis.moments import moments
from erflab.errors import MeasurementError
from erflab.flags import Flag

ENOUGH_IMAGES = 100
"""Effective images below which intervals are optimistic: simulated coverage is 77 % at 12 of them, 93 % at 128."""

DOMINANT = 0.15
"""Share of the sum above which one image decides, if it also is more than twice an equal share."""

ENOUGH_GROUPS = 8
"""Groups of scenes below which intervals are wide: the t quantile is 2.4 with 8 groups, 3.2 with 4, 12.7 with 2."""


def packed_sums(sums: Float[Tensor, "group y x"], dims: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray, Any]:
    """The sums of the groups as a variable in float32, which they need not fit: they are stored over `scale`.

    That is a power of two near the largest sum, so that no digit is lost: a deep network's map may be 1e-60 everywhere.
    """
    peak = float(sums.abs().max())
    scale = 2.0 ** (math.frexp(peak)[1] - 1) if 0 < peak < math.inf else 1.0
    about = {"long_name": "sum over the group's images, divided by scale", "scale": scale}
    return dims, (sums / scale).float().cpu().numpy(), about


def grouped_map(dataset: xr.Dataset, map: xr.DataArray, method: str) -> GroupedMap:
    """A method's mean map, dims (y, x), with the sums of its groups, which may cover only the part that was computed."""
    stored = dataset[f"{method}_groups"]
    sums = stored.values.astype(np.float64) * stored.attrs["scale"]
    axes = zip("yx", stored.dims[1:], strict=True)
    top, left = (map[axis].to_index().get_loc(stored[dim].values[0]) for axis, dim in axes)
    return GroupedMap(map, sums, dataset[f"{method}_group_images"].values, (top, left))


def equal_weight_map(dataset: xr.Dataset, method: str) -> GroupedMap | None:
    """The mean of the images' maps each divided by its own sum, where they were computed; None if no image has one."""
    sums = dataset[f"{method}_equal_groups"]
    axes = {axis: dataset[dim].values for axis, dim in zip("yx", sums.dims[1:], strict=True)}
    images = dataset[f"{method}_equal_group_images"].values
    count = int(images.sum())
    if not count:
        return None
    values = sums.values.astype(np.float64)
    return GroupedMap(xr.DataArray(values.sum(0) / count, axes, ("y", "x")), values, images)


def equal_weight_sigma(grouped: GroupedMap | None) -> Estimate:
    """The moments' sigma where every image weighs the same, in px; None where that map has no size."""
    if grouped is None:
        return Estimate(None)
    try:
        return jackknife(lambda map: {"sigma": moments(map).sigma}, grouped)["sigma"]
    except MeasurementError:
        return Estimate(None)


def image_weights(dataset: xr.Dataset, method: str) -> dict[str, float]:
    """Effective number of images and the largest share of one image, from the images' totals."""
    totals = dataset[f"{method}_totals"].values
    return {"effective_images": effective_images(totals), "largest_image_share": largest_share(totals)}


def weight_flags(dataset: xr.Dataset, method: str) -> list[Flag]:
    """What the number and weights of images and scenes say against a method's intervals."""
    weights = image_weights(dataset, method)
    images = int(dataset[method].attrs["images"])
    groups = int(np.count_nonzero(dataset[f"{method}_group_images"].values))
    effective, largest = weights["effective_images"], weights["largest_image_share"]
    flags = []
    if groups < ENOUGH_GROUPS:
        flags.append(Flag("few_groups", method, f"{groups} groups" if groups > 1 else "one group, so no interval"))
    if effective < ENOUGH_IMAGES:
        flags.append(Flag("few_effective_images", method, f"{effective:.1f} of {images}"))
    if largest > max(DOMINANT, 2 / images):
        flags.append(Flag("dominant_image", method, f"{largest:.0%}"))
    return flags
