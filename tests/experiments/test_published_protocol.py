"""The study of the published area ratio: what it does to maps of known size, and an order that must turn round."""

import csv
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import erflab
from erflab.analysis.scaling import Coefficient
from erflab.result import Result


def measured(layers: int) -> Result:
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(layers)))
    return erflab.measure(network, torch.randn(4, 3, 33, 33), magnitude="replknet")


def test_the_published_square_of_a_small_map_is_the_scale_free_one():
    import published_protocol as study

    results = {"narrow": measured(4), "wide": measured(7)}
    curves = {name: study.scaled(result) for name, result in results.items()}
    found = [claim.holds for claim in study.claims(curves, results)]
    assert found == [True, True, True, True]
    flat = {name: curve * 0 + curve[0] for name, curve in curves.items()}
    assert [claim.holds for claim in study.claims(flat, results)] == [False, True, True, False]
    assert study.side(0.25, results["wide"]) == pytest.approx(33 / 2)
    # At the largest factor the ratio nears that of an even field of the same support, 15 px.
    assert study.side(float(curves["wide"][-1]), results["wide"]) == pytest.approx(15 / math.sqrt(2), abs=2)


def test_what_is_stored_is_read_drawn_and_checked(scripts: Path, monkeypatch: pytest.MonkeyPatch):
    import published_protocol as study

    sweep = scripts / "multirun" / "published_protocol"
    runs = ("added_by_hand", "resnet18_none", "resnet50_none", "tf_efficientnet_lite0_efficientnet_lite0")
    for run in runs:
        measured(5).save(sweep / run)
    names = iter(["added, trained", "resnet18, random", "resnet50, random", "lite0, trained"])
    monkeypatch.setattr(study, "label", lambda result: next(names))
    with pytest.raises(SystemExit, match=r"^the finding does not hold: it turns an order round"):  # one network thrice
        study.main(reduced={"model.name": "resnet18,resnet50"})
    table = list(csv.DictReader((sweep / "table.csv").read_text().splitlines()))
    assert [row["network"] for row in table] == [
        "added, trained",
        "resnet18, random",
        "resnet50, random",
        "lite0, trained",
    ]
    assert table[0]["published 50%"].startswith(f"{100 * 49 / 33**2:.3f} [")  # a square of 7 px
    assert (sweep / "published_protocol.pdf").exists()


@pytest.mark.slow
def test_the_study_from_end_to_end(scripts: Path, capsys: pytest.CaptureFixture[str]):
    import published_protocol as study

    study.main()
    assert "DOES NOT HOLD" not in capsys.readouterr().out
    assert (scripts / "multirun" / "published_protocol" / "finding.md").exists()


@pytest.mark.parametrize(("free", "holds"), [(10.0, True), (15.0, False)])
def test_an_order_that_does_not_turn_round_is_noticed(free, holds):
    import published_protocol as study

    def number(value: float) -> Coefficient:
        return Coefficient(value, 0.1, (value - 0.2, value + 0.2))

    table = {
        "resnet18, random": {"published 50%": number(15), "scale-free 50%": number(14)},
        "resnet50, random": {"published 50%": number(19), "scale-free 50%": number(free)},
    }
    assert study.order(table).holds is holds
