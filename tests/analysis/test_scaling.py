"""Growth laws against closed forms, the exact uniform stack, and other libraries' fits."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from erflab.analysis import luo_size, moments
from erflab.analysis.jackknife import Estimate
from erflab.analysis.scaling import (
    Coefficient,
    fit_linear,
    fit_power_law,
    quotient,
    replicate_mean,
    replicate_means,
    uniform_variance,
)
from erflab.errors import MeasurementError

DEPTHS = np.arange(5, 41)


def uniform_field(layers: int, kernel: int = 3, dilation: int = 1) -> xr.DataArray:
    """The exact field of a uniform stack: its kernel convolved with itself, which is separable."""
    tap = np.zeros((kernel - 1) * dilation + 1)
    tap[::dilation] = 1 / kernel
    along = np.ones(1)
    for _ in range(layers):
        along = np.convolve(along, tap)
    offsets = np.arange(len(along)) - (len(along) - 1) / 2
    return xr.DataArray(np.outer(along, along), coords={"y": offsets, "x": offsets}, dims=("y", "x"))


@pytest.mark.parametrize(("layers", "kernel", "dilation"), [(5, 3, 1), (40, 3, 1), (4, 2, 1), (7, 5, 1), (6, 3, 4)])
def test_the_variance_of_a_uniform_stack(layers, kernel, dilation):
    field = uniform_field(layers, kernel, dilation)
    assert moments(field).sigma ** 2 == pytest.approx(uniform_variance(layers, kernel, dilation), rel=1e-12)


def test_the_variance_of_a_uniform_stack_is_linear_in_depth():
    law = fit_linear(DEPTHS, [moments(uniform_field(n)).sigma ** 2 for n in DEPTHS])
    assert law.slope.value == pytest.approx((3**2 - 1) / 12, rel=1e-12)
    assert law.intercept.value == pytest.approx(0, abs=1e-10)


def test_the_finite_exponents_of_the_size_of_luo_et_al():
    # Of the size as the paper counts it, in whole pixels, over every depth; sigma itself has 0.5 at any depth (below).
    sizes = np.array([luo_size(uniform_field(n)) for n in DEPTHS])
    assert fit_power_law(DEPTHS, sizes).exponent.value == pytest.approx(0.489, abs=5e-4)
    assert fit_power_law(DEPTHS, sizes / (2 * DEPTHS + 1)).exponent.value == pytest.approx(-0.477, abs=5e-4)


def test_sigma_grows_with_the_root_of_depth_with_kernel_and_with_dilation():
    def exponent(values, sigma):
        return fit_power_law(values, sigma).exponent.value

    assert exponent(DEPTHS, [moments(uniform_field(n)).sigma for n in DEPTHS]) == pytest.approx(0.5)
    dilations = [1, 2, 3, 5]
    assert exponent(dilations, [moments(uniform_field(4, 3, d)).sigma for d in dilations]) == pytest.approx(1)
    kernels = np.array([51, 71, 101])  # sqrt(k^2 - 1) is k in the limit
    assert exponent(kernels, [moments(uniform_field(2, k)).sigma for k in kernels]) == pytest.approx(1, abs=5e-4)


def scattered(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = np.arange(1.0, 9)
    return x, 3 * x + 2 + random.normal(size=8), random.uniform(0.5, 2, size=8)


def test_equal_weights_agree_with_linregress():
    x, y, _ = scattered()
    law, known = fit_linear(x, y), stats.linregress(x, y)
    assert (law.slope.value, law.intercept.value) == pytest.approx((known.slope, known.intercept))
    assert (law.slope.standard_error, law.intercept.standard_error) == pytest.approx(
        (known.stderr, known.intercept_stderr)
    )
    reach = stats.t.ppf(0.975, 6) * known.stderr
    assert law.slope.interval == pytest.approx((known.slope - reach, known.slope + reach))


def test_errors_weigh_the_points_as_in_polyfit():
    x, y, errors = scattered()
    law = fit_linear(x, y, errors)
    line, covariance = np.polyfit(x, y, 1, w=1 / errors, cov=True)
    assert (law.slope.value, law.intercept.value) == pytest.approx(tuple(line))
    assert law.intercept.standard_error == pytest.approx(np.sqrt(covariance[1, 1]))
    larger = fit_linear(x, y, 10 * errors)
    assert larger.slope.interval == pytest.approx(law.slope.interval)  # only their ratios count


def test_replicates_give_the_t_interval_of_their_own_lines():
    seeds = [fit_linear(*scattered(seed)[:2]).slope.value for seed in range(5)]
    x, y = (np.concatenate([scattered(seed)[i] for seed in range(5)]) for i in (0, 1))
    law = fit_linear(x, y, replicates=np.repeat(range(5), 8).tolist())
    known = stats.ttest_1samp(seeds, 0).confidence_interval(0.95)
    assert law.slope.value == pytest.approx(np.mean(seeds))
    assert law.slope.interval == pytest.approx((known.low, known.high))


def test_what_a_replicate_shares_widens_the_interval():
    x, y, _ = scattered()
    tilt = np.array([-1.0, 0, 1])
    labels = np.repeat(["a", "b", "c"], len(x)).tolist()
    points = np.tile(x, 3), np.concatenate([y + slope * x for slope in tilt])
    shared, ignored = fit_linear(*points, replicates=labels), fit_linear(*points)
    assert shared.slope.standard_error == pytest.approx(1 / np.sqrt(3))
    assert np.ptp(shared.slope.interval) > 3 * np.ptp(ignored.slope.interval)


@given(st.floats(-3, 3), st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_power_law_is_found_whatever_the_units(exponent, amplitude, unit):
    x = np.array([1.0, 2, 4, 7, 11])
    law = fit_power_law(x, amplitude * (x * unit) ** exponent, errors=[1, 2, 1, 3, 1])
    assert law.exponent.value == pytest.approx(exponent, abs=1e-9)
    assert law.amplitude.value == pytest.approx(amplitude * unit**exponent, rel=1e-8)
    assert law.at(x * 2) == pytest.approx(amplitude * (x * 2 * unit) ** exponent, rel=1e-8)


def test_the_errors_of_a_power_law_are_relative_in_the_logarithm():
    x, y, errors = scattered()
    law = fit_power_law(x, y, errors)
    line, covariance = np.polyfit(np.log(x), np.log(y), 1, w=y / errors, cov=True)
    assert law.exponent.value == pytest.approx(line[0])
    assert law.exponent.standard_error == pytest.approx(np.sqrt(covariance[0, 0]))
    assert law.amplitude.value == pytest.approx(np.exp(line[1]))
    reach = stats.t.ppf(0.975, 6) * np.sqrt(covariance[1, 1])
    assert law.amplitude.interval == pytest.approx(tuple(np.exp([line[1] - reach, line[1] + reach])))
    assert law.amplitude.standard_error == pytest.approx(np.exp(line[1]) * np.sqrt(covariance[1, 1]))


@pytest.mark.parametrize("replicates", [None, ["seed 0"] * 2])
def test_two_points_or_one_replicate_give_no_interval(replicates):
    for law in (
        fit_linear([1, 2], [3, 5], replicates=replicates),
        fit_power_law([1, 2], [3, 12], replicates=replicates),
    ):
        for found in vars(law).values():
            assert found.standard_error is None
            assert found.interval is None
            assert not found.covers(found.value)
    assert law.exponent.value == pytest.approx(2)


def test_the_line_at_a_depth():
    assert fit_linear([1, 2], [3, 5]).at(np.array([4.0])) == pytest.approx([9])


def test_an_interval_covers_its_ends_and_not_beyond():
    found = Coefficient(1.0, 0.5, (0.0, 2.0))
    assert [found.covers(v) for v in (-0.1, 0.0, 2.0, 2.1)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": [1, 2, 3], "y": [1, 2]}, r"x has the shape \(3,\) and y \(2,\); give one x and one y"),
        ({"x": [[1, 2]], "y": [[1, 2]]}, r"x has the shape \(1, 2\)"),
        ({"x": [1, 2], "y": [1, np.nan]}, "x and y must be finite; point 1 has nan at x = 2: leave it out"),
        ({"errors": [1.0]}, r"errors has the shape \(1,\) and x \(3,\); give one error"),
        ({"errors": [1, 0, 1]}, "errors must be positive and finite; point 1 has 0 at x = 2"),
        ({"errors": [1, np.inf, 1]}, "errors must be positive and finite; point 1 has inf"),
        ({"replicates": [0, 0]}, "there are 2 replicates for 3 points; give one label a point"),
        ({"replicates": ["a", "a", "b"]}, "the points of replicate 'b' have 1 different x; a slope needs"),
        ({"x": [], "y": []}, "the points have 0 different x"),
        ({"x": [2, 2, 2]}, "the points have 1 different x; a slope needs at least two: sweep"),
    ],
)
def test_points_without_a_line_are_refused(arguments, message):
    points = {"x": [1, 2, 3], "y": [1, 2, 4], **arguments}
    for fit in (fit_linear, fit_power_law):
        with pytest.raises(MeasurementError, match=message):
            fit(**points)


@pytest.mark.parametrize(
    ("x", "y", "place"), [([1, 2], [3, 0], "point 1 has 0 at x = 2"), ([-1, 2], [3, 4], "point 0 has 3")]
)
def test_a_power_law_needs_positive_points(x, y, place):
    with pytest.raises(MeasurementError, match=f"a power law needs positive x and y; {place}"):
        fit_power_law(x, y)


def test_replicate_means_have_t_intervals_of_their_own():
    x, y = np.array([10.0, 5, 5, 5]), np.array([7.0, 1, 2, 6])
    places, means, reach = replicate_means(x, y)
    known = stats.ttest_1samp([1, 2, 6], 0).confidence_interval(0.95)
    assert (places.tolist(), means.tolist()) == ([5, 10], [3, 7])
    assert reach[0] == pytest.approx((known.high - known.low) / 2)
    assert np.isnan(reach[1])


@pytest.mark.parametrize(
    ("coefficient", "words"),
    [
        (Coefficient(2 / 3, 0.01, (0.6559, 0.6774)), "0.667 [0.656, 0.677]"),
        (Coefficient(-1e-15), "0.000"),
        (Coefficient(-0.4772), "-0.477"),
    ],
)
def test_a_coefficient_in_words(coefficient, words):
    assert str(coefficient) == words


def test_a_mean_over_replicates_has_the_t_interval_of_its_values():
    mean = replicate_mean([1.0, 2.0, 3.0])
    assert (mean.value, mean.standard_error) == pytest.approx((2, 1 / math.sqrt(3)))
    assert mean.interval == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), rel=1e-4)
    assert replicate_mean([4.0]).interval is None


def test_a_quotient_has_the_error_of_the_delta_method():
    found = quotient(Coefficient(4.0, 0.3), Coefficient(8.0, 0.4), freedom=5)
    assert found.value == 0.5
    assert found.standard_error == pytest.approx(0.5 * math.hypot(0.3 / 4, 0.4 / 8))
    assert not found.below(0.5)
    assert found.below(1)
    assert found.above(0.1)
    assert not found.above(0.5)
    assert found.within(0.1, 1)
    assert not found.within(0.5, 1)
    assert not found.within(0.1, 0.5)
    above = Coefficient(found.value + 2, None, (found.interval[1] + 0.1, found.interval[1] + 4))
    assert found.below(above)
    assert above.above(found)
    touching = Coefficient(above.value, None, (found.interval[1], above.interval[1]))
    assert not found.below(touching)
    assert not touching.above(found)
    assert not found.below(Coefficient(9.0))  # without an interval nothing is told
    assert not Coefficient(9.0).above(found)
    assert quotient(Coefficient(4.0), Coefficient(8.0, 0.4), freedom=5) == Coefficient(0.5)
    with pytest.raises(MeasurementError, match="a quotient needs two numbers"):
        quotient(Estimate(None), Coefficient(1.0), freedom=1)
