"""The study of architectures: claims from a collected table, and what happens to them where they do not hold."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import erflab
from erflab.config import AttributionConfig, ErflabConfig, ModelConfig, NoiseConfig, RuntimeConfig, TargetConfig
from erflab.measurement import run
from erflab.models import build_model


def row(network: str, sigma: float, predicted: float, occluded: float = 1.0, **other: object) -> dict[str, object]:
    return {
        "run": f"multirun/architectures/{network}",
        "network": network,
        "weights": "random",
        "trf_size_y (px)": 500.0,
        "predicted (px)": predicted,
        "gradient.sigma (px)": sigma,
        "blurred_gradient_vs_occlusion.sigma_ratio": occluded,
        **{
            f"occlusion.sigma{end} (px)": value for end, value in (("", 50), ("_error", 1), ("_low", 48), ("_high", 52))
        },
        **other,
    }


def on_photographs(weights: str, sigma: float) -> dict[str, object]:
    ends = {
        "occlusion.sigma (px)": sigma,
        "occlusion.sigma_low (px)": sigma - 2,
        "occlusion.sigma_high (px)": sigma + 2,
    }
    return row("lite0", sigma, sigma, run=f"multirun/architectures/trained/{weights}", weights=weights, **ends)


@pytest.mark.parametrize(
    ("predicted", "occluded", "sigma", "patch", "trained", "expected"),
    [(39.0, 1.01, 38.0, 9.24, 40, [True] * 5), (60.0, 0.8, 64.0, 20.0, 50, [False] * 5)],
)
def test_the_claims_are_those_of_the_table(predicted, occluded, sigma, patch, trained, expected):
    import architectures

    rows = [row(name, sigma, predicted, occluded) for name in ("a", "b", "c", "d")]
    rows += [
        row("convnext_atto", patch, predicted * patch / sigma, occluded),
        row("resmlp_12_224", patch / 2, predicted * patch / 2 / sigma, occluded),
        on_photographs("trained", trained),
        on_photographs("random", 50),
    ]
    rows[0]["predicted (px)"] = None if expected[0] else rows[0]["predicted (px)"]  # an operation without a rule
    assert [bool(claim.holds) for claim in architectures.claims(pd.DataFrame(rows), 224)] == expected


def test_a_stored_map_is_drawn_and_a_model_that_cannot_be_built_is_not_predicted(scripts: Path):
    import architectures

    class Unknown(nn.Sequential):
        """Of no library, so that the study cannot build it again."""

    network = Unknown(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    erflab.measure(network, torch.randn(4, 3, 16, 16)).save(scripts / "run")
    assert architectures.predicted(scripts / "run") is None
    figure = architectures.draw(pd.DataFrame([{"run": str(scripts / "run"), "network": "net", "weights": "trained"}]))
    assert figure.axes[0].get_title() == "net, trained"


def test_a_stored_network_is_predicted_as_it_was_measured(scripts: Path):
    import architectures

    config = ErflabConfig(
        model=ModelConfig(name="squeezenet1_1"),
        images=NoiseConfig(count=1, size=64),
        attribution=AttributionConfig.choosing(["gradient"], {}),
        target=TargetConfig(layer="features.3"),
        runtime=RuntimeConfig(progress=False),
    )
    run(config).save(scripts / "run")
    truth = erflab.predicted_field(build_model(config.model).module, "features.3", (64, 64)).sigma
    assert architectures.predicted(scripts / "run") == truth
