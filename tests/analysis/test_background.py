"""The floor under a map, and sizes without it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_maps import as_map, gaussian_map

from erflab.analysis import above_floor, floor_share, measure_sizes, moments


def test_a_floor_hides_the_size_and_taking_it_away_brings_it_back() -> None:
    """A floor of a tenth of the peak at 224 px makes a field of 9.3 px look several times as wide."""
    map = gaussian_map(9.3, 111.5) + 0.1
    assert moments(map).sigma > 50
    assert moments(above_floor(map, 0.1)).sigma == pytest.approx(9.3, rel=1e-6)
    assert floor_share(map, 0.1) == pytest.approx(0.1 * 224**2 / (0.1 * 224**2 + 2 * math.pi * 9.3**2), rel=1e-6)


def test_both_sizes_are_measured_with_the_fitted_floor() -> None:
    quantities = measure_sizes(gaussian_map(6.0, 40) + 0.1).quantities
    assert quantities["fit_floor"].value == pytest.approx(0.1, rel=1e-6)
    assert quantities["sigma_above_floor"].value == pytest.approx(6, rel=1e-4)
    assert quantities["entropy_area_above_floor"].value == pytest.approx(2 * math.pi * math.e * 36, rel=1e-4)
    assert quantities["sigma"].value > 20
    assert quantities["floor_share"].value == pytest.approx(0.1 * 81**2 / (0.1 * 81**2 + 2 * math.pi * 36), rel=1e-4)


def test_without_a_fitted_floor_there_is_no_size_above_it() -> None:
    quantities = measure_sizes(gaussian_map(6.0, 40), floor=False).quantities
    assert quantities["floor_share"].value is None
    assert quantities["sigma_above_floor"].value is None


@given(st.floats(0, 2), st.integers(0, 99))
def test_what_lies_below_the_floor_is_cut_off(floor: float, seed: int) -> None:
    values = np.random.default_rng(seed).random((4, 5)) + 0.01
    map = as_map(values, np.arange(4.0), np.arange(5.0))
    np.testing.assert_allclose(above_floor(map, floor).values, np.where(values > floor, values - floor, 0))
    assert above_floor(map, -floor).equals(map)
    assert floor_share(map, -floor) == 0
    assert floor_share(map, floor) == pytest.approx(min(1, floor * 20 / values.sum()))
