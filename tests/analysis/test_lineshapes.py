"""Every family's derivative, widths and limits, against differences, integrals and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from erflab.analysis import LINE_SHAPES
from erflab.analysis.lineshapes import exponential, gaussian, generalised_gaussian, line_shape, moffat
from erflab.errors import ConfigError

EXTRAS = {
    "gaussian": [()],
    "exponential": [()],
    "generalised_gaussian": [(0.5,), (1.0,), (1.31,), (2.0,), (6.0,)],
    "moffat": [(2.5,), (4.0,), (50.0,)],
}
CASES = [(family, extras) for family, cases in EXTRAS.items() for extras in cases]
T = np.geomspace(1e-3, 50, 40)


def test_every_family_is_tested_here():
    assert EXTRAS.keys() == LINE_SHAPES.keys()


def test_families_are_in_the_order_of_their_parameters():
    counts = [len(shape.extras) for shape in LINE_SHAPES.values()]
    assert counts == sorted(counts)


@pytest.mark.parametrize(("family", "extras"), CASES)
def test_derivatives_agree_with_differences(family, extras):
    shape = LINE_SHAPES[family]
    for index in range(1 + len(extras)):

        def moved(by, index=index):
            arguments = [T, *extras]
            arguments[index] = arguments[index] * (1 + by)
            return shape.function(*arguments)

        scale = T if index == 0 else extras[index - 1]
        expected = (moved(1e-5) - moved(-1e-5)) / (2e-5 * scale)
        np.testing.assert_allclose(shape.derivative(index, T, *extras), expected, rtol=1e-5, atol=1e-8)


@given(st.floats(1e-100, 1e4), st.floats(0.3, 8))
def test_the_derivative_of_the_generalised_gaussian_is_exact_down_to_the_cusp(t, beta):
    # d/dt exp(-t^(b/2) / 2) = -(b / 4) t^(b/2 - 1) exp(-t^(b/2) / 2), and t ln t / b times as much along b
    value = math.exp(-(t ** (beta / 2)) / 2)
    shape = LINE_SHAPES["generalised_gaussian"]
    slope = -beta / 4 * t ** (beta / 2 - 1) * value
    assert shape.derivative(0, t, beta) == pytest.approx(slope, rel=1e-9, abs=1e-200)
    along = -(t ** (beta / 2)) * math.log(t) / 4 * value
    assert shape.derivative(1, t, beta) == pytest.approx(along, rel=1e-9, abs=1e-200)


@pytest.mark.parametrize(("family", "extras"), CASES)
def test_the_peak_is_one_and_all_its_derivatives_are_finite(family, extras):
    shape, peak = LINE_SHAPES[family], np.zeros(1)
    assert shape.function(peak, *extras) == pytest.approx([1.0])
    assert np.isfinite(shape.derivative(0, peak, *extras)).all()
    for index in range(1, 1 + len(extras)):  # the peak stays where it is, whatever the exponent
        assert shape.derivative(index, peak, *extras) == pytest.approx([0.0])


def test_a_smooth_peak_has_its_slope():
    assert LINE_SHAPES["gaussian"].derivative(0, np.zeros(1)) == pytest.approx([-0.5])
    assert LINE_SHAPES["moffat"].derivative(0, np.zeros(1), 3.0) == pytest.approx([-0.5])


def test_families_that_contain_others():
    np.testing.assert_allclose(generalised_gaussian(T, 2.0), gaussian(T), rtol=1e-12)
    np.testing.assert_allclose(generalised_gaussian(T, 1.0), exponential(T), rtol=1e-12)
    np.testing.assert_allclose(moffat(T, 1e7), gaussian(T), atol=1e-6)


@pytest.mark.parametrize(("family", "extras"), CASES)
def test_the_half_width_is_where_half_the_peak_is_left(family, extras):
    shape = LINE_SHAPES[family]
    assert shape.function(shape.half_width(*extras) ** 2, *extras) == pytest.approx(0.5)


@pytest.mark.parametrize(("family", "extras"), CASES)
def test_the_second_moment_is_the_integral(family, extras):
    shape = LINE_SHAPES[family]
    mass, squares = (
        quad(lambda u, n=n: u**n * shape.function(u * u, *extras), 0, np.inf, limit=1000)[0] for n in (1, 3)
    )
    assert shape.second_moment(*extras) == pytest.approx(squares / mass / 2, rel=1e-5)


def test_a_second_moment_that_diverges_is_infinite():
    assert LINE_SHAPES["moffat"].second_moment(2.0) == math.inf


def test_unknown_families_are_named_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"family is 'mofat'; choose one of gaussian, .*moffat.* Did you mean 'moffat'"
    ):
        line_shape("mofat")
