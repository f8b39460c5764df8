"""Densities, radial profiles and sections against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from erflab.analysis import as_density, radial_profile, section, spacing
from erflab.errors import ConfigError, ErflabError, MeasurementError


def test_density_sums_to_one_and_keeps_the_grid(gaussian):
    map = gaussian(8.0, 40.5).transpose("x", "y")
    density = as_density(map * 1e-30)
    assert density.dims == ("y", "x")
    assert density.dtype == np.float64
    assert float(density.sum()) == pytest.approx(1, abs=1e-14)
    xr.testing.assert_allclose(density, as_density(map * 1e30), rtol=1e-14)


def test_density_survives_values_whose_sum_overflows(make_map):
    assert float(as_density(make_map(np.full((4, 4), 1e308))).sum()) == pytest.approx(1)


def test_spacing_is_positive_on_a_flipped_axis(make_map):
    map = make_map(np.ones((3, 4)), y=np.array([8.0, 4.0, 0.0]), x=np.arange(4) * 2.0)
    assert spacing(map) == (4.0, 2.0)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda m: m.rename(y="row"), r"dims \('row', 'x'\); give a DataArray with dims \(\"y\", \"x\"\)"),
        (lambda m: m.expand_dims("image"), r"the map has dims \('image', 'y', 'x'\)"),
        (lambda m: m.drop_vars("y"), "no coordinate 'y'; give offsets in px"),
        (lambda m: m.isel(x=[0]), "1 px along x; give at least 2"),
        (lambda m: m.isel(y=[0, 1, 3]), "'y' is not evenly spaced .steps from 1 to 2 px.; interpolate"),
        (lambda m: m.assign_coords(x=[0.0, 1.0, np.nan, 3.0]), "'x' is not evenly spaced"),
        (lambda m: m.assign_coords(x=np.zeros(4)), "'x' is not evenly spaced .steps from 0 to 0 px"),
        (lambda m: m.where(m.x > 0), "8 non-finite values of 16; measure it again in float64"),
        (
            lambda m: m - 3,
            r"negative values \(the least is -2\), as the signed magnitude has; measure magnitude=energy",
        ),
        (lambda m: m * 0, "zero everywhere: a dead unit, or half-precision underflow; choose another unit"),
    ],
)
def test_what_is_no_density_is_refused_in_words(make_map, broken, words):
    with pytest.raises(MeasurementError, match=words) as caught:
        as_density(broken(make_map(np.ones((4, 4)))))
    assert isinstance(caught.value, ErflabError)


def test_radial_profile_of_a_small_map_by_hand(make_map):
    map = make_map([[1, 2, 1], [2, 9, 2], [1, 2, 1]])
    profile = radial_profile(map, variance=map * 2)
    np.testing.assert_allclose(profile.edges, [0, 0.5, 1.5])
    np.testing.assert_array_equal(profile.count, [1, 8])
    np.testing.assert_allclose(profile.radius, [0, (1 + np.sqrt(2)) / 2])
    np.testing.assert_allclose(profile.mean, [9, 1.5])
    np.testing.assert_allclose(profile.variance, [18, 3])
    np.testing.assert_allclose(profile.share, [9 / 21, 1])
    assert profile.total == 21


def test_radial_profile_between_four_samples_begins_with_all_four(make_map):
    profile = radial_profile(make_map(np.ones((4, 4))))
    assert profile.count[0] == 4
    assert profile.count.sum() == 16
    assert profile.variance is None


@pytest.mark.parametrize(("half", "step"), [(60, 1.0), (60.5, 1.0), (60, 4.0), (58, 4.0)])
def test_radial_profile_follows_a_gaussian(gaussian, half, step):
    profile = radial_profile(gaussian(12.0, half, step))
    np.testing.assert_allclose(profile.mean, np.exp(-(profile.radius**2) / 288), atol=5e-3 * step)
    assert profile.share[-1] == pytest.approx(1)


def test_empty_rings_are_nan_and_pixels_beyond_the_edges_are_left_out(make_map):
    profile = radial_profile(make_map(np.ones((5, 5))), edges=[0, 0.2, 0.8, 1.2])
    np.testing.assert_array_equal(profile.count, [1, 0, 4])
    np.testing.assert_array_equal(profile.mean, [1, np.nan, 1])
    np.testing.assert_allclose(profile.radius, [0, 0.5, 1])
    np.testing.assert_allclose(profile.share, [1 / 25, 1 / 25, 5 / 25])


def test_signed_maps_have_profiles(make_map):
    np.testing.assert_allclose(radial_profile(make_map(-np.ones((3, 3)))).mean, [-1, -1])


@pytest.mark.parametrize("edges", [[1.0], [0.0, 2.0, 2.0], [[0.0, 1.0]]])
def test_edges_must_increase(make_map, edges):
    with pytest.raises(ConfigError, match=r"edges is .*; give at least two increasing radii in px"):
        radial_profile(make_map(np.ones((3, 3))), edges=edges)


def test_variance_must_share_the_grid(make_map):
    with pytest.raises(MeasurementError, match=r"different grids .*'y': 5.* against .*'y': 3.*same y and x"):
        radial_profile(make_map(np.ones((3, 3))), variance=make_map(np.ones((5, 5))))


def test_section_takes_the_row_on_the_centre_or_the_two_beside_it(make_map):
    np.testing.assert_array_equal(section(make_map(np.arange(9).reshape(3, 3))), [3, 4, 5])
    np.testing.assert_array_equal(section(make_map(np.arange(9).reshape(3, 3)), "y"), [1, 4, 7])
    np.testing.assert_array_equal(section(make_map(np.arange(16).reshape(4, 4))), [6, 7, 8, 9])


def test_section_of_a_wider_strip(make_map):
    cut = section(make_map(np.arange(25).reshape(5, 5)), width=3.0)
    np.testing.assert_array_equal(cut, [10, 11, 12, 13, 14])
    np.testing.assert_array_equal(cut["x"], [-2, -1, 0, 1, 2])


def test_section_of_a_coarse_map_between_rows(make_map):
    map = make_map(np.arange(16).reshape(4, 4), y=np.array([-6.0, -2.0, 2.0, 6.0]))
    np.testing.assert_array_equal(section(map), [6, 7, 8, 9])


def test_section_refuses_other_axes_and_widths(make_map):
    with pytest.raises(ConfigError, match="axis is 'z'; choose 'y' or 'x'"):
        section(make_map(np.ones((3, 3))), "z")
    with pytest.raises(ConfigError, match="width is 0; give a positive width in px"):
        section(make_map(np.ones((3, 3))), width=0)
