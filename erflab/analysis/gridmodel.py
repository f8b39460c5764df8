"""A falloff model on a grid, in variables in which nothing is singular, with its exact derivatives.

Width and angle enter as a Cholesky factor of the precision matrix,

    u^2 = (p dx + q dy)^2 + (r dy)^2,   p = exp(log_p), r = exp(log_r),

so that every vector is a proper ellipse, and a circle is an ordinary point (for an angle it would be a singular one).
A vector holds amplitude, floor, center_y, center_x, log_p, q, log_r and the shape's extras, in this order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from erflab.analysis.ellipse import Ellipse
from erflab.analysis.lineshapes import LineShape

AMPLITUDE, FLOOR, CENTER_Y, CENTER_X, LOG_P, Q, LOG_R, EXTRAS = range(8)

NARROWEST = 0.3
"""Least sigma, in samples: a narrower peak is one sample, whatever its width."""

WIDEST = 10.0
"""Largest sigma, in extents of the map: a wider peak is flat."""


_ROUND = 1e-12  # axes closer than this, relatively, are equal


@dataclass(frozen=True, eq=False)
class GridModel:
    """amplitude * shape(u^2) + floor on the grid y by x (px), averaged over `block` by `block` finer samples."""

    y: Float[np.ndarray, " y"]
    x: Float[np.ndarray, " x"]
    shape: LineShape
    block: int = 1

    @cached_property
    def steps(self) -> tuple[float, float]:
        """Signed distance of neighbouring samples, (dy, dx)."""
        return float(self.y[1] - self.y[0]), float(self.x[1] - self.x[0])

    @cached_property
    def side(self) -> float:
        """Side in px of a sample's cell."""
        return math.sqrt(abs(self.steps[0] * self.steps[1]))

    @cached_property
    def extent(self) -> float:
        """The longer side of the map in px."""
        return float(max(np.ptp(self.y), np.ptp(self.x)))

    @property
    def centered(self) -> bool:
        """Whether the model lies on the unit's centre, a circle, instead of being free to move and stretch."""
        return False

    @cached_property
    def nodes(self) -> list[tuple[Any, Any]]:
        """Offsets over which the model is averaged, as the data was.

        Two points per axis have the variance of a block of n samples, (n^2 - 1) / 12 of their spacing squared: exact
        for n = 2, to fourth order beyond. Without them a block average would widen the fit.
        """
        offset = math.sqrt((self.block**2 - 1) / 12) / self.block
        corners = itertools.product((-offset, offset), repeat=2) if self.block > 1 else [(0.0, 0.0)]
        return [(a * self.steps[0], b * self.steps[1]) for a, b in corners]

    def holds(self, center: tuple[float, float], reach: Float[np.ndarray, " 2"]) -> bool:
        """Whether the box `reach` (y, x) px to each side of a centre lies on the grid."""
        sides = zip((self.y, self.x), center, reach, strict=True)
        return all(bool(axis.min() <= middle - far and middle + far <= axis.max()) for axis, middle, far in sides)

    def bounds(self, largest_amplitude: float) -> tuple[Float[np.ndarray, " vector"], Float[np.ndarray, " vector"]]:
        """Lower and upper limits of a vector: the centre on the map, the width between a sample and many maps."""
        sharpest = 1 / (NARROWEST * self.side)
        logs = -math.log(WIDEST * self.extent), math.log(sharpest)
        rows = [
            (0.0, largest_amplitude),
            (-np.inf, np.inf),
            (self.y.min(), self.y.max()),
            (self.x.min(), self.x.max()),
            logs,
            (-sharpest, sharpest),
            logs,
            *((extra.lower, extra.upper) for extra in self.shape.extras),
        ]
        lower, upper = np.array(rows, dtype=np.float64).T
        return lower, upper

    def round_vector(self, center: tuple[float, float], sigma: float) -> Float[np.ndarray, " vector"]:
        """The vector of a circle of amplitude 1 without a floor."""
        width = -math.log(sigma)
        return np.array([1.0, 0.0, *center, width, 0.0, width, *(extra.start for extra in self.shape.extras)])

    def values(self, vector: Float[np.ndarray, " vector"]) -> Float[np.ndarray, "y x"]:
        """The model on the grid."""
        shapes = [
            self.shape.function(first**2 + second**2, *vector[EXTRAS:]) for first, second, *_ in self._terms(vector)
        ]
        return np.asarray(vector[AMPLITUDE] * np.mean(shapes, axis=0) + vector[FLOOR])

    def jacobian(self, vector: Float[np.ndarray, " vector"]) -> Float[np.ndarray, "pixels vector"]:
        """Exact derivatives of the values with respect to the vector."""
        columns = np.mean([self._columns(vector, *terms) for terms in self._terms(vector)], axis=0)
        return np.asarray(columns.reshape(len(vector), -1).T)

    def _terms(self, vector: Float[np.ndarray, " vector"]) -> Iterator[tuple[Float[np.ndarray, "*grid"], ...]]:
        """For each node the two terms whose squares sum to u^2, and dy and dx."""
        for node_y, node_x in self.nodes:
            dy = self.y[:, None] + node_y - vector[CENTER_Y]
            dx = self.x[None, :] + node_x - vector[CENTER_X]
            yield math.exp(vector[LOG_P]) * dx + vector[Q] * dy, math.exp(vector[LOG_R]) * dy, dy, dx

    def _columns(
        self,
        vector: Float[np.ndarray, " vector"],
        first: Float[np.ndarray, "y x"],
        second: Float[np.ndarray, "y 1"],
        dy: Float[np.ndarray, "y 1"],
        dx: Float[np.ndarray, "1 x"],
    ) -> Float[np.ndarray, "vector y x"]:
        t, extras = first**2 + second**2, vector[EXTRAS:]
        p, r = math.exp(vector[LOG_P]), math.exp(vector[LOG_R])
        slope = 2 * vector[AMPLITUDE] * self.shape.derivative(0, t, *extras)
        columns = [
            self.shape.function(t, *extras),
            np.ones_like(t),
            -slope * (first * vector[Q] + second * r),
            -slope * first * p,
            slope * first * p * dx,
            slope * first * dy,
            slope * second**2,
            *(vector[AMPLITUDE] * self.shape.derivative(1 + i, t, *extras) for i in range(len(extras))),
        ]
        return np.stack(columns)


@dataclass(frozen=True, eq=False, kw_only=True)
class RingModel(GridModel):
    """The model on the rings of a radial profile: a grid of one row, x being the rings' radii.

    spread: standard deviation of the radii within each ring, in px.
    """

    spread: Float[np.ndarray, " x"]

    @cached_property
    def side(self) -> float:
        """Distance of neighbouring rings in px."""
        return self.extent / max(len(self.x) - 1, 1)

    @property
    def centered(self) -> bool:
        """A profile says nothing about centre and direction."""
        return True

    def holds(self, center: tuple[float, float], reach: Float[np.ndarray, " 2"]) -> bool:
        """Whether the profile extends that far."""
        return bool(reach.max() <= self.x.max())

    @cached_property
    def nodes(self) -> list[tuple[Any, Any]]:
        """Two radii per ring, with the mean and the variance of its pixels'."""
        return [(0.0, -self.spread), (0.0, self.spread)]


def vector_of(
    amplitude: float, floor: float, center: tuple[float, float], ellipse: Ellipse, extras: Sequence[float]
) -> Float[np.ndarray, " vector"]:
    """The vector of a model: the inverse of `ellipse_of`, with what else it holds."""
    (yy, yx), (_, xx) = np.linalg.inv(ellipse.covariance)
    p = math.sqrt(xx)
    q = yx / p
    return np.array([amplitude, floor, *center, math.log(p), q, math.log(yy - q * q) / 2, *extras])


def ellipse_of(vector: Float[np.ndarray, " vector"]) -> Ellipse:
    """The one-sigma ellipse of a vector."""
    p, q, r = math.exp(vector[LOG_P]), float(vector[Q]), math.exp(vector[LOG_R])
    # The inverse of the precision [[q^2 + r^2, p q], [p q, p^2]] (order y, x), whose determinant is (p r)^2.
    yy, yx, xx = 1 / r**2, -q / (p * r**2), (q**2 + r**2) / (p * r) ** 2
    return Ellipse.from_covariance(np.array([[yy, yx], [yx, xx]]))


def ellipse_gradient(vector: Float[np.ndarray, " vector"]) -> Float[np.ndarray, "3 3"]:
    """Derivatives of (sigma_major, sigma_minor, theta) with respect to (log_p, q, log_r).

    First-order perturbation of the precision Q with eigenvectors a (major) and b (minor):
    d sigma_major = -sigma_major^3 (a' dQ a) / 2, d sigma_minor = -sigma_minor^3 (b' dQ b) / 2,
    d theta = -(a' dQ b) / (1 / sigma_minor^2 - 1 / sigma_major^2),
    which a circle would make infinite: there it is huge.
    """
    ellipse = ellipse_of(vector)
    p, q, r = math.exp(vector[LOG_P]), float(vector[Q]), math.exp(vector[LOG_R])
    changes = [np.array(c) for c in ([[0, p * q], [p * q, 2 * p * p]], [[2 * q, p], [p, 0]], [[2 * r * r, 0], [0, 0]])]
    cosine, sine = math.cos(ellipse.theta), math.sin(ellipse.theta)
    major, minor = np.array([sine, cosine]), np.array([cosine, -sine])
    sharp, flat = 1 / ellipse.sigma_minor**2, 1 / ellipse.sigma_major**2
    gap = max(sharp - flat, _ROUND * sharp)
    return np.array(
        [
            [-(ellipse.sigma_major**3) * (major @ change @ major) / 2 for change in changes],
            [-(ellipse.sigma_minor**3) * (minor @ change @ minor) / 2 for change in changes],
            [-(major @ change @ minor) / gap for change in changes],
        ]
    )
