"""Where a map lies and how wide it is: its first and second moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from erflab.analysis.ellipse import Ellipse
from erflab.analysis.profile import as_density


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of a density, in px."""

    centroid_y: float
    centroid_x: float
    covariance: Float[np.ndarray, "2 2"]
    """About the centroid, in px^2, rows and columns in the order (y, x)."""

    @property
    def ellipse(self) -> Ellipse:
        """The ellipse with this covariance."""
        return Ellipse.from_covariance(self.covariance)

    @property
    def sigma(self) -> float:
        """sqrt(trace / 2) in px."""
        return self.ellipse.sigma

    @property
    def anisotropy(self) -> float:
        """sigma_major / sigma_minor."""
        return self.ellipse.anisotropy

    @property
    def orientation(self) -> float:
        """Angle of the major axis in radians from +x towards +y, in [-pi/2, pi/2); of no meaning at anisotropy 1."""
        return self.ellipse.theta


def moments(map: xr.DataArray) -> Moments:
    """Centroid and covariance of a map: c = sum p v and C = sum p (v - c)(v - c)^T, v = (y, x)."""
    density = as_density(map)
    along_y, along_x = density.values.sum(1), density.values.sum(0)
    y, x = np.asarray(density["y"].values, float), np.asarray(density["x"].values, float)
    center_y, center_x = float(along_y @ y), float(along_x @ x)
    dy, dx = y - center_y, x - center_x
    yx = dy @ density.values @ dx
    return Moments(center_y, center_x, np.array([[along_y @ dy**2, yx], [yx, along_x @ dx**2]]))
