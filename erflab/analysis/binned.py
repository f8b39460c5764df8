"""A goodness of fit for correlated pixels: residuals in a few radial bins against their covariance over groups."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

BINS = 6
"""Most bins; at most half as many as groups, for their covariance is estimated from these."""

_SINGULAR = 1e-10  # least relative eigenvalue of a covariance that can be inverted


def binned_chi_square(
    residuals: Iterable[Float[np.ndarray, "y x"]],
    images: Int[np.ndarray, " group"],
    radius: Float[np.ndarray, "y x"],
    reach: float,
) -> float | None:
    """Hotelling's T^2 of the mean residuals per bin, scaled to an F of mean about 1; None where it is undetermined.

    With K bins, G groups, d the mean residual per bin and C its covariance: (G - K) / (K (G - 1)) d' C^-1 d (Hotelling
    1931). Bins in which all groups agree, such as those outside the field, have no covariance and are left out. What the
    fit itself absorbs of the residuals lowers the number, so that a value near or under 1 is a good fit.

    Args:
        residuals: each group's mean map minus the model.
        images: how many images each group has.
        radius: distance of every pixel from the model's centre.
        reach: radius of the last inner edge: bins are even up to it, and the last takes what is beyond.
    """
    groups, bins = len(images), min(BINS, len(images) // 2)
    if bins < 1:
        return None
    place = np.minimum((radius / reach * (bins - 1)).astype(int), bins - 1).ravel()
    count = np.bincount(place, minlength=bins)
    sums = np.stack([np.bincount(place, r.ravel(), minlength=bins) for r in residuals])
    means = sums[:, count > 0] / count[count > 0]
    means = means[:, np.ptp(means, axis=0) > _SINGULAR * np.abs(means).max()]
    if means.shape[1] == 0:
        return None
    share = images / images.sum()
    mean = share @ means
    away = (means - mean) * np.sqrt(share / (1 - share) / groups)[:, None]
    covariance = away.T @ away
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale)
    if np.linalg.eigvalsh(correlation)[0] < _SINGULAR:
        return None
    pulls = mean / scale
    held = len(mean)
    return float(pulls @ np.linalg.solve(correlation, pulls)) * (groups - held) / (held * (groups - 1))
