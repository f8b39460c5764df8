"""Agreement of maps: closed forms on shifted and scaled Gaussians, exact blurring and resampling, joint errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from known_maps import as_map, gaussian_map, offsets
from scipy.signal import convolve2d

from erflab.analysis import GroupedMap, agreement, blurred, joint_agreement, moments, resampled
from erflab.errors import MeasurementError


def test_equal_shapes_agree_at_any_scale() -> None:
    map = gaussian_map(6.0, 40)
    found = agreement(map, 7 * map)
    assert found["cosine"] == pytest.approx(1)
    assert found["total_variation"] == pytest.approx(0, abs=1e-12)
    assert found["radial_earth_mover"] == pytest.approx(0, abs=1e-9)


def test_two_gaussians_of_different_width() -> None:
    """Cosine 2 a b / (a^2 + b^2); the radii are Rayleigh, whose quantiles scale: |a - b| sqrt(pi / 2) apart on average."""
    a, b = 9.0, 12.0
    found = agreement(gaussian_map(a, 100), gaussian_map(b, 100))
    assert found["cosine"] == pytest.approx(2 * a * b / (a**2 + b**2), rel=1e-6)
    assert found["radial_earth_mover"] == pytest.approx((b - a) * math.sqrt(math.pi / 2), rel=1e-3)
    # The densities cross at R^2 = 4 a^2 b^2 ln(b / a) / (b^2 - a^2); the narrow one holds more inside.
    crossing = 4 * a**2 * b**2 * math.log(b / a) / (b**2 - a**2)
    inside = math.exp(-crossing / (2 * b**2)) - math.exp(-crossing / (2 * a**2))
    assert found["total_variation"] == pytest.approx(inside, rel=2e-3)


def test_maps_that_do_not_meet() -> None:
    left, right = np.zeros((3, 9)), np.zeros((3, 9))
    left[1, 4], right[1, 8] = 1, 1
    y, x = offsets(1), offsets(4)
    found = agreement(as_map(left, y, x), as_map(right, y, x))
    assert found == {"cosine": 0, "total_variation": 1, "radial_earth_mover": pytest.approx(4)}


def test_different_grids_are_refused() -> None:
    with pytest.raises(MeasurementError, match="different grids"):
        agreement(gaussian_map(2.0, 5), gaussian_map(2.0, 6))


@pytest.mark.parametrize("patch", [1, 4, 7])
def test_blurring_adds_the_patchs_variance(patch: int) -> None:
    """sigma_occlusion^2 = sigma_energy^2 + (a^2 - 1) / 12, exactly."""
    map = gaussian_map(5.0, 50)
    axis = offsets(60 if patch % 2 else 60.5)
    found = moments(blurred(map, patch, as_map(np.zeros((axis.size, axis.size)), axis, axis)))
    assert found.sigma**2 == pytest.approx(moments(map).sigma ** 2 + (patch**2 - 1) / 12, rel=1e-9)


@given(st.integers(1, 5), st.integers(0, 99))
def test_blurring_is_the_convolution_with_the_patch(patch: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((9, 8))
    y, x = np.arange(9.0), np.arange(8.0)
    half = (patch - 1) / 2
    like = as_map(np.zeros((8 + patch, 7 + patch)), np.arange(8.0 + patch) - half, np.arange(7.0 + patch) - half)
    expected = convolve2d(values, np.ones((patch, patch)))
    np.testing.assert_allclose(blurred(as_map(values, y, x), patch, like).values, expected, atol=1e-12)


@given(st.sampled_from([1.0, 2.0, 3.0, 4.0]), st.sampled_from([0.0, 0.25, 0.5]), st.integers(0, 99))
def test_resampling_moves_no_mass_and_no_centroid(step: float, phase: float, seed: int) -> None:
    values = np.random.default_rng(seed).random((8, 8)) + 0.01
    map = as_map(values, offsets(3.5), offsets(3.5))
    axis = step * offsets(10) + phase
    found = resampled(map, as_map(np.zeros((21, 21)), axis, axis))
    assert float(found.sum()) == pytest.approx(values.sum())
    # A pixel that a cell's edge cuts is spread evenly, so that half a step of either side bounds the shift.
    assert moments(found).centroid_y == pytest.approx(moments(map).centroid_y, abs=step / 2)


def grouped(maps: np.ndarray) -> GroupedMap:
    axis = offsets((maps.shape[1] - 1) / 2)
    return GroupedMap(as_map(maps.mean(0), axis, axis), maps, np.ones(len(maps), int))


def noisy(seed: int, groups: int = 8) -> np.ndarray:
    return gaussian_map(3.0, 10).values * (0.5 + np.random.default_rng(seed).random((groups, 21, 21)))


def test_what_both_maps_share_is_no_error() -> None:
    maps = noisy(0)
    found = joint_agreement(grouped(maps), grouped(2 * maps))
    assert found["cosine"].value == pytest.approx(1)
    assert found["cosine"].standard_error == pytest.approx(0, abs=1e-9)
    assert found["sigma_ratio"].standard_error == pytest.approx(0, abs=1e-9)
    apart = joint_agreement(grouped(maps), grouped(noisy(1)))
    assert apart["sigma_ratio"].standard_error > 1e-3
    assert apart["cosine"].interval[1] <= 1


def test_a_map_without_images_is_compared_as_it_is() -> None:
    truth: xr.DataArray = gaussian_map(3.0, 10)
    found = joint_agreement(truth, grouped(noisy(2)))
    low, high = found["sigma_ratio"].interval
    assert low < 1 < high
    assert found["sigma_ratio"].standard_error > 0


def test_a_single_sample_has_no_ratio() -> None:
    point = np.zeros((2, 21, 21))
    point[:, 10, 10] = 1, 2
    assert joint_agreement(grouped(noisy(0, 2)), grouped(point))["sigma_ratio"].value is None


def test_maps_of_other_scenes_are_refused() -> None:
    with pytest.raises(MeasurementError, match=r"groups of \[1, 1\] and \[1, 1, 1\] images; compare maps of one"):
        joint_agreement(grouped(noisy(0, 2)), grouped(noisy(1, 3)))
