"""The study of occlusion: its smooth noise, what it reads of stored runs, and claims that fail where they should."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import erflab
from erflab.analysis.scaling import Coefficient, replicate_mean


@pytest.mark.parametrize("blur", [0, 3])
def test_smooth_noise_has_variance_one_and_the_correlation_of_its_blur(blur):
    from smooth import SmoothNoise

    images = np.stack([image.numpy() for image in map(SmoothNoise(blur, seed=1).__getitem__, range(32))])
    assert images.var() == pytest.approx(1, rel=0.05)
    neighbour = (images * np.roll(images, 3, axis=-1)).mean() / images.var()
    assert neighbour == pytest.approx(np.exp(-(3**2) / (4 * blur**2)) if blur else 0, abs=0.03)
    assert not np.array_equal(SmoothNoise(blur, seed=0)[0], SmoothNoise(blur, seed=1)[0])


def even(value: float, error: float = 0.01) -> Coefficient:
    return replicate_mean([value - error, value, value + error])


def linear(white: float, smooth: float, elsewhere: float) -> list[dict[str, object]]:
    return [
        {
            "noise": noise,
            "patch (px)": 3,
            "ratio": even(ratio, error),
            "elsewhere": even(share, 0.001),
            "added variance (px^2)": even(0.667),
            "(a^2 - 1) / 12": 0.667,
        }
        for noise, ratio, error, share in (("white", white, 0.002, 0.03), ("smooth (3 px)", smooth, 0.02, elsewhere))
    ]


@pytest.mark.parametrize(
    ("white", "smooth", "elsewhere", "expected"),
    [(1.0, 1.01, 0.1, [True, True, True]), (0.9, 0.8, 0.02, [False, False, False])],
)
def test_the_claims_about_the_linear_network(white, smooth, elsewhere, expected):
    import occlusion

    assert [c.holds for c in occlusion.linear_claims(linear(white, smooth, elsewhere))] == expected


@pytest.mark.parametrize(
    ("mean", "blur", "small", "random", "expected"),
    [(0.9, 0.98, 0.99, 1.05, [True] * 4), (0.99, 0.9, 0.9, 0.9, [False] * 4)],
)
def test_the_claims_about_the_trained_network(mean, blur, small, random, expected):
    import occlusion

    values = {("trained", "mean", 16): mean, ("trained", "blur", 16): blur, ("trained", "mean", 4): small}
    values |= {("random", "mean", 16): random, ("random", "blur", 16): random}
    table = [{"weights": w, "baseline": b, "patch (px)": p, "ratio": even(v)} for (w, b, p), v in values.items()]
    assert [c.holds for c in occlusion.network_claims(table)] == expected


def test_the_cost_is_that_of_the_passes(scripts: Path):
    import occlusion

    summary = {"stride_y": {"value": 8.0}, "trf_size_y": {"value": 78.0}}
    for name, seconds in (("a", 8), ("b", 12)):
        (scripts / name).mkdir()
        (scripts / name / "summary.json").write_text(json.dumps(summary))
        timings = {"timings": {"gradient": 2.0, "occlusion": seconds}}
        (scripts / name / "provenance.json").write_text(json.dumps(timings))
    # Every 2 px over 78 + 2 px of a 4 px patch: 40 positions an axis.
    assert occlusion.cost([scripts / "a", scripts / "b"]) == ("5.0", 40**2)


def test_the_figure_has_a_row_a_condition_and_the_shares_of_one_result():
    import occlusion

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    result = erflab.measure(network, torch.randn(8, 3, 16, 16), method=["gradient", "occlusion"])
    table = [{"weights": "trained", "baseline": "mean", "patch (px)": 4, "ratio": even(0.9)}]
    forest, shares = occlusion.draw(linear(1, 1, 0.1), table, result).axes
    rows = ["white noise, 3 px", "smooth (3 px) noise, 3 px", "mean, 4 px"]
    assert [text.get_text() for text in forest.get_yticklabels()] == rows
    names = [text.get_text() for text in shares.get_legend().get_texts()]
    assert names == ["gradient", "gradient, blurred", "occlusion"]
