"""The spectrum of a map: a Gaussian's closed form, a lattice's peaks, and what a checkerboard is worth."""

import math

import numpy as np
import pytest
import xarray as xr

from erflab.analysis.spectrum import checkerboard, power_spectrum
from erflab.errors import ConfigError


def map_of(values: np.ndarray) -> xr.DataArray:
    places = np.arange(values.shape[0]) - values.shape[0] // 2
    return xr.DataArray(values, coords={"y": places, "x": places}, dims=("y", "x"))


def gaussian(sigma: float, side: int = 64) -> np.ndarray:
    squares = (np.arange(side) - side // 2) ** 2
    return np.exp(-(squares[:, None] + squares) / 2 / sigma**2)


def test_the_spectrum_of_a_gaussian_is_a_gaussian():
    power = power_spectrum(map_of(gaussian(3.0)))
    assert float(power.max()) == pytest.approx(1)
    f = np.hypot(power["fy"], power["fx"])
    expected = np.exp(-((2 * math.pi * f * 3.0) ** 2))
    np.testing.assert_allclose(power.values, expected.values, atol=1e-7)


def test_every_second_pixel_is_a_peak_as_high_as_the_one_at_zero():
    board = gaussian(6.0)
    board[1::2] = 0
    power = power_spectrum(map_of(board))
    assert float(power.sel(fy=-0.5, fx=0)) == pytest.approx(1)
    assert float(power.sel(fy=0, fx=-0.5)) < 1e-10


@pytest.mark.parametrize("period", [2, 3, 4])
def test_a_lattice_is_a_checkerboard_of_one_and_a_wide_bell_of_none(period):
    bell = gaussian(6.0)
    assert checkerboard(map_of(bell), period) < 1e-6
    lattice = np.zeros_like(bell)
    lattice[::period, ::period] = bell[::period, ::period]
    assert checkerboard(map_of(lattice), period) == pytest.approx(1)
    assert checkerboard(map_of(lattice + bell), period) == pytest.approx(
        lattice.sum() / (lattice + bell).sum(), rel=1e-6
    )


def test_a_period_below_two_is_refused():
    with pytest.raises(ConfigError, match="period is 1; give at least 2 px"):
        checkerboard(map_of(gaussian(2.0)), 1)
