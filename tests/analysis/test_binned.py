"""The binned chi-square against its distribution and its invariances."""

from __future__ import annotations

import numpy as np
import pytest

from erflab.analysis.binned import BINS, binned_chi_square

RADIUS = np.hypot(*np.meshgrid(np.arange(-10.0, 11), np.arange(-10.0, 11)))


def residuals(seed: int, groups: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(groups, 21, 21))


def test_it_follows_the_f_distribution() -> None:
    found = [binned_chi_square(residuals(seed), np.full(16, 4), RADIUS, 8.0) for seed in range(400)]
    # F(K, G - K) = F(6, 10) has mean 10 / 8 and variance 2 10^2 (6 + 10 - 2) / (6 8^2 6) = 1.215.
    assert np.mean(found) == pytest.approx(1.25, abs=4 * (1.215 / 400) ** 0.5)


def test_one_bin_is_the_square_of_students_t() -> None:
    values = residuals(0, groups=3)
    means = values.mean((1, 2))
    t = means.mean() / (means.std(ddof=1) / np.sqrt(3))
    assert binned_chi_square(values, np.full(3, 2), RADIUS, 8.0) == pytest.approx(t**2)


def test_neither_the_scale_of_the_residuals_nor_that_of_the_images_matters() -> None:
    values = residuals(1)
    expected = binned_chi_square(values, np.full(16, 1), RADIUS, 8.0)
    assert binned_chi_square(1e-20 * values, np.full(16, 7), RADIUS, 8.0) == pytest.approx(expected)


def test_a_residual_in_the_core_is_seen() -> None:
    assert binned_chi_square(residuals(2) + (RADIUS < 2), np.full(16, 4), RADIUS, 8.0) > 10


@pytest.mark.parametrize("groups", [1, 16])
def test_it_is_none_where_the_covariance_is_undetermined(groups: int) -> None:
    assert binned_chi_square(np.ones((groups, 21, 21)), np.full(groups, 1), RADIUS, 8.0) is None


def test_bins_that_hold_no_pixel_are_left_out() -> None:
    far = RADIUS + 3.0  # nothing in the first of the inner bins
    assert BINS == 6
    assert binned_chi_square(residuals(3), np.full(16, 4), far, 10.0) is not None


def test_bins_in_which_all_groups_agree_are_left_out() -> None:
    values = residuals(4)
    values[:, RADIUS > 7] = 0.1  # the last bin begins at 8
    within = binned_chi_square(values, np.full(16, 4), RADIUS, 8.0)
    assert within is not None
    assert binned_chi_square(values + (RADIUS > 8), np.full(16, 4), RADIUS, 8.0) == pytest.approx(within)
