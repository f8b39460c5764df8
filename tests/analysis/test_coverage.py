"""A slice of `benchmarks/coverage.py`: intervals cover what they should, and clear truths are recognised."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binom

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_maps_of_an_experiment_have_the_known_mean_and_correlation(coverage: ModuleType) -> None:
    truth = coverage.Truth("gaussian", floor=1.0)
    grouped, effective = coverage.experiment(truth, coverage.LIGHT, seed=0, scenes=640)
    assert effective > 100
    ratio = grouped.mean.values / truth.map.values
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    noise = np.random.default_rng(0)
    field = coverage._noise(noise, 200, (32, 32))
    assert field.var() == pytest.approx(1, rel=0.05)
    assert (field[:, :, 3:] * field[:, :, :-3]).mean() == pytest.approx(np.exp(-1), abs=0.05)


@pytest.mark.slow
def test_intervals_cover_the_known_values(coverage: ModuleType) -> None:
    experiments = 40
    rows = coverage.coverage(coverage.TRUTHS[0], coverage.LIGHT, experiments)
    # Of intervals that cover 95 %, one in 10 000 does worse than this in 40 experiments.
    least = binom.ppf(1e-4, experiments, 0.95) / experiments
    assert {row.quantity for row in rows} > {"sigma", "radius_0.5", "area_0.9", "square_0.9", "fit_sigma", "fit_floor"}
    for row in rows:
        assert row.covered >= least, str(row)
        assert row.effective_images >= 100


@pytest.mark.slow
@pytest.mark.parametrize("index", [1, 2, 4])
def test_a_clear_truth_is_recognised(coverage: ModuleType, index: int) -> None:
    experiments = 8
    found = coverage.choice(coverage.TRUTHS[index], experiments)
    assert found.right_or_containing >= binom.ppf(1e-3, experiments, 0.95) / experiments, str(found)
