"""Families compared: clear truths are found, numbers agree with their definitions, verdicts are sentences."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from known_groups import family_map, noisy_groups

from erflab.analysis import FamilyComparison, FamilyRow, compare_families, families, fit_falloff
from erflab.analysis.jackknife import Estimate, GroupedMap, jackknife
from erflab.analysis.lineshapes import LINE_SHAPES
from erflab.analysis.samples import samples_of
from erflab.errors import ConfigError, MeasurementError


@pytest.fixture(scope="module")
def sharp() -> tuple[GroupedMap, FamilyComparison]:
    grouped = noisy_groups(family_map("generalised_gaussian", 1.31), seed=0)
    return grouped, compare_families(grouped)


@pytest.mark.parametrize(
    ("family", "extras", "sigma"),
    [
        ("gaussian", (), 5.0),
        ("exponential", (), 2.0),
        ("generalised_gaussian", (3.5,), 6.0),
        ("moffat", (2.5,), 3.0),
    ],
)
def test_a_clear_truth_is_chosen(family, extras, sigma):
    found = compare_families(noisy_groups(family_map(family, *extras, sigma=sigma), seed=1))
    assert found.chosen == family
    assert found.row().fit.flags == ()
    for extra, value in zip(LINE_SHAPES[family].extras, extras, strict=True):
        estimate = found.row().estimates[extra.name]
        assert abs(estimate.value - value) < 4 * estimate.standard_error


def test_the_verdict_names_exponent_error_and_gain(sharp):
    _, found = sharp
    row = found.row()
    assert found.chosen == "generalised_gaussian"
    beta = row.estimates["beta"]
    assert beta.value == pytest.approx(1.31, abs=4 * beta.standard_error)
    assert found.verdict == (
        f"generalised Gaussian, beta = {beta.value:.2f} ± {beta.standard_error:.2g}, preferred over "
        f"{LINE_SHAPES[found.reference].title}: held-out gain {row.gain / row.gain_error:.1f} standard errors"
    )


def test_the_verdict_of_a_gaussian_names_what_it_was_held_against():
    found = compare_families(noisy_groups(family_map("gaussian"), seed=2))
    assert found.verdict.startswith(
        "Gaussian: no larger family predicts held-out images better by more than 2 standard errors (best: "
    )


def test_the_verdict_of_equally_small_families():
    found = compare_families(noisy_groups(family_map("exponential", sigma=2.0), seed=3), ["gaussian", "exponential"])
    assert found.verdict == "exponential, the best on held-out images of 2 compared"


def test_the_loss_is_that_of_fits_which_have_not_seen_the_group(sharp):
    grouped, found = sharp
    error = grouped.standard_error
    row = found.row("moffat")
    losses, deviations = [], samples_of(grouped.mean, error**2).deviations
    for replicate, group in zip(grouped.replicates(), grouped.sums, strict=True):
        fit = fit_falloff(replicate, "moffat", variance=error**2)
        squares = (group / 4 - fit.evaluate(grouped.mean).values) ** 2
        losses.append(np.mean(squares / deviations**2) / len(grouped))
    assert row.held_out_loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_errors_are_those_of_the_group_jackknife(sharp):
    grouped, found = sharp
    variance = grouped.standard_error**2
    expected = jackknife(lambda m: fit_falloff(m, "moffat", variance=variance).parameters, grouped)
    for name, estimate in expected.items():
        assert found.row("moffat").estimates[name].standard_error == pytest.approx(estimate.standard_error, rel=1e-3)


def test_the_gain_is_the_difference_of_losses_and_its_error_that_of_a_mean(sharp):
    _, found = sharp
    reference = found.row(found.reference)
    assert reference.gain is None
    assert reference.gain_error is None
    assert reference.errors_gained is None
    for row in found.rows:
        if row is not reference:
            assert row.gain == pytest.approx(reference.held_out_loss - row.held_out_loss)
            assert row.gain_error > 0


def test_neither_scale_nor_a_quarter_turn_changes_the_comparison(sharp):
    grouped, found = sharp
    turned = grouped.mean.copy(data=np.rot90(grouped.mean.values) * 1e-9)
    other = compare_families(GroupedMap(turned, np.rot90(grouped.sums, axes=(1, 2)) * 1e-9, grouped.images))
    assert other.chosen == found.chosen
    assert other.reference == found.reference
    for mine, its in zip(found.rows, other.rows, strict=True):
        assert its.held_out_loss == pytest.approx(mine.held_out_loss, rel=1e-5)
        assert its.estimates["sigma"].standard_error == pytest.approx(mine.estimates["sigma"].standard_error, rel=1e-3)


def test_averaging_over_blocks_changes_little(sharp):
    # sigma is five px, and the blocks have two.
    grouped, found = sharp
    coarse = compare_families(grouped, largest=21).row("generalised_gaussian")
    assert coarse.fit.parameters["beta"] == pytest.approx(found.row().fit.parameters["beta"], rel=0.05)


def test_parameters_held_fixed_have_no_error(sharp):
    grouped, _ = sharp
    row = compare_families(grouped, ["gaussian"], elliptical=False, floor=False).row()
    assert row.estimates["theta"] == Estimate(0.0)
    assert row.estimates["floor"] == Estimate(0.0)
    assert row.estimates["sigma"].standard_error > 0


def test_every_fit_has_what_a_table_shows(sharp):
    _, found = sharp
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(LINE_SHAPES)
    assert lines[-1] == found.verdict
    for row in found.rows:
        assert row.fit.binned_chi_square is not None
        assert math.isfinite(row.fit.aic)
        assert math.isfinite(row.fit.bic)
    assert "reference" in str(found.row(found.reference))
    assert f"({found.row().errors_gained:.1f} errors)" in str(found.row())
    chi_squares = {row.family: row.fit.binned_chi_square for row in found.rows}
    assert chi_squares["generalised_gaussian"] < 3 < chi_squares["gaussian"]


def test_the_summary_is_json_and_complete(sharp):
    _, found = sharp
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary["verdict"] == found.verdict
    assert [row["family"] for row in summary["families"]] == list(LINE_SHAPES)
    for row, shown in zip(found.rows, summary["families"], strict=True):
        assert shown["parameters"].keys() >= row.fit.parameters.keys()
        assert shown["parameters"]["sigma"]["standard_error"] == row.estimates["sigma"].standard_error
        assert shown["gain"] == row.gain
        assert shown["bic"] == row.fit.bic


def _comparison(gains: dict[str, tuple[float, float]]) -> FamilyComparison:
    grouped = noisy_groups(family_map("gaussian", half=8, sigma=3.0), seed=4, groups=4)
    row = compare_families(grouped, ["gaussian"]).row()
    rows = [row] + [
        dataclasses.replace(row, family=name, held_out_loss=row.held_out_loss - gain, gain=gain, gain_error=error)
        for name, (gain, error) in gains.items()
    ]
    return FamilyComparison(tuple(rows), "gaussian", families._choice(rows, "gaussian", 1))


@pytest.mark.parametrize(
    ("gains", "chosen"),
    [
        ({"generalised_gaussian": (1.9, 1.0), "moffat": (0.5, 1.0)}, "gaussian"),
        ({"generalised_gaussian": (2.1, 1.0), "moffat": (0.5, 1.0)}, "generalised_gaussian"),
        ({"generalised_gaussian": (2.1, 1.0), "moffat": (5.0, 3.0)}, "generalised_gaussian"),
        ({"generalised_gaussian": (2.1, 1.0), "moffat": (5.0, 1.0)}, "moffat"),
        ({"generalised_gaussian": (-9.0, 1.0)}, "gaussian"),
        ({"generalised_gaussian": (1.0, 0.0)}, "generalised_gaussian"),
    ],
)
def test_a_larger_family_needs_a_gain_of_two_errors(gains, chosen):
    assert _comparison(gains).chosen == chosen


def test_a_family_that_the_map_does_not_determine_is_not_chosen():
    found = _comparison({"generalised_gaussian": (9.0, 1.0)})
    undetermined = dataclasses.replace(found.rows[1].fit, flags=("no_covariance",))
    rows = (found.rows[0], dataclasses.replace(found.rows[1], fit=undetermined))
    assert families._choice(rows, "gaussian", 1) == "gaussian"
    assert FamilyComparison(rows, "gaussian", "gaussian").verdict == "Gaussian, the only family that the map determines"
    assert FamilyComparison(rows[:1], "gaussian", "gaussian").verdict == "Gaussian, the only family compared"


def test_the_verdict_tells_of_flags():
    flat = family_map("gaussian").copy(data=np.float64(family_map("exponential", floor=0.0).values > 0.5))
    found = compare_families(noisy_groups(flat, seed=6), ["gaussian", "generalised_gaussian"])
    assert found.verdict.startswith("generalised Gaussian, beta = 8.00, preferred over Gaussian: held-out gain ")
    assert found.verdict.endswith(" standard errors; flagged near_bound")


def test_too_few_groups_are_refused():
    grouped = noisy_groups(family_map("gaussian", half=8), seed=5, groups=3)
    with pytest.raises(MeasurementError, match=r"3 groups of scenes, too few to compare.*images of at least 4 scenes"):
        compare_families(grouped)


def test_families_must_be_known_and_some(sharp):
    with pytest.raises(ConfigError, match=r"families is empty; give some of gaussian, exponential"):
        compare_families(sharp[0], [])
    with pytest.raises(ConfigError, match=r"family is 'lorentz'; choose one of"):
        compare_families(sharp[0], ["gaussian", "lorentz"])


def test_a_family_named_twice_is_one_row(sharp):
    assert len(compare_families(sharp[0], ["gaussian", "gaussian"]).rows) == 1


def test_rows_are_frozen(sharp):
    row: FamilyRow = sharp[1].row()
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.gain = 1.0
