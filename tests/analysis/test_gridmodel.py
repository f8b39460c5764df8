"""The model's derivatives against differences, and its block average against a real one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from erflab.analysis import LINE_SHAPES
from erflab.analysis.gridmodel import GridModel, ellipse_gradient, ellipse_of

VECTOR = np.array([1.3, 0.2, 1.7, -2.3, math.log(0.2), 0.07, math.log(0.3)])
Y, X = np.arange(-6.0, 7.0, 2.0), np.arange(-7.5, 8.0, 1.0)


def differences(function, vector: np.ndarray) -> np.ndarray:
    """Central differences, one column per entry of the vector."""
    steps = 1e-5 * np.eye(vector.size)
    return np.stack([np.ravel(function(vector + h) - function(vector - h)) / 2e-5 for h in steps], axis=1)


@pytest.mark.parametrize("block", [1, 2, 5])
@pytest.mark.parametrize(
    ("family", "extras"),
    [("gaussian", []), ("exponential", []), ("generalised_gaussian", [1.4]), ("moffat", [2.5])],
)
def test_jacobian_is_the_derivative_of_the_values(family, extras, block):
    model, vector = GridModel(Y, X, LINE_SHAPES[family], block), np.array([*VECTOR, *extras])
    np.testing.assert_allclose(model.jacobian(vector), differences(model.values, vector), atol=1e-8)


def test_ellipse_gradient_is_the_derivative_of_the_ellipse():
    def parts(vector):
        ellipse = ellipse_of(vector)
        return np.array([ellipse.sigma_major, ellipse.sigma_minor, ellipse.theta])

    np.testing.assert_allclose(ellipse_gradient(VECTOR), differences(parts, VECTOR)[:, 4:7], atol=1e-7)


def test_ellipse_of_a_vector_measures_the_same_radius():
    # The value at the tip of the major axis is that at u = 1.
    ellipse = ellipse_of(VECTOR)
    tip = ellipse.sigma_major * np.array([math.sin(ellipse.theta), math.cos(ellipse.theta)]) + VECTOR[2:4]
    model = GridModel(np.array([tip[0], 99.0]), np.array([tip[1], 99.0]), LINE_SHAPES["gaussian"])
    assert model.values(VECTOR)[0, 0] == pytest.approx(1.3 * math.exp(-0.5) + 0.2)


@pytest.mark.parametrize(("block", "widening", "tolerance"), [(2, 1, 1e-14), (5, 1, 5e-3), (5, 5, 1e-5)])
def test_the_model_is_averaged_as_the_data_is(block, widening, tolerance):
    # Exact for two samples; beyond, the error falls with the fourth power of block / sigma.
    wide = VECTOR - np.array([0, 0, 0, 0, math.log(widening), VECTOR[5] * (1 - 1 / widening), math.log(widening)])
    fine = np.arange(-29.5, 30.0)
    coarse = fine.reshape(-1, block).mean(1)
    values = GridModel(fine, fine, LINE_SHAPES["gaussian"]).values(wide)
    averaged = values.reshape(coarse.size, block, coarse.size, block).mean((1, 3))
    model = GridModel(coarse, coarse, LINE_SHAPES["gaussian"], block)
    np.testing.assert_allclose(model.values(wide), averaged, atol=tolerance)
