"""The ellipse to and from its covariance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erflab.analysis import Ellipse

WIDTHS = st.floats(0.5, 50)
ANGLES = st.floats(-math.pi / 2, math.pi / 2, exclude_max=True)


@given(WIDTHS, st.floats(1.01, 10), ANGLES)
def test_covariance_and_back(minor, anisotropy, theta):
    ellipse = Ellipse(minor * anisotropy, minor, theta)
    again = Ellipse.from_covariance(ellipse.covariance)
    assert again.sigma_major == pytest.approx(ellipse.sigma_major)
    assert again.sigma_minor == pytest.approx(minor, rel=1e-6)
    # An axis has no direction: -pi/2 and just under pi/2 are neighbours.
    assert math.sin(again.theta - theta) == pytest.approx(0, abs=1e-6)
    assert -math.pi / 2 <= again.theta < math.pi / 2


def test_theta_turns_from_x_towards_y():
    ellipse = Ellipse(4.0, 1.0, math.pi / 4)
    along = ellipse.squared_radius(np.array(1.0), np.array(1.0))
    across = ellipse.squared_radius(np.array(1.0), np.array(-1.0))
    assert float(along) == pytest.approx(2 / 16)
    assert float(across) == pytest.approx(2)
    np.testing.assert_allclose(ellipse.covariance, [[8.5, 7.5], [7.5, 8.5]])


def test_an_upright_ellipse_has_the_lower_of_its_two_angles():
    assert Ellipse.from_covariance(np.diag([9.0, 1.0])).theta == -math.pi / 2


def test_lines_and_points():
    assert Ellipse.from_covariance(np.diag([0.0, 4.0])) == Ellipse(2.0, 0.0, 0.0)
    assert Ellipse(2.0, 0.0, 0.0).anisotropy == math.inf
    assert Ellipse.from_covariance(np.zeros((2, 2))).anisotropy == 1
    assert Ellipse(3.0, 1.0, 0.3).sigma == pytest.approx(math.sqrt(5))
