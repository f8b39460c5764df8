"""The study of training, from stored summaries: its table, its figure, and a claim that fails when it is not so."""

import csv
import json
from pathlib import Path

import pytest


def store(scripts: Path, random: float) -> Path:
    """What five runs of two blocks leave, sigma of the random networks being `random` px give or take the seed."""
    sweep = scripts / "multirun" / "trained_against_random"
    sigmas = {"efficientnet_lite0_0": 4.0} | {f"none_{seed}": random + seed / 10 for seed in range(4)}
    for name, sigma in sigmas.items():
        quantity = {"value": sigma, "standard_error": 0.1, "interval": [sigma - 0.2, sigma + 0.2]}
        rows = [
            {
                "layer": layer,
                "trf_size_y": {"value": trf},
                "flags": [{"code": "trf_clipped"}] if trf > 352 else [],
                "gradient.sigma": quantity,
                "gradient.images": {"value": 64},
            }
            for layer, trf in (("blocks.0", 7), ("blocks.6", 500))
        ]
        (sweep / name).mkdir(parents=True)
        (sweep / name / "summary.json").write_text(json.dumps(rows))
    return sweep


def test_the_finding_is_drawn_written_and_checked(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import trained_against_random

    sweep = store(scripts, random=8.0)
    trained_against_random.main()
    table = list(csv.DictReader((sweep / "table.csv").read_text().splitlines()))
    assert [row["block"] for row in table] == ["blocks.0", "blocks.6"]
    assert [row["cut by the image"] for row in table] == ["no", "yes"]
    assert table[0]["sigma trained (px)"] == "4.000 [3.800, 4.200]"
    # Seeds at 8.0, 8.1, 8.2, 8.3: mean 8.15, standard error 0.0645, t(3) = 3.182.
    assert table[0]["sigma random (px)"] == "8.150 [7.945, 8.355]"
    assert table[0]["trained / random"].startswith("0.491 [0.450, 0.532]")
    assert (sweep / "trained_against_random.pdf").exists()
    assert "holds: blocks.0: training narrowed the field, to 0.491" in capsys.readouterr().out


def test_a_finding_that_no_longer_holds_is_said_and_fails(scripts: Path) -> None:
    import trained_against_random

    store(scripts, random=4.1)
    with pytest.raises(SystemExit, match=r"the finding does not hold: blocks.0: training narrowed"):
        trained_against_random.main()
