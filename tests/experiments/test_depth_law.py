"""The study of depth: its stacks, a slice of its sweep from end to end, and a law that fails when it is not there."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import erflab


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "sigmoid"])
def test_random_stacks_have_he_variance_and_no_padding_but_the_first(activation):
    from stacks import random_stack

    torch.manual_seed(0)
    stack = random_stack(activation, 4, channels=64)
    assert [name for name, _ in stack.named_children()][-3:] == ["conv3", "activation3", "conv4"]
    gain = torch.nn.init.calculate_gain(activation)
    assert stack.conv4.weight.std().item() == pytest.approx(gain / math.sqrt(64 * 9), rel=0.02)
    assert [stack.get_submodule(f"conv{i}").padding for i in range(1, 5)] == [(1, 1), (0, 0), (0, 0), (0, 0)]


def test_the_uniform_stack_meets_its_closed_form_in_an_input_as_large_as_its_field():
    from stacks import uniform_stack

    result = erflab.measure(
        uniform_stack(4, kernel=5).double(), torch.zeros(1, 1, 17, 17).double(), "conv4", magnitude="signed"
    )
    assert result.sizes().quantities["sigma"].value == pytest.approx(math.sqrt(4 * (5**2 - 1) / 12))
    assert not [f for f in result.flags if "clipped" in f.code]


def test_a_slice_of_the_study_from_end_to_end(scripts: Path):
    import depth_law

    shallow = {"model.arguments.layers": "5,10"}
    with pytest.raises(
        SystemExit, match=r"the exponent of the size is 0\.489 over n = 5\.\.40"
    ):  # two depths are too few
        depth_law.main({**shallow, "model.seed": "0,1"}, shallow)
    sweep = scripts / "multirun" / "depth_law"
    points = list(csv.DictReader((sweep / "points.csv").read_text().splitlines()))
    assert len(points) == 2 + 4 * 2 * 2
    assert [float(p["variance"]) for p in points[:2]] == pytest.approx([10 / 3, 20 / 3])
    assert {p["seed"] for p in points} == {"0", "1"}
    finding = (sweep / "finding.md").read_text()
    assert "holds: uniform: sigma^2 grows from 0 (0.000) by 0.667 px^2 a layer (0.667)" in finding
    assert {f.name for f in sweep.iterdir()} >= {"depth_law.pdf", "depth_law.png", "table.csv"}


def points(weights: str, slope: float, intercept: float = 0.0, noise: float = 0.01) -> list[dict[str, str | float]]:
    """Eight seeds that scatter about a line, by `noise` times its height."""
    scatter = noise * np.random.default_rng(3).normal(size=(8, 4))
    return [
        {
            "weights": weights,
            "layers": n,
            "seed": seed,
            "variance": (slope * n + intercept) * (1 + scatter[seed, i]),
            "size": 4.4 * math.sqrt(n),
            "ratio": 2.2 / math.sqrt(n),
        }
        for seed in range(8)
        for i, n in enumerate((5, 10, 20, 40))
    ]


@pytest.mark.parametrize(
    ("slope", "intercept", "noise", "holds"),
    [
        (2 / 3, 0, 0.01, True),
        (2 / 3 * 1.05, 0, 0.01, False),
        (2 / 3, 0.5, 0.01, False),
        (2 / 3, 0, 0.5, False),  # the interval holds the truth, and nearly everything else
    ],
)
def test_the_law_is_refused_where_it_is_not(slope, intercept, noise, holds):
    import depth_law

    stack = depth_law.fitted(points("relu", slope, intercept, noise))
    assert stack.variance.slope.covers(2 / 3) is (slope == 2 / 3)
    assert depth_law.law_holds("relu", stack.variance).holds is holds


def test_an_exact_stack_must_meet_the_law_exactly():
    import depth_law

    one = [p for p in points("uniform", 2 / 3 * (1 + 1e-6)) if p["seed"] == 0]
    assert not depth_law.law_holds("uniform", depth_law.fitted(one).variance).holds
