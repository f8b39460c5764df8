"""The least-squares search behind a falloff fit, on values of range 1.

What is held fixed or tied is left out by one constant 0/1 matrix: vector = fixed + free @ variables (see `gridmodel`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.optimize import OptimizeResult, least_squares

from erflab.analysis.gridmodel import (
    AMPLITUDE,
    CENTER_X,
    CENTER_Y,
    EXTRAS,
    FLOOR,
    LOG_P,
    LOG_R,
    GridModel,
    Q,
    ellipse_gradient,
    ellipse_of,
)
from erflab.errors import MeasurementError

_NEAR = 1e-4  # a variable this close to a bound, as a share of its range, is at it
_SINGULAR = 1e-10  # least relative singular value of a Jacobian that determines every variable
_TOLERANCE = 1e-10  # of cost, step and gradient
_LEAST = 1e-300  # chi-square that still has a logarithm
_STARTS = 12  # widths to start from, from one sample to the whole map


@dataclass(frozen=True, eq=False)
class Solution:
    """A solved problem: lengths in px, amplitude and floor on the problem's scale."""

    parameters: dict[str, float]
    covariance: Float[np.ndarray, "parameters parameters"] | None
    r_squared: float
    reduced_chi_square: float
    aic: float
    bic: float
    success: bool
    message: str
    near_bound: bool


@dataclass(frozen=True, eq=False)
class Problem:
    """Values and their standard deviations on the grid of a model; `floor` is its fixed value, or None to fit it."""

    grid: GridModel
    values: Float[np.ndarray, "y x"]
    deviations: Float[np.ndarray, "y x"]
    elliptical: bool
    floor: float | None

    @cached_property
    def kept(self) -> list[int]:
        """Places in the vector that the fit varies."""
        left_out = set() if self.floor is None else {FLOOR}
        left_out |= set() if self.elliptical else {Q, LOG_R}
        left_out |= {CENTER_Y, CENTER_X} if self.grid.centered else set()
        return [i for i in range(EXTRAS + len(self.grid.shape.extras)) if i not in left_out]

    @cached_property
    def free(self) -> Float[np.ndarray, "vector variables"]:
        """The derivative of the vector with respect to the variables of the fit."""
        matrix = np.eye(EXTRAS + len(self.grid.shape.extras))
        if not self.elliptical:
            matrix[LOG_R, LOG_P] = 1.0  # one width: the circle
        return matrix[:, self.kept]

    @cached_property
    def bounds(self) -> tuple[Float[np.ndarray, " variables"], Float[np.ndarray, " variables"]]:
        """Lower and upper limits of the variables."""
        # A peak between two samples may be far higher than both, and without a floor as high as the background.
        lower, upper = self.grid.bounds(largest_amplitude=100 * (1 + abs(self.floor or 0.0)))
        return lower[self.kept], upper[self.kept]

    def vector(self, variables: Float[np.ndarray, " variables"]) -> Float[np.ndarray, " vector"]:
        """The model's vector."""
        vector = self.free @ variables
        if self.floor is not None:
            vector[FLOOR] = self.floor
        return np.asarray(vector)

    def residual(self, variables: Float[np.ndarray, " variables"]) -> Float[np.ndarray, " pixels"]:
        """(model - values) / deviations."""
        return np.asarray((self.grid.values(self.vector(variables)) - self.values) / self.deviations).ravel()

    def jacobian(self, variables: Float[np.ndarray, " variables"]) -> Float[np.ndarray, "pixels variables"]:
        """The derivative of the residual."""
        return np.asarray(self.grid.jacobian(self.vector(variables)) @ self.free / self.deviations.reshape(-1, 1))

    def best_circle(self) -> Float[np.ndarray, " vector"]:
        """The best of a grid of circles, amplitude and floor solved for each: a bad start would strand the search."""
        widths = np.geomspace(self.grid.side, self.grid.extent, _STARTS)
        circles = [self._best_circle(center, width) for center, width in itertools.product(self._centers(), widths)]
        return min(circles, key=lambda circle: circle[0])[1]

    def _inside(self, vector: Float[np.ndarray, " vector"]) -> Float[np.ndarray, " variables"]:
        """The variables of a vector, moved off the bounds, where a search could not leave."""
        lower, upper = self.bounds
        margin = np.where(np.isfinite(upper - lower), 2 * _NEAR * (upper - lower), 0.0)
        return np.asarray(np.clip(vector[self.kept], lower + margin, upper - margin))

    def _centers(self) -> list[tuple[float, float]]:
        """The unit's centre, and the centroid of what exceeds half the peak."""
        if self.grid.centered:
            return [(0.0, 0.0)]
        high = np.clip(self.values - 0.5 * self.values.max(), 0.0, None)
        share_y, share_x = high.sum(1) / high.sum(), high.sum(0) / high.sum()
        return [(0.0, 0.0), (float(share_y @ self.grid.y), float(share_x @ self.grid.x))]

    def _best_circle(self, center: tuple[float, float], sigma: float) -> tuple[float, Float[np.ndarray, " vector"]]:
        """The cost and vector of a circle with the amplitude and floor that fit best (a linear problem)."""
        vector = self.grid.round_vector(center, sigma)
        weights = (1 / self.deviations).ravel()
        fitted = [self.grid.values(vector).ravel() * weights] + ([weights] if self.floor is None else [])
        columns = np.stack(fitted, axis=1)
        data = (self.values.ravel() - (self.floor or 0.0)) * weights
        normal = columns.T @ columns
        ridge = 1e-12 * np.trace(normal) * np.eye(len(normal))  # a circle wider than the map is nearly the floor
        linear = np.linalg.solve(normal + ridge, columns.T @ data)
        vector[AMPLITUDE] = linear[0]
        vector[FLOOR] = linear[1] if self.floor is None else self.floor
        return (float(np.sum((data - columns @ linear) ** 2)) if linear[0] > 0 else math.inf), vector

    def solve(self, start: Float[np.ndarray, " vector"] | None = None) -> Solution:
        """Search from a vector near the solution, or from the best circle.

        Raises:
            MeasurementError: if the map has no more pixels than the fit has variables.

        """
        pixels, variables = self.values.size, len(self.kept)
        if pixels <= variables:
            raise MeasurementError(
                f"the map has {pixels} px, too few for {variables} parameters; measure a larger map, or fit with "
                "elliptical=False or floor=False."
            )
        found = least_squares(
            self.residual,
            self._inside(self.best_circle() if start is None else start),
            self.jacobian,
            bounds=self.bounds,
            x_scale="jac",
            ftol=_TOLERANCE,
            xtol=_TOLERANCE,
            gtol=_TOLERANCE,
        )
        return self._solution(found)

    def _solution(self, found: OptimizeResult) -> Solution:
        lower, upper = self.bounds
        vector = self.vector(found.x)
        pixels, variables = self.values.size, len(self.kept)
        chi_square = 2 * float(found.cost)
        reduced_chi_square = chi_square / (pixels - variables)
        total = np.sum((self.values - self.values.mean()) ** 2)
        # -2 log likelihood at the best common scale of the deviations, up to a constant.
        surprise = pixels * math.log(max(chi_square, _LEAST) / pixels)
        return Solution(
            parameters=self._parameters(vector),
            covariance=self._covariance(vector, found.jac, reduced_chi_square),
            r_squared=float(1 - np.sum((self.grid.values(vector) - self.values) ** 2) / total),
            reduced_chi_square=reduced_chi_square,
            aic=surprise + 2 * variables,
            bic=surprise + math.log(pixels) * variables,
            success=bool(found.success),
            message=str(found.message),
            near_bound=bool((np.minimum(found.x - lower, upper - found.x) < _NEAR * (upper - lower)).any()),
        )

    def _parameters(self, vector: Float[np.ndarray, " vector"]) -> dict[str, float]:
        """The vector as the parameters that are reported."""
        ellipse = ellipse_of(vector)
        named = {
            "amplitude": vector[AMPLITUDE],
            "center_y": vector[CENTER_Y],
            "center_x": vector[CENTER_X],
            "sigma_major": ellipse.sigma_major,
            "sigma_minor": ellipse.sigma_minor if self.elliptical else ellipse.sigma_major,
            "theta": ellipse.theta if self.elliptical else 0.0,
            "floor": vector[FLOOR],
        }
        named |= {extra.name: v for extra, v in zip(self.grid.shape.extras, vector[EXTRAS:], strict=True)}
        return {name: float(value) for name, value in named.items()}

    def _covariance(
        self, vector: Float[np.ndarray, " vector"], jacobian: Float[np.ndarray, "pixels variables"], scale: float
    ) -> Float[np.ndarray, "parameters parameters"] | None:
        """(J^T J)^-1 scale, carried over to the reported parameters to first order; None where J is singular."""
        lengths = np.linalg.norm(jacobian, axis=0)
        if not (lengths > 0).all():
            return None
        _, singular, axes = np.linalg.svd(jacobian / lengths, full_matrices=False)
        if singular[-1] < _SINGULAR * singular[0]:
            return None
        roots = (axes / singular[:, None]).T / lengths[:, None]  # roots @ roots.T = (J^T J)^-1
        carried = self._gradient(vector) @ self.free @ roots
        return np.asarray(carried @ carried.T * scale)

    def _gradient(self, vector: Float[np.ndarray, " vector"]) -> Float[np.ndarray, "parameters vector"]:
        """Derivatives of the reported parameters with respect to the vector."""
        order = [AMPLITUDE, CENTER_Y, CENTER_X, LOG_P, Q, LOG_R, FLOOR, *range(EXTRAS, len(vector))]
        gradient = np.eye(len(vector))[order]
        gradient[3:6, LOG_P : LOG_R + 1] = ellipse_gradient(vector)
        if not self.elliptical:
            gradient[3:6] = 0.0
            gradient[3:5, LOG_P] = -ellipse_of(vector).sigma_major  # sigma = exp(-log_p)
        return gradient
