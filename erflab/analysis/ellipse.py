"""The ellipse of a two-dimensional falloff: two widths and an angle, to and from a covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Ellipse:
    """The one-sigma ellipse of a density: sigma_major >= sigma_minor in px.

    `theta` is the angle of the major axis in radians, from +x towards +y, in [-pi/2, pi/2).
    """

    sigma_major: float
    sigma_minor: float
    theta: float

    @classmethod
    def from_covariance(cls, covariance: Float[np.ndarray, "2 2"]) -> Ellipse:
        """The ellipse of a covariance in px^2, rows and columns in the order (y, x)."""
        (yy, yx), (_, xx) = covariance.tolist()
        middle, half = (xx + yy) / 2, math.hypot((xx - yy) / 2, yx)
        theta = math.atan2(2 * yx, xx - yy) / 2
        # Rounding can push the minor eigenvalue of a line or a point below zero.
        return cls(math.sqrt(middle + half), math.sqrt(max(middle - half, 0.0)), _half_turn(theta))

    @property
    def covariance(self) -> Float[np.ndarray, "2 2"]:
        """The covariance in px^2, rows and columns in the order (y, x)."""
        major = np.array([math.sin(self.theta), math.cos(self.theta)])
        minor = np.array([math.cos(self.theta), -math.sin(self.theta)])
        outer = self.sigma_major**2 * np.outer(major, major) + self.sigma_minor**2 * np.outer(minor, minor)
        return np.asarray(outer)

    @property
    def sigma(self) -> float:
        """The one width that stands for both, sqrt((sigma_major^2 + sigma_minor^2) / 2) = sqrt(trace / 2)."""
        return math.hypot(self.sigma_major, self.sigma_minor) / math.sqrt(2)

    @property
    def anisotropy(self) -> float:
        """sigma_major / sigma_minor: 1 for a circle and for a single point, infinite for a line."""
        if self.sigma_minor == 0:
            return 1.0 if self.sigma_major == 0 else math.inf
        return self.sigma_major / self.sigma_minor

    def squared_radius(
        self, dy: Float[np.ndarray, "*#grid"], dx: Float[np.ndarray, "*#grid"]
    ) -> Float[np.ndarray, "*#grid"]:
        """Squared distance from the ellipse's centre in units of sigma: 1 on the one-sigma ellipse."""
        cosine, sine = math.cos(self.theta), math.sin(self.theta)
        along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
        return np.asarray((along / self.sigma_major) ** 2 + (across / self.sigma_minor) ** 2)


def _half_turn(angle: float) -> float:
    """The angle of an axis, which a half turn leaves as it is, in [-pi/2, pi/2)."""
    wrapped = (angle + math.pi / 2) % math.pi - math.pi / 2
    return -math.pi / 2 if wrapped >= math.pi / 2 else wrapped
