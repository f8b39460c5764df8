"""Jackknife errors against closed forms, and their coverage on simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from erflab.analysis.jackknife import (
    Estimate,
    GroupedMap,
    delete_group,
    effective_images,
    jackknife,
    largest_share,
)
from erflab.errors import MeasurementError


def grouped(groups: np.ndarray, images: list[int]) -> GroupedMap:
    """Groups [G, y, x] of sums."""
    count = sum(images)
    mean = xr.DataArray(
        groups.sum(0) / count,
        {"y": np.arange(groups.shape[1]) - 1.0, "x": np.arange(groups.shape[2]) - 1.0},
        ("y", "x"),
    )
    return GroupedMap(mean, groups, np.array(images))


def test_the_error_of_a_mean_of_equal_groups_is_the_textbook_one() -> None:
    values = np.array([1.0, 4.0, 2.0, 7.0])
    replicates = (values.sum() - values) / 3
    estimate, error = delete_group(values.mean(), replicates, np.ones(4, int))
    assert estimate == pytest.approx(values.mean())  # a mean has no bias
    assert error == pytest.approx(values.std(ddof=1) / 2)


def test_the_correction_takes_the_bias_of_a_variance_away() -> None:
    values = np.random.default_rng(0).normal(size=12)
    replicates = np.array([np.delete(values, j).var() for j in range(12)])
    estimate, _ = delete_group(values.var(), replicates, np.ones(12, int))
    assert estimate == pytest.approx(values.var(ddof=1))  # exact for a quadratic statistic (Quenouille 1956)


@given(st.lists(st.integers(1, 6), min_size=2, max_size=8), st.integers(0, 2**31))
def test_a_mean_over_unequal_groups_keeps_its_value(images: list[int], seed: int) -> None:
    groups = [np.random.default_rng([seed, j]).normal(size=m) for j, m in enumerate(images)]
    every = np.concatenate(groups)
    replicates = np.array(
        [np.concatenate([g for k, g in enumerate(groups) if k != j]).mean() for j in range(len(groups))]
    )
    estimate, error = delete_group(every.mean(), replicates, np.array(images))
    assert estimate == pytest.approx(every.mean(), abs=1e-9)
    h = sum(images) / np.array(images)
    means = np.array([g.mean() for g in groups])
    assert error == pytest.approx(np.sqrt(np.mean((means - every.mean()) ** 2 / (h - 1))))


def test_the_error_of_every_pixel_is_that_of_its_mean() -> None:
    sums = np.random.default_rng(1).random((5, 3, 3))
    found = grouped(sums, [1] * 5).standard_error
    assert found is not None
    np.testing.assert_allclose(found.values, sums.std(0, ddof=1) / np.sqrt(5))
    assert grouped(sums[:1], [1]).standard_error is None


def test_empty_groups_are_left_out() -> None:
    sums = np.random.default_rng(2).random((4, 3, 3))
    sums[2] = 0
    assert len(grouped(sums, [1, 2, 0, 1])) == 3


def test_the_interval_is_a_t_interval_about_the_value() -> None:
    sums = np.random.default_rng(3).random((2, 3, 3))
    found = jackknife(lambda m: {"sum": float(m.sum())}, grouped(sums, [1, 1]))["sum"]
    assert found.interval is not None
    assert found.standard_error is not None
    # Two groups leave one degree of freedom, whose 97.5 % quantile is 12.7062.
    assert found.interval[1] - found.value == pytest.approx(12.7062 * found.standard_error, rel=1e-4)


def test_angles_are_compared_on_their_circle() -> None:
    angles = iter([1.5, -1.5, 1.5, -1.5, 1.5])  # half a turn apart, less 0.14
    found = jackknife(
        lambda m: {"angle": next(angles)}, grouped(np.ones((4, 3, 3)), [1] * 4), periods={"angle": np.pi}
    )["angle"]
    assert found.standard_error is not None
    assert found.standard_error < 0.3


def test_a_number_that_a_replicate_lacks_has_no_error() -> None:
    values = iter([2.0, 1.0, None, 3.0])
    found = jackknife(lambda m: {"x": next(values)}, grouped(np.ones((3, 3, 3)), [1] * 3))
    assert found["x"] == Estimate(2.0)


def test_a_replicate_without_numbers_costs_the_errors_only() -> None:
    def statistics(map: xr.DataArray) -> dict[str, float]:
        if float(map.sum()) == 0:
            raise MeasurementError("zero")
        return {"sum": float(map.sum())}

    sums = np.stack([np.ones((3, 3)), np.zeros((3, 3))])  # one group alone carries the map
    assert jackknife(statistics, grouped(sums, [1, 1]))["sum"] == Estimate(4.5)
    assert jackknife(statistics, grouped(sums[:1], [1]))["sum"] == Estimate(9.0)


def test_a_group_that_holds_a_whole_pixel_leaves_zero_not_less() -> None:
    sums = np.zeros((2, 3, 3), np.float32)
    sums[0, 0, 0] = 1 / 3
    mean = xr.DataArray(sums.astype(np.float64).sum(0) / 2 * (1 - 1e-7), {"y": range(3), "x": range(3)}, ("y", "x"))
    assert all(float(m.min()) >= 0 for m in GroupedMap(mean, sums, np.array([1, 1])).replicates())


def test_effective_images() -> None:
    assert effective_images(np.ones(7)) == pytest.approx(7)
    assert effective_images(np.array([1.0, 0, 0])) == 1
    assert effective_images(np.zeros(3)) == 0


def test_the_largest_share_of_one_image() -> None:
    assert largest_share(np.array([1.0, 3.0, 1.0])) == pytest.approx(0.6)
    assert largest_share(np.zeros(3)) == 0


def test_several_maps_leave_out_the_same_group() -> None:
    """The ratio of two maps that differ by a factor is that factor in every replicate."""
    sums = np.random.default_rng(4).random((5, 3, 3))
    found = jackknife(
        lambda a, b: {"ratio": float(a.sum() / b.sum())}, grouped(3 * sums, [1] * 5), grouped(sums, [1] * 5)
    )["ratio"]
    assert found.value == pytest.approx(3)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_replicates_are_averaged_and_their_scatter_is_the_error() -> None:
    grid = {"y": [0.0, 1.0], "x": [0.0, 1.0]}
    maps = [xr.DataArray([[1.0, 2], [3, value]], grid, ("y", "x")) for value in (4.0, 6.0, 11.0)]
    found = GroupedMap.of_replicates(maps)
    assert found.mean.values.tolist() == [[1, 2], [3, 7]]
    estimate = jackknife(lambda map: {"corner": float(map[1, 1])}, found)["corner"]
    assert estimate.standard_error == pytest.approx(np.std([4, 6, 11], ddof=1) / np.sqrt(3))
    with pytest.raises(MeasurementError, match="there is no map to average; give at least one"):
        GroupedMap.of_replicates([])
    with pytest.raises(MeasurementError, match="the two maps lie on different grids"):
        GroupedMap.of_replicates([maps[0], maps[1].assign_coords(x=[0.0, 2.0])])
