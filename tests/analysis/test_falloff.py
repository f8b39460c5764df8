"""Fits against the truth that made the map, against another library, and under every flag."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_groups import family_map, noisy_groups
from known_maps import gaussian_map
from scipy.optimize import curve_fit

from erflab.analysis import (
    FLAGS,
    LINE_SHAPES,
    Ellipse,
    LineShape,
    RadialProfile,
    ShapeParameter,
    fit_falloff,
    leastsquares,
    radial_profile,
    samples,
)
from erflab.analysis.falloff import fit_samples
from erflab.errors import ConfigError, MeasurementError

TRUTH = {
    "amplitude": 1.0,
    "center_y": 3.0,
    "center_x": -2.0,
    "sigma_major": 12.0,
    "sigma_minor": 7.0,
    "theta": 0.6,
    "floor": 0.1,
}


def tilted(step: float = 1.0, half: float = 50):
    return 0.1 + gaussian_map(12.0, half, step, center=(3.0, -2.0), minor=7.0, theta=0.6)


@pytest.mark.parametrize(("half", "step"), [(50, 1.0), (50.5, 1.0), (52, 4.0), (50, 4.0)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_a_tilted_ellipse_with_a_floor_is_recovered_at_any_scale(half, step, scale):
    fit = fit_falloff(tilted(step, half) * scale)
    expected = TRUTH | {"amplitude": scale, "floor": 0.1 * scale}
    assert fit.parameters == pytest.approx(expected, rel=1e-6)
    assert fit.sigma == pytest.approx(math.sqrt((144 + 49) / 2), rel=1e-6)
    assert fit.r_squared == pytest.approx(1)
    assert fit.success
    assert fit.flags == ()
    assert fit.reduced_chi_square is None


@settings(max_examples=15, deadline=None)
@given(
    st.floats(2, 10),
    st.floats(1.05, 3),
    st.floats(-math.pi / 2, math.pi / 2, exclude_max=True),
    st.floats(0, 0.5),
    st.floats(-5, 5),
)
def test_any_ellipse_is_recovered(minor, anisotropy, theta, floor, shift):
    map = floor + gaussian_map(minor * anisotropy, 40, center=(shift, -shift / 2), minor=minor, theta=theta)
    fit = fit_falloff(map)
    assert fit.parameters["sigma_major"] == pytest.approx(minor * anisotropy, rel=1e-5)
    assert fit.parameters["sigma_minor"] == pytest.approx(minor, rel=1e-5)
    assert math.sin(fit.parameters["theta"] - theta) == pytest.approx(0, abs=1e-5)
    assert fit.parameters["floor"] == pytest.approx(floor, abs=1e-5)


def noisy(seed: int, clean=None):
    clean = tilted() if clean is None else clean
    deviation = 0.05 * clean + 0.002
    return clean + deviation * np.random.default_rng(seed).normal(size=clean.shape), deviation**2


def test_errors_cover_the_truth_and_the_chi_square_is_one():
    # Nearly round: rings are a worse model of the variance the longer the ellipse is (errors 25 % too small at 12 : 7).
    truth = TRUTH | {"sigma_minor": 11.0, "center_y": 0.0, "center_x": 0.0}
    clean = 0.1 + gaussian_map(12.0, 50, minor=11.0, theta=0.6)
    pulls = []
    for seed in range(20):
        map, variance = noisy(seed, clean)
        fit = fit_falloff(map, variance=variance)
        pulls.append([(fit.parameters[name] - truth[name]) / fit.errors[name] for name in truth])
        assert fit.reduced_chi_square == pytest.approx(1, abs=0.1)
    # 140 pulls: their root mean square has a standard error of about 0.06, a little more for they are correlated.
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1, abs=0.2)
    assert np.abs(pulls).max() < 4


def test_sigma_error_covers_the_truth():
    fits = [fit_falloff(noisy(seed)[0], variance=noisy(seed)[1]) for seed in range(20)]
    pulls = [(fit.sigma - math.sqrt((144 + 49) / 2)) / fit.sigma_error for fit in fits]
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1, abs=0.45)


def test_values_and_errors_agree_with_curve_fit():
    map = noisy(1)[0]
    y, x = np.meshgrid(map["y"], map["x"], indexing="ij")

    def model(_, amplitude, center_y, center_x, major, minor, theta, floor):
        dy, dx = (y - center_y).ravel(), (x - center_x).ravel()
        along, across = np.cos(theta) * dx + np.sin(theta) * dy, np.cos(theta) * dy - np.sin(theta) * dx
        return amplitude * np.exp(-((along / major) ** 2 + (across / minor) ** 2) / 2) + floor

    values, covariance = curve_fit(model, np.zeros(map.size), map.values.ravel(), p0=[1, 0, 0, 10, 8, 0.5, 0])
    fit = fit_falloff(map)
    assert list(fit.parameters.values()) == pytest.approx(list(values), rel=1e-4)
    assert list(fit.errors.values()) == pytest.approx(list(np.sqrt(np.diag(covariance))), rel=1e-3)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-2, atol=1e-4 * np.abs(covariance).max())


def test_a_circle_has_errors_of_its_widths_and_no_angle():
    map = gaussian_map(9.0, 50) + 0.01 * np.random.default_rng(0).normal(size=(101, 101))
    fit = fit_falloff(map, elliptical=False)
    assert fit.parameters["sigma_major"] == fit.parameters["sigma_minor"] == pytest.approx(9, rel=0.01)
    assert fit.parameters["theta"] == 0
    assert fit.errors["theta"] is None
    assert fit.errors["sigma_major"] == pytest.approx(fit.sigma_error)
    # The isotropic fit is the elliptical one with two things fewer to learn.
    assert fit.sigma_error == pytest.approx(fit_falloff(map).sigma_error, rel=0.02)


def test_the_angle_of_a_round_map_is_undetermined():
    map = gaussian_map(9.0, 40)
    rings = np.cos(map["y"]) * np.cos(map["x"])  # a residual that leaves the ellipse round
    fit = fit_falloff(map + 0.01 * rings)
    assert fit.errors["theta"] is None
    assert fit.errors["sigma_major"] is not None


def test_without_a_floor_the_floor_is_zero():
    fit = fit_falloff(gaussian_map(9.0, 50) * 7, floor=False)
    assert fit.parameters["floor"] == 0
    assert fit.errors["floor"] is None
    assert fit.parameters["amplitude"] == pytest.approx(7)
    assert fit.covariance.shape == (7, 7)


def test_a_floor_that_is_left_out_widens_the_fit():
    assert fit_falloff(tilted(), floor=False).sigma > 1.05 * fit_falloff(tilted()).sigma


def test_a_peak_on_a_high_negative_background():
    fit = fit_falloff(gaussian_map(6.0, 30) - 1e3)
    assert fit.parameters["floor"] == pytest.approx(-1e3)
    assert fit.sigma == pytest.approx(6, rel=1e-6)


def test_a_pixel_with_no_variance_by_chance_gets_no_weight_of_its_own():
    map, variance = noisy(3)
    spoilt, quiet = map.copy(), variance.copy()
    spoilt[40, 60] *= 0.5
    quiet[40, 60] = 0.0
    assert fit_falloff(spoilt, variance=quiet).sigma == pytest.approx(
        fit_falloff(map, variance=variance).sigma, rel=1e-3
    )


def test_a_variance_of_zero_everywhere_means_equal_weights():
    map = tilted()
    fit = fit_falloff(map, variance=map * 0)
    assert fit.parameters == fit_falloff(map).parameters
    assert fit.reduced_chi_square is None


def test_the_scale_of_the_variance_does_not_move_the_fit():
    map, variance = noisy(4)
    fits = [fit_falloff(map, variance=variance * factor) for factor in (1, 100)]
    assert fits[0].parameters == pytest.approx(fits[1].parameters)
    assert fits[0].reduced_chi_square == pytest.approx(100 * fits[1].reduced_chi_square)


@pytest.mark.parametrize("size", [600, 1100])
def test_large_maps_are_averaged_without_widening_the_fit(size):
    map = gaussian_map(12.0, (size - 1) / 2, minor=6.0, theta=0.5, center=(4.0, 1.0))
    fit = fit_falloff(map, variance=map**2)
    assert fit.sigma == pytest.approx(math.sqrt(90), rel=2e-4)
    assert (fit.parameters["center_y"], fit.parameters["center_x"]) == pytest.approx((4, 1), abs=1e-3)


def test_evaluate_gives_the_map_back_on_any_grid():
    fit = fit_falloff(tilted())
    coarse = tilted(4.0, 60)
    np.testing.assert_allclose(fit.evaluate(coarse), coarse, atol=1e-6)
    assert fit.evaluate(coarse).dims == ("y", "x")
    assert float(fit.model(3.0, -2.0)) == pytest.approx(1.1)


def test_a_new_family_is_one_row(monkeypatch):
    bell = LineShape(
        "bell",
        "exp(-u^b / 2)",
        lambda t, b: np.exp(-(t ** (b / 2)) / 2),
        half_width=lambda b: (2 * math.log(2)) ** (1 / b),
        second_moment=lambda b: 1.0,
        extras=(ShapeParameter("exponent", 2, 0.3, 8),),
    )
    monkeypatch.setitem(LINE_SHAPES, "bell", bell)
    radius = fit_falloff(tilted()).ellipse.squared_radius(*np.meshgrid(np.arange(-30.0, 31), np.arange(-30.0, 31)))
    map = gaussian_map(1.0, 30).copy(data=np.exp(-(radius**0.7) / 2) + 0.05)
    fit = fit_falloff(map, "bell")
    assert fit.parameters["exponent"] == pytest.approx(1.4, rel=1e-5)
    assert fit.errors["exponent"] is not None
    np.testing.assert_allclose(fit.evaluate(map), map, atol=1e-6)


def test_flag_near_bound():
    point = gaussian_map(1.0, 10) * 0
    point[10, 10] = 1.0
    assert "near_bound" in fit_falloff(point).flags


def test_flag_clipped():
    assert fit_falloff(gaussian_map(30.0, 40)).flags == ("clipped",)


def test_flag_not_converged(monkeypatch):
    search = leastsquares.least_squares
    monkeypatch.setattr(leastsquares, "least_squares", lambda *a, **k: search(*a, **k, max_nfev=1))
    fit = fit_falloff(tilted())
    assert not fit.success
    assert "not_converged" in fit.flags
    assert "maximum number of function evaluations" in fit.message


def test_flag_no_covariance(monkeypatch):
    search = leastsquares.least_squares

    def singular(*arguments, **settings):
        found = search(*arguments, **settings)
        found.jac[:, 1] = 2 * found.jac[:, 0]
        return found

    monkeypatch.setattr(leastsquares, "least_squares", singular)
    fit = fit_falloff(tilted())
    assert fit.flags == ("no_covariance",)
    assert fit.covariance is None
    assert fit.sigma_error is None
    assert set(fit.errors.values()) == {None}


def test_every_flag_says_what_to_do():
    for code, sentence in FLAGS.items():
        assert code.isidentifier()
        assert ";" in sentence, f"{code}: what happened; what to do"


def test_a_fit_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit_falloff(tilted()).sigma = 1.0


def test_unknown_families_are_offered_the_nearest():
    with pytest.raises(ConfigError, match=r"family is 'gausian'; choose one of gaussian.* Did you mean 'gaussian'"):
        fit_falloff(tilted(), "gausian")


@pytest.mark.parametrize(
    ("map", "words"),
    [
        (gaussian_map(1.0, 1), None),
        (
            gaussian_map(1.0, 0.5, center=(0.1, 0.2)),
            "the map has 4 px, too few for 7 parameters; measure a larger map, or fit with",
        ),
        (gaussian_map(1.0, 5) * math.nan, "121 non-finite values of 121; measure it again in float64"),
        (gaussian_map(1.0, 5) * 0, "zero everywhere: a dead unit, with no falloff to fit; choose another unit"),
        (gaussian_map(1.0, 5) * 0 + 2, r"the map is constant \(2\), with no falloff to fit; choose another layer"),
    ],
)
def test_maps_that_cannot_be_fitted(map, words):
    if words is None:
        assert fit_falloff(map).success
        return
    with pytest.raises(MeasurementError, match=words):
        fit_falloff(map)


def test_a_negative_variance_is_refused():
    map = tilted()
    with pytest.raises(
        MeasurementError, match=r"variance is negative somewhere \(the least is -1.*\); give the variance"
    ):
        fit_falloff(map, variance=-map)


def test_largest_is_where_the_averaging_begins():
    assert samples.samples_of(tilted(), largest=101).block == 1
    averaged = samples.samples_of(tilted(), largest=50)
    assert averaged.block == 3
    assert fit_samples(averaged, "gaussian").sigma == pytest.approx(math.sqrt((144 + 49) / 2), rel=1e-4)


FAMILIES = [
    ("gaussian", ()),
    ("exponential", ()),
    ("generalised_gaussian", (0.6,)),
    ("generalised_gaussian", (1.31,)),
    ("generalised_gaussian", (4.0,)),
    ("moffat", (1.5,)),
    ("moffat", (6.0,)),
]


@pytest.mark.parametrize(("family", "extras"), FAMILIES)
@pytest.mark.parametrize("center", [(0.0, 0.0), (3.3, -2.1)])
def test_every_family_is_recovered(family, extras, center):
    map = 1e-7 * family_map(family, *extras, ellipse=Ellipse(9.0, 5.0, 0.6), center=center, half=40, floor=0.1)
    fit = fit_falloff(map, family)
    names = [extra.name for extra in LINE_SHAPES[family].extras]
    expected = {"amplitude": 1e-7, "center_y": center[0], "center_x": center[1], "sigma_major": 9.0, "sigma_minor": 5.0}
    expected |= {"theta": 0.6, "floor": 1e-8} | dict(zip(names, extras, strict=True))
    assert fit.parameters == pytest.approx(expected, rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(fit.residual(map), 0, atol=1e-13)
    assert fit.residual(map).dims == ("y", "x")


def test_one_dimension_agrees_with_curve_fit():
    # A ring of one pixel each: the profile is then a plain curve.
    radius = np.arange(0.0, 40)
    values = 3 * np.exp(-((radius / 6) ** 1.3) / 2) + 0.2 + 0.01 * np.random.default_rng(0).normal(size=40)
    profile = RadialProfile(np.arange(41.0), radius, values, np.ones(40, int), 1.0)

    def curve(r, amplitude, sigma, floor, beta):
        return amplitude * np.exp(-((r / sigma) ** beta) / 2) + floor

    expected, covariance = curve_fit(curve, radius, values, p0=[2, 5, 0, 1.5])
    fit = fit_falloff(profile, "generalised_gaussian")
    names = ("amplitude", "sigma_major", "floor", "beta")
    assert [fit.parameters[name] for name in names] == pytest.approx(list(expected), rel=1e-5)
    assert [fit.errors[name] for name in names] == pytest.approx(list(np.sqrt(np.diag(covariance))), rel=1e-3)
    assert fit.errors["center_y"] is fit.errors["theta"] is None
    assert fit.flags == ()


@pytest.mark.parametrize(("family", "extras"), FAMILIES)
def test_the_profile_of_a_round_map_gives_its_parameters(family, extras):
    map = family_map(family, *extras, ellipse=Ellipse(7.0, 7.0, 0.0), center=(0.0, 0.0), half=50)
    fit = fit_falloff(radial_profile(map), family)
    # Two radii stand for those of a ring's pixels: exact to the second order of a ring's width over sigma.
    assert fit.half_width == pytest.approx(7 * LINE_SHAPES[family].half_width(*extras), rel=2e-3)
    assert fit.parameters["sigma_minor"] == fit.parameters["sigma_major"]


def test_a_profile_weighs_as_its_map_does():
    map, variance = noisy(5, 0.1 + gaussian_map(9.0, 40))
    fits = [
        fit_falloff(radial_profile(map, variance)),
        fit_falloff(map, variance=variance, elliptical=False),
    ]
    assert fits[0].sigma == pytest.approx(fits[1].sigma, rel=2e-3)
    assert fits[0].sigma_error == pytest.approx(fits[1].sigma_error, rel=0.4)
    assert fits[0].reduced_chi_square == pytest.approx(1, abs=0.5)


def test_a_profile_that_ends_in_its_peak_is_clipped():
    assert fit_falloff(radial_profile(gaussian_map(30.0, 30))).flags == ("clipped",)
    assert fit_falloff(radial_profile(gaussian_map(9.0, 30))).flags == ()


def test_a_variance_beside_a_profile_is_refused():
    map = tilted()
    with pytest.raises(ConfigError, match="variance is given beside a radial profile; give it to radial_profile"):
        fit_falloff(radial_profile(map), variance=map)


@pytest.mark.parametrize(("family", "extras"), FAMILIES)
def test_a_warm_start_ends_where_a_cold_one_does_in_fewer_steps(family, extras, monkeypatch):
    map = noisy(6, family_map(family, *extras, half=25))[0]
    cold = fit_falloff(map, family)
    again = noisy(7, family_map(family, *extras, half=25))[0]
    expected = fit_falloff(again, family)
    monkeypatch.setattr(leastsquares.Problem, "best_circle", None)  # no search for a start
    warm = fit_falloff(again, family, start=cold)
    assert warm.parameters == pytest.approx(expected.parameters, rel=1e-4, abs=1e-6)


def test_a_start_may_be_of_another_family_and_another_scale():
    map = family_map("moffat", 3.0, half=40)
    start = fit_falloff(1e6 * map, "gaussian", floor=False)
    assert fit_falloff(map, "moffat", start=start).parameters["exponent"] == pytest.approx(3, rel=1e-6)


def test_widths_mean_the_same_for_every_family():
    map = family_map("gaussian", ellipse=Ellipse(6.0, 4.0, 0.3), half=40)
    fits = [fit_falloff(map, family) for family in ("gaussian", "generalised_gaussian")]
    assert fits[1].half_width == pytest.approx(fits[0].half_width, rel=1e-5)
    assert fits[1].moment_sigma == pytest.approx(fits[0].moment_sigma, rel=1e-5)
    assert fits[0].moment_sigma == pytest.approx(math.sqrt((36 + 16) / 2), rel=1e-6)
    assert fit_falloff(family_map("moffat", 1.5, half=40), "moffat").moment_sigma is None


def test_information_criteria_are_those_of_the_textbook():
    map, _ = noisy(8)
    fit = fit_falloff(map)
    squares = float((fit.residual(map) ** 2).sum()) / float(map.max() - map.min()) ** 2
    assert fit.aic == pytest.approx(map.size * math.log(squares / map.size) + 2 * 7)
    assert fit.bic - fit.aic == pytest.approx(7 * (math.log(map.size) - 2))


def test_groups_give_the_binned_chi_square():
    grouped = noisy_groups(family_map("gaussian"), seed=0)
    assert fit_falloff(grouped.mean).binned_chi_square is None
    variance = grouped.standard_error**2
    right = fit_falloff(grouped.mean, variance=variance, groups=grouped)
    wrong = fit_falloff(grouped.mean, "exponential", variance=variance, groups=grouped)
    assert right.binned_chi_square < 3 < wrong.binned_chi_square


@pytest.mark.parametrize(("family", "extras"), [("generalised_gaussian", (12.0,)), ("moffat", (0.55,))])
def test_an_exponent_beyond_its_range_is_flagged(family, extras):
    assert "near_bound" in fit_falloff(family_map(family, *extras, half=30), family).flags
