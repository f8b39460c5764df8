"""The study of architectures: claims from a collected table, and what happens to them where they do not hold."""

import pandas as pd
import pytest


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
