"""Maps whose sizes have closed forms."""

from __future__ import annotations

import numpy as np
import xarray as xr

from erflab.analysis import Ellipse


def offsets(half: float, step: float = 1.0) -> np.ndarray:
    """From -half to half: integers for a whole `half`, half-integers for a half one."""
    return np.arange(-half, half + step / 2, step)


def as_map(values: np.ndarray, y: np.ndarray, x: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, coords={"y": y, "x": x}, dims=("y", "x"))


def gaussian_map(
    sigma: float,
    half: float,
    step: float = 1.0,
    center: tuple[float, float] = (0.0, 0.0),
    minor: float | None = None,
    theta: float = 0.0,
) -> xr.DataArray:
    y = x = offsets(half, step)
    ellipse = Ellipse(sigma, minor or sigma, theta)
    return as_map(np.exp(-ellipse.squared_radius(y[:, None] - center[0], x[None, :] - center[1]) / 2), y, x)
