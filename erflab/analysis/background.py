"""The constant floor under a map, the signature of global paths, and the map without it."""

from __future__ import annotations

import numpy as np
import xarray as xr

from erflab.analysis.profile import as_density, check_map


def floor_share(map: xr.DataArray, floor: float) -> float:
    """Share of the map's sum that a constant floor holds over all its samples; 0 for a floor below zero, at most 1.

    Args:
        map: non-negative values on (y, x).
        floor: in the map's unit, such as the fitted one.

    """
    as_density(map)  # refuses what has no share
    return float(np.clip(floor * map.size / float(map.sum()), 0.0, 1.0))


def above_floor(map: xr.DataArray, floor: float) -> xr.DataArray:
    """The map without its floor: max(map - floor, 0), and the map itself for a floor below zero.

    A size needs a density, which is not negative, so what lies below the floor is cut off. Where the far field is noise
    about the floor its positive half stays: sizes that weigh the far field (sigma, the 99 % radius) remain upper bounds.
    """
    checked = check_map(map)
    return (checked - max(floor, 0.0)).clip(min=0.0)
