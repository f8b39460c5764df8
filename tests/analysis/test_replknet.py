"""The published area ratio: its exact rule, and its dependence on scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_maps import as_map, gaussian_map
from scipy.special import erfinv

from erflab.analysis import contribution_square, replknet_area_ratio
from erflab.errors import ConfigError, MeasurementError


def one_pixel(height: int, width: int, row: int, column: int):
    values = np.zeros((height, width))
    values[row, column] = 1
    return as_map(values, np.arange(height) - 3.0, np.arange(width) - 1.0)


def test_the_square_lies_about_the_pixel_h_2_w_2_and_begins_at_three() -> None:
    # At 8 x 6 px the squares are about pixel (4, 3): of 3 px, and of 5 px, the last.
    assert replknet_area_ratio(one_pixel(8, 6, 4, 3), 0.5) == pytest.approx(9 / 48)
    assert replknet_area_ratio(one_pixel(8, 6, 3, 2), 0.5) == pytest.approx(9 / 48)
    assert replknet_area_ratio(one_pixel(8, 6, 2, 3), 0.5) == pytest.approx(25 / 48)
    assert replknet_area_ratio(one_pixel(8, 6, 1, 3), 0.5) is None


def test_the_share_must_be_exceeded() -> None:
    values = np.zeros((8, 8))
    values[4, 4] = values[2, 4] = 1  # half inside the square of 3 px
    map = as_map(values, np.arange(8.0), np.arange(8.0))
    assert replknet_area_ratio(map, 0.5) == pytest.approx(25 / 64)
    assert replknet_area_ratio(map, 0.49) == pytest.approx(9 / 64)


def test_a_uniform_map_needs_its_share_of_the_image() -> None:
    map = as_map(np.ones((101, 101)), np.arange(101.0), np.arange(101.0))
    assert replknet_area_ratio(map, 0.5) == pytest.approx((73 / 101) ** 2)  # 71^2 / 101^2 = 0.494 is too small


def test_it_depends_on_the_scale_of_the_map() -> None:
    """A Gaussian's 50 % square where the logarithm is linear; four times that area and more where it is not."""
    map = gaussian_map(20.0, 200)
    small, one, large, huge = (replknet_area_ratio(map * scale, 0.5) for scale in (1e-6, 1.0, 1e3, 1e6))
    linear = 2 * math.sqrt(2) * 20.0 * float(erfinv(math.sqrt(0.5)))
    assert small is not None
    assert math.sqrt(small) * 401 == pytest.approx(linear, abs=2)  # the next odd side
    assert contribution_square(map, 0.5) == pytest.approx(linear, rel=1e-3)
    assert small < one < large < huge
    assert huge > 4 * small


def test_large_scales_see_a_paraboloid() -> None:
    """log(A c) = log c - r^2 / 2 sigma^2, cut at zero: a square of half side a < R holds 8 a^2 (R^2 - 2 a^2 / 3) / 2 of it."""
    sigma, scale = 20.0, 1e12
    edge = 2 * sigma**2 * math.log(scale)  # R^2
    found = replknet_area_ratio(gaussian_map(sigma, 200) * scale, 0.3)
    total = math.pi * edge**2 / 2
    half = min(a for a in np.arange(1, 200, 0.5) if 4 * a**2 * (edge - 2 * a**2 / 3) / total > 0.3)
    assert found is not None
    assert math.sqrt(found) * 401 == pytest.approx(2 * half, rel=0.03)


@settings(max_examples=30)
@given(side=st.sampled_from([7, 9, 21]), turns=st.integers(0, 3), seed=st.integers(0, 99))
def test_turns_do_not_matter_where_a_middle_pixel_exists(side: int, turns: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((side, side))
    axis = np.arange(float(side))
    map, turned = as_map(values, axis, axis), as_map(np.rot90(values, turns), axis, axis)
    assert replknet_area_ratio(turned, 0.3) == replknet_area_ratio(map, 0.3)


def test_what_it_refuses() -> None:
    map = as_map(np.ones((4, 4)), np.arange(4.0), np.arange(4.0))
    with pytest.raises(ConfigError, match="the share is 50; give a number between 0 and 1"):
        replknet_area_ratio(map, 50)
    with pytest.raises(MeasurementError, match="negative values"):
        replknet_area_ratio(map - 2, 0.5)
