"""The study of training, on stored numbers: what it writes, and when it fails."""

import json
from pathlib import Path

import pytest

SIGMA = {"none": 10.0, "efficientnet_lite0": 4.0}


def store(scripts: Path, **changed: float) -> Path:
    """Summaries with sigmas of 10 px for random and 4 px for trained weights; `changed` by layer, trained."""
    sweep = scripts / "multirun" / "trained_against_random"
    for weights, sigma in SIGMA.items():
        for layer in ("blocks.2", "blocks.3", "blocks.4"):
            value = changed.get(layer.replace(".", ""), sigma) if weights != "none" else sigma
            (sweep / f"{weights}_{layer}").mkdir(parents=True)
            (sweep / f"{weights}_{layer}" / "summary.json").write_text(json.dumps({"gradient.sigma": {"value": value}}))
    return sweep


def test_it_writes_figure_table_and_finding(scripts):
    import trained_against_random

    sweep = store(scripts)
    trained_against_random.main()
    assert (sweep / "table.csv").read_text().split()[1] == "blocks.2,10.0,4.0"
    assert (sweep / "finding.md").read_text().count("- holds: ") == 3
    assert (sweep / "sigma_against_depth.pdf").exists()


def test_a_trained_field_as_wide_as_the_random_one_ends_it(scripts):
    import trained_against_random

    store(scripts, blocks3=9.9)
    with pytest.raises(SystemExit, match=r"does not hold: at blocks.3 .* ratio 0\.99 in 0\.3\.\.0\.7$"):
        trained_against_random.main()
