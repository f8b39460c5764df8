"""Curves of a map with errors: against the map itself, a closed form, and the standard error of a mean."""

import math

import numpy as np
import pytest
import xarray as xr

from erflab.analysis import GroupedMap
from erflab.analysis.curves import encircled_curve, radial_curve, section_curve

SIGMA = 5.0


def gaussian(half: float = 30) -> xr.DataArray:
    places = np.arange(-half, half + 1)
    values = np.exp(-(places[:, None] ** 2 + places**2) / 2 / SIGMA**2)
    return xr.DataArray(values, coords={"y": places, "x": places}, dims=("y", "x"))


def scaled(factors: list[float]) -> GroupedMap:
    """Groups of one image each, whose maps differ by a factor alone."""
    map = gaussian()
    sums = np.array(factors)[:, None, None] * map.values
    return GroupedMap(map * np.mean(factors), sums, np.ones(len(factors), int))


def test_a_section_has_the_standard_error_of_a_mean_at_every_point():
    factors = [0.5, 1.0, 1.5, 2.0]
    curve = section_curve(scaled(factors))
    shape = gaussian().sel(y=0).values
    np.testing.assert_allclose(curve.y, 1.25 * shape)
    np.testing.assert_allclose(curve.standard_error, np.std(factors, ddof=1) / 2 * shape)
    relative = curve.relative_to(1.25)
    np.testing.assert_allclose(relative.y, shape)
    np.testing.assert_allclose(relative.standard_error, curve.standard_error / 1.25)


def test_shares_do_not_depend_on_the_scale_of_the_groups():
    curve = encircled_curve(scaled([0.5, 1.0, 1.5]))
    assert curve.standard_error is not None
    assert curve.standard_error.max() < 1e-12
    # A Gaussian holds 1 - exp(-r^2 / 2 sigma^2); pixels and the smooth edge of the disc cost a little.
    expected = 1 - np.exp(-(curve.x**2) / 2 / SIGMA**2)
    np.testing.assert_allclose(curve.y, expected, atol=5e-3)


def test_a_radial_curve_follows_the_map_and_leaves_empty_rings_out():
    curve = radial_curve(GroupedMap.without_groups(gaussian()))
    assert curve.standard_error is None
    near = curve.x < 3 * SIGMA
    np.testing.assert_allclose(curve.y[near], np.exp(-(curve.x[near] ** 2) / 2 / SIGMA**2), rtol=0.02)
    assert curve.y[0] == pytest.approx(1)
    strip = gaussian().isel(y=slice(5, 7))  # far from the centre: no pixel in the first rings
    found = radial_curve(GroupedMap.without_groups(strip))
    assert np.isfinite(found.y).all()
    assert found.x.min() > 20
    assert not math.isnan(found.y.max())
