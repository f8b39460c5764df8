"""All sizes at once: errors of every number, their coverage, units, and what has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from known_maps import as_map, gaussian_map, offsets

from erflab.analysis import GroupedMap, Quantity, contribution_area, jackknife, measure_sizes
from erflab.analysis.sizes import AREAS, LENGTHS

BOX = (-15.0, 15.0, -15.0, 15.0)


def sample(seed: int, groups: int = 12, images: int = 2) -> GroupedMap:
    """Groups of noisy images of one elliptical Gaussian on a floor."""
    known = gaussian_map(4.0, 15, minor=3.0, theta=0.5) + 0.01
    rng = np.random.default_rng(seed)
    weight = rng.lognormal(0, 0.3, (groups, images, 1, 1))
    sums = (weight * known.values * rng.lognormal(0, 0.4, (groups, images, 31, 31))).sum(1)
    return GroupedMap(known.copy(data=sums.sum(0) / (groups * images)), sums, np.full(groups, images))


@pytest.fixture(scope="module")
def quantities() -> dict[str, Quantity]:
    grouped = sample(0)
    variance = grouped.standard_error**2
    return measure_sizes(
        grouped, variance=variance, box=BOX, trf_size=(31, 31), input_size=(64, 32), replknet=True
    ).quantities


def test_every_number_has_an_error_and_an_interval_about_it(quantities) -> None:
    without = {name for name, q in quantities.items() if q.standard_error is None}
    # The published squares end before the border, where this map's floor still is.
    assert without == {"fit_binned_chi_square", "replknet_area_ratio_0.99"}
    for quantity in quantities.values():
        if quantity.interval is not None:
            low, high = quantity.interval
            assert low <= quantity.value <= high
            # 12 groups leave 11 degrees of freedom, whose 97.5 % quantile is 2.201.
            assert high - low == pytest.approx(2 * 2.201 * quantity.standard_error, rel=1e-3, abs=1e-15)


def test_ratios_are_those_of_the_sizes(quantities) -> None:
    value = {name: q.value for name, q in quantities.items()}
    for name in LENGTHS:
        assert value[f"{name}_over_trf"] == pytest.approx(value[name] / 31)
    for name in AREAS:
        assert value[f"{name}_over_trf"] == pytest.approx(value[name] / 31**2)
        assert value[f"{name}_over_image"] == pytest.approx(value[name] / (64 * 32))
    assert value["square_0.9_over_image"] == pytest.approx(value["square_0.9"] ** 2 / (64 * 32))
    assert quantities["sigma_over_trf"].standard_error == pytest.approx(quantities["sigma"].standard_error / 31)


def test_units(quantities) -> None:
    of = {name: q.unit for name, q in quantities.items()}
    assert (
        {of[name] for name in LENGTHS}
        == {of["fit_center_y"], of["fit_half_width"], of["radius_0.9_above_floor"]}
        == {"px"}
    )
    assert {of[name] for name in AREAS} == {of["area_0.5_above_floor"]} == {"px^2"}
    assert of["orientation"] == of["fit_theta"] == "rad"
    assert of["fit_floor"] == of["fit_amplitude"] == "map"
    assert of["anisotropy"] == of["floor_share"] == of["sigma_over_trf"] == of["square_0.5_over_image"] == "1"


def test_the_errors_are_the_scatter_of_repeated_measurements() -> None:
    """The mean squared error estimate is the variance over 16 repetitions, whose own relative error is 0.37."""
    found = [measure_sizes(sample(seed, groups=6)).quantities for seed in range(16)]
    for name in (
        "sigma",
        "radius_0.5",
        "square_0.9",
        "area_0.9",
        "entropy_area",
        "fit_sigma",
        "fit_theta",
        "fit_floor",
    ):
        scatter = np.var([f[name].value for f in found], ddof=1)
        estimated = np.mean([f[name].standard_error ** 2 for f in found])
        assert 1 / 3 < estimated / scatter < 3, name


def test_areas_are_corrected_for_their_bias() -> None:
    grouped = sample(3)
    raw = contribution_area(grouped.mean, 0.5)
    estimate = jackknife(lambda m: {"a": contribution_area(m, 0.5)}, grouped, corrected=["a"])["a"]
    found = measure_sizes(grouped).quantities["area_0.5"]
    assert found.value == pytest.approx(estimate.value)
    assert found.value > raw  # noise had shrunk it


def test_a_plain_map_has_numbers_without_errors() -> None:
    found = measure_sizes(gaussian_map(5.0, 30)).quantities
    assert found["sigma"].value == pytest.approx(5, rel=1e-6)
    assert found["fit_sigma"].value == pytest.approx(5, rel=1e-6)
    assert all(q.standard_error is None and q.interval is None for q in found.values())


def test_what_is_not_known_is_none() -> None:
    found = measure_sizes(sample(1), trf_size=(math.inf, 31)).quantities
    for name in ("share_outside_trf", "sigma_over_trf", "area_0.5_over_image"):
        assert found[name].value is None
        assert found[name].standard_error is None


def test_what_the_fit_held_fixed_has_no_error() -> None:
    found = measure_sizes(sample(2), elliptical=False, floor=False).quantities
    assert found["fit_theta"] == Quantity(0.0, "rad")
    assert found["fit_floor"] == Quantity(0.0, "map")
    assert found["fit_sigma"].standard_error > 0


def test_large_maps_are_fitted_on_blocks_and_keep_their_size() -> None:
    axis = offsets(150)
    map = as_map(gaussian_map(6.0, 150, minor=5.0, theta=0.3).values, axis, axis)
    found = measure_sizes(map).quantities
    assert found["fit_sigma_major"].value == pytest.approx(6, rel=1e-3)
    assert found["fit_theta"].value == pytest.approx(0.3, abs=1e-3)
