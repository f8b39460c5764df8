"""The published measure of Ding et al., "Scaling Up Your Kernels to 31x31" (CVPR 2022), as published."""

from __future__ import annotations

import numpy as np
import xarray as xr

from erflab.analysis.metrics import check_share
from erflab.analysis.profile import as_density, check_map

REPLKNET_SHARES = (0.2, 0.3, 0.5, 0.99)
"""The shares that the paper tabulates."""


def replknet_area_ratio(map: xr.DataArray, t: float) -> float | None:
    """The high-contribution area ratio r(t) of Ding et al. 2022: a square's area over H W.

    A' = log10(A + 1); of the squares of 2 i + 1 pixels, i = 1 .. H//2 - 1, about the pixel (H//2, W//2), the smallest that
    holds more than the share t of A'. None where none does.

    Warning: it depends on the scale of the map, and so on the loss, the number of channels and the input's normalisation:
    a Gaussian has its linear 50 % square at small scale, and a square that grows without end at large scale. Use it only to
    compare with tables made by the same protocol; `contribution_square` on the linear map says the same without a scale.

    Args:
        map: the mean over images of non-negative values on every input pixel (y, x), not yet normalised.
        t: a share, as in `REPLKNET_SHARES`.

    Raises:
        ConfigError: if t is not inside (0, 1).

    """
    check_share(t)
    as_density(map)  # refuses what is negative or zero
    contribution = np.log10(check_map(map).values + 1)
    height, width = contribution.shape
    corner = np.pad(contribution.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # the sum of all above and to the left
    reach = np.arange(1, min(height, width) // 2)
    top, bottom = height // 2 - reach, height // 2 + reach + 1
    left, right = width // 2 - reach, width // 2 + reach + 1
    inside = corner[bottom, right] - corner[top, right] - corner[bottom, left] + corner[top, left]
    holding = reach[inside / contribution.sum() > t]
    return float((2 * holding[0] + 1) ** 2 / (height * width)) if holding.size else None
