"""Sizes against closed forms: a wide Gaussian, a uniform square, a single pixel; and their algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from known_maps import as_map, offsets
from scipy.special import erfinv

from erflab.analysis import (
    contribution_area,
    contribution_square,
    encircled_energy,
    entropy_area,
    luo_size,
    moments,
    participation_area,
    radius_at,
    ranked_area,
    share_outside,
)
from erflab.errors import ConfigError, MeasurementError

SHARES = [0.5, 0.9, 0.9545, 0.99]
# (sigma, half extent, spacing): on the centre, between samples, wide, and an occlusion map of either kind
GRIDS = [(8.0, 60, 1.0), (8.0, 60.5, 1.0), (20.0, 140, 1.0), (40.0, 280, 4.0), (40.0, 282, 4.0)]
grids = pytest.mark.parametrize(("sigma", "half", "step"), GRIDS)


@grids
def test_moments_of_a_gaussian(gaussian, sigma, half, step):
    found = moments(gaussian(sigma, half, step))
    assert found.sigma == pytest.approx(sigma, rel=1e-9)
    assert found.anisotropy == pytest.approx(1, rel=1e-9)
    assert (found.centroid_y, found.centroid_x) == pytest.approx((0, 0), abs=1e-9)


def test_moments_of_a_tilted_ellipse_off_centre(gaussian):
    found = moments(gaussian(12.0, 100, minor=8.0, theta=0.4, center=(3.0, -5.0)))
    assert (found.centroid_y, found.centroid_x) == pytest.approx((3, -5), abs=1e-9)
    assert found.sigma == pytest.approx(math.sqrt((144 + 64) / 2), rel=1e-9)
    assert found.anisotropy == pytest.approx(1.5, rel=1e-9)
    assert found.orientation == pytest.approx(0.4, abs=1e-9)


@grids
@pytest.mark.parametrize("q", SHARES)
def test_radius_of_a_gaussian(gaussian, sigma, half, step, q):
    # Soft edges widen the truth by about s^2 / (24 sigma^2), the pixels' area integral by as much again.
    exact = sigma * math.sqrt(-2 * math.log(1 - q))
    assert radius_at(gaussian(sigma, half, step), q) == pytest.approx(exact, rel=2e-3)


@grids
@pytest.mark.parametrize("t", SHARES)
def test_contribution_area_of_a_gaussian(gaussian, sigma, half, step, t):
    exact = -2 * math.pi * sigma**2 * math.log(1 - t)
    # Equal values come in fours and eights: the area is exact up to one such group.
    assert contribution_area(gaussian(sigma, half, step), t) == pytest.approx(exact, abs=12 * step**2)


@grids
@pytest.mark.parametrize("t", SHARES)
def test_contribution_square_of_a_gaussian(gaussian, sigma, half, step, t):
    exact = 2 * math.sqrt(2) * sigma * float(erfinv(math.sqrt(t)))
    # A pixel's interval adds s^2 / 12 to sigma^2: 7e-4 at sigma = 8.
    assert contribution_square(gaussian(sigma, half, step), t) == pytest.approx(exact, rel=2e-3)


@grids
def test_luo_size_of_a_gaussian(gaussian, sigma, half, step):
    assert luo_size(gaussian(sigma, half, step)) == pytest.approx(4.406 * sigma, rel=3e-3)


def square(side: int, step: float = 1.0, margin: int = 5):
    axis = offsets((side + 2 * margin - 1) / 2) * step
    values = np.zeros((axis.size, axis.size))
    values[margin:-margin, margin:-margin] = 1
    return as_map(values, axis, axis)


@pytest.mark.parametrize("side", [20, 21])
@pytest.mark.parametrize("step", [1.0, 4.0])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_sizes_of_a_uniform_square(side, step, t):
    map = square(side, step)
    assert contribution_area(map, t) == pytest.approx(t * (side * step) ** 2)
    assert contribution_square(map, t) == pytest.approx(math.sqrt(t) * side * step)
    assert luo_size(map) == pytest.approx(side * step)
    assert moments(map).sigma == pytest.approx(step * math.sqrt((side**2 - 1) / 12))


def test_disc_inside_a_uniform_square():
    # pi R^2 = q N^2 while the disc fits.
    assert radius_at(square(101), 0.5) == pytest.approx(math.sqrt(0.5 / math.pi) * 101, rel=2e-3)


def test_sizes_of_a_single_pixel():
    map = square(1)
    # share(R) = R + 1/2 up to R = 1/2, and half the pixel needs no disc at all.
    assert radius_at(map, 0.9) == pytest.approx(0.4)
    assert radius_at(map, 0.3) == 0
    assert contribution_area(map, 0.5) == pytest.approx(0.5)
    assert contribution_square(map, 0.25) == pytest.approx(0.5)
    assert luo_size(map) == 1
    assert (moments(map).sigma, moments(map).anisotropy) == (0, 1)


def test_radius_of_one_ring_grows_with_the_share(make_map):
    # Four pixels at r = 1: share(R) = R - 1/2.
    map = make_map([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert radius_at(map, 0.25) == pytest.approx(0.75)
    assert radius_at(map, 0.999999) == pytest.approx(1.499999)


def test_square_of_a_map_beside_the_centre_reaches_its_far_side(make_map):
    map = make_map(np.ones((2, 2)), y=np.array([10.0, 11.0]), x=np.array([0.0, 1.0]))
    assert contribution_square(map, 1 - 1e-16) == pytest.approx(23)


def test_share_outside_a_box():
    map = square(4, margin=2)
    assert share_outside(map, (-1.5, 1.5, -1.5, 1.5)) == 0
    assert share_outside(map, (-0.5, 1.5, -1.5, 1.5)) == pytest.approx(1 / 4)
    assert share_outside(map, (-0.5, 0.5, -0.5, 0.5)) == pytest.approx(3 / 4)
    assert share_outside(map, (-math.inf, math.inf, -math.inf, -0.5)) == pytest.approx(1 / 2)
    assert share_outside(map, (-math.inf, math.inf, -math.inf, math.inf)) == 0


@pytest.mark.parametrize("share", [0, 1, -0.5, 50, math.nan])
def test_shares_lie_between_zero_and_one(make_map, share):
    map = make_map(np.ones((3, 3)))
    with pytest.raises(ConfigError, match=f"the share is {share!r}; give a number between 0 and 1, both excluded"):
        radius_at(map, share)
    for size in (contribution_area, contribution_square):
        with pytest.raises(ConfigError, match=f"the share is {share!r}; give"):
            size(map, share)


@pytest.mark.parametrize("box", [(1, 0, 0, 1), (0, 1, math.nan, 1), (0, 1)])
def test_boxes_must_not_be_empty(make_map, box):
    with pytest.raises(ConfigError, match=r"box is \(.*\); give \(y0, y1, x0, x1\) with y0 <= y1 and x0 <= x1"):
        share_outside(make_map(np.ones((3, 3))), box)


SIZES = {
    "radius": lambda m: radius_at(m, 0.6),
    "area": lambda m: contribution_area(m, 0.6),
    "square": lambda m: contribution_square(m, 0.6),
    "luo": luo_size,
    "entropy": entropy_area,
    "participation": participation_area,
    "sigma": lambda m: moments(m).sigma,
    "outside": lambda m: share_outside(m, (-1, 1, -1, 1)),
}
sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())


@sizes
def test_sizes_refuse_signed_maps(make_map, size):
    with pytest.raises(MeasurementError, match="refused where the map has negative values"):
        size(make_map([[1, -1], [1, 1]]))


@st.composite
def maps(draw: st.DrawFn):
    """Small maps on or between the samples, with a positive peak, about their own middle."""
    side = draw(st.integers(2, 7))
    # Whole numbers, so that a scale factor cannot reorder two values that differ by rounding.
    values = draw(arrays.arrays(np.float64, (side, side), elements=st.integers(0, 1000).map(float)))
    values[draw(st.integers(0, side - 1)), draw(st.integers(0, side - 1))] += 1
    return as_map(values, offsets((side - 1) / 2), offsets((side - 1) / 2))


@sizes
@settings(max_examples=40)
@given(map=maps(), power=st.integers(-60, 60))
def test_scale_does_not_matter(size, map, power):
    assert size(map * 2.0**power) == pytest.approx(size(map), rel=1e-9, abs=1e-12)


@sizes
@settings(max_examples=40)
@given(map=maps(), turns=st.integers(0, 3), flipped=st.booleans())
def test_turns_and_flips_do_not_matter(size, map, turns, flipped):
    values = np.rot90(map.values, turns)
    turned = map.copy(data=values[::-1] if flipped else values)
    assert size(turned) == pytest.approx(size(map), rel=1e-9, abs=1e-9)


@settings(max_examples=40)
@given(map=maps(), dy=st.floats(-50, 50), dx=st.floats(-50, 50))
def test_a_shifted_origin_moves_the_centroid_alone(map, dy, dx):
    moved = map.assign_coords(y=map["y"] + dy, x=map["x"] + dx)
    before, after = moments(map), moments(moved)
    assert after.centroid_y == pytest.approx(before.centroid_y + dy, abs=1e-9)
    assert after.centroid_x == pytest.approx(before.centroid_x + dx, abs=1e-9)
    np.testing.assert_allclose(after.covariance, before.covariance, atol=1e-9)
    assert contribution_area(moved, 0.6) == pytest.approx(contribution_area(map, 0.6))
    assert luo_size(moved) == pytest.approx(luo_size(map))
    assert entropy_area(moved) == pytest.approx(entropy_area(map))
    assert participation_area(moved) == pytest.approx(participation_area(map))


@settings(max_examples=40)
@given(map=maps(), step=st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_lengths_scale_with_the_spacing(map, step):
    wider = map.assign_coords(y=map["y"] * step, x=map["x"] * step)
    for size in (SIZES["radius"], SIZES["square"], SIZES["luo"], SIZES["sigma"]):
        assert size(wider) == pytest.approx(step * size(map), rel=1e-9, abs=1e-9)


@settings(max_examples=40)
@given(map=maps(), low=st.floats(0.01, 0.98), gain=st.floats(0.001, 0.01))
def test_a_larger_share_needs_no_smaller_size(map, low, gain):
    for size in (radius_at, contribution_area, contribution_square):
        assert size(map, low + gain) >= size(map, low)


@grids
def test_effective_areas_of_a_gaussian(gaussian, sigma, half, step):
    map = gaussian(sigma, half, step)
    assert entropy_area(map) == pytest.approx(2 * math.pi * math.e * sigma**2, rel=1e-6)
    assert participation_area(map) == pytest.approx(4 * math.pi * sigma**2, rel=1e-6)


@pytest.mark.parametrize("area", [entropy_area, participation_area])
def test_effective_areas_of_a_uniform_square_and_a_single_pixel(area):
    assert area(square(20)) == pytest.approx(400)
    assert area(square(21, step=4.0)) == pytest.approx((21 * 4) ** 2)
    assert area(square(1, step=0.5)) == pytest.approx(0.25)


@settings(max_examples=40)
@given(map=maps(), share=st.floats(0.01, 0.99))
def test_a_curve_holds_the_share_that_it_was_read_at(map, share):
    curve = ranked_area(map)
    assert np.interp(curve.at(share), curve.size, curve.share) == pytest.approx(share)
    radius = encircled_energy(map)
    if radius.at(share) > 0:  # smaller shares than a pixel on the centre holds need no disc
        assert np.interp(radius.at(share), radius.size, radius.share) == pytest.approx(share)


@settings(max_examples=40)
@given(map=maps(), step=st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_areas_scale_with_the_squared_spacing(map, step):
    wider = map.assign_coords(y=map["y"] * step, x=map["x"] * step)
    for area in (SIZES["area"], entropy_area, participation_area):
        assert area(wider) == pytest.approx(step**2 * area(map), rel=1e-9)
