"""What the studies share: where a sweep leaves its jobs, the table, and a finding that is checked."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

import erflab
from erflab.config import AttributionConfig, ErflabConfig, ModelConfig, NoiseConfig, RuntimeConfig
from erflab.measurement import run

SWEPT = {"model.arguments.layers": "5,10", "model.seed": "range(2)"}
PLACES = {
    ("relu", layers, seed): Path(f"multirun/depth_law/relu_{layers}_{seed}") for layers in ("5", "10") for seed in "01"
}


def reduced() -> dict[str, str]:
    return {"model.arguments.activation": "relu", **SWEPT}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that a study would run."""
    import study  # noqa: F401 - what it imports may run commands of its own, once

    ran: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: ran.append(command))
    return ran


def test_a_sweep_is_measured_where_a_result_is_missing(commands):
    from study import measured

    assert measured("depth_law", reduced()) == PLACES
    ((*_, experiment, params),) = commands
    assert experiment == "+experiment=depth_law"
    assert params == (
        "++hydra.sweeper.params={model.arguments.activation:'relu',model.arguments.layers:'5,10',model.seed:'range(2)'}"
    )


def test_a_measured_sweep_is_only_read(commands, scripts):
    from study import measured, number

    for i, place in enumerate(PLACES.values()):
        (scripts / place).mkdir(parents=True)
        (scripts / place / "summary.json").write_text(json.dumps({"gradient.sigma": {"value": i}}))
    assert [number(place, "gradient.sigma") for place in measured("depth_law", reduced()).values()] == [0, 1, 2, 3]
    assert commands == []


def test_the_whole_sweep_is_what_the_file_says(commands):
    from study import measured

    found = measured("trained_against_random")
    assert found[("none", "3")] == Path("multirun/trained_against_random/none_3")
    assert len(found) == 8


@pytest.mark.parametrize(("arguments", "experiment"), [([], "gridding"), (["--full"], "gridding_full")])
def test_a_study_runs_its_quick_or_its_full_experiment(arguments, experiment, monkeypatch):
    from study import run

    ran: list[str] = []
    monkeypatch.setattr("sys.argv", ["gridding.py", *arguments])
    run(lambda name: ran.append(name), "gridding")  # a function has a module, and that a question
    assert ran == [experiment]


def test_the_full_form_builds_on_the_quick_one(commands):
    from study import measured

    found = measured("enlarge_full", {"model.arguments.layers": "c3x6"})
    assert found[("c3x6", "31")] == Path("multirun/enlarge_full/c3x6_31")
    assert commands[0][-2] == "+experiment=enlarge_full"


def test_a_table_is_written_and_shown(scripts):
    from study import markdown, write_table

    rows = [{"layers": 5, "sigma": 1.8}, {"layers": 10, "sigma": 2.6}]
    write_table(scripts / "table.csv", rows)
    assert (scripts / "table.csv").read_text().split() == ["layers,sigma", "5,1.8", "10,2.6"]
    assert markdown(rows) == "| layers | sigma |\n| --- | --- |\n| 5 | 1.8 |\n| 10 | 2.6 |"


def test_a_number_of_every_seed(scripts):
    from study import numbers

    for seed in (0, 1):
        (scripts / str(seed)).mkdir()
        (scripts / str(seed) / "summary.json").write_text(json.dumps({"gradient.sigma": {"value": 2.5 + seed}}))
    assert numbers([scripts / "0", scripts / "1"], "gradient.sigma").tolist() == [2.5, 3.5]


def test_a_measured_network_is_predicted_with_the_weights_that_it_had(scripts):
    from spelled import network
    from study import predicted_sigma

    config = ErflabConfig(
        model=ModelConfig(
            _target_="experiments.spelled.network", arguments={"layers": "c3-c3g4", "channels": 8}, seed=3
        ),
        images=NoiseConfig(count=1, size=24),
        attribution=AttributionConfig.choosing(["gradient"], {}),
        runtime=RuntimeConfig(progress=False, allow=["experiments"]),
    )
    run(config).save(scripts / "run")
    torch.manual_seed(3)
    truth = erflab.predicted_field(network("c3-c3g4", channels=8), input_size=(24, 24)).sigma
    assert predicted_sigma(scripts / "run") == truth


def test_what_a_study_found_lies_beside_its_results(scripts, capsys):
    from matplotlib.figure import Figure
    from study import Claim, publish

    folder = scripts / "multirun" / "depth_full"
    folder.mkdir(parents=True)
    tables = {"points": [{"layers": 5}], "table": [{"slope": 0.667}]}
    publish("depth_full", "# Slope {slope:.1f}\n\n{table}\n", [Claim("it grows", True)], Figure(), tables, slope=2 / 3)
    assert {path.name for path in folder.iterdir()} == {
        "points.csv",
        "table.csv",
        "depth.pdf",
        "depth.png",
        "finding.md",
    }
    text = (folder / "finding.md").read_text()
    assert text == "# Slope 0.7\n\n| slope |\n| --- |\n| 0.667 |\n\n- holds: it grows\n"
    assert "multirun/depth_full/depth.png" in capsys.readouterr().out


def test_a_finding_that_holds_is_written(scripts, capsys):
    from study import Claim, conclude

    conclude(scripts, "# Found\n", [Claim("it grows", True)])
    assert (scripts / "finding.md").read_text() == "# Found\n\n- holds: it grows\n"
    assert "- holds: it grows" in capsys.readouterr().out


def test_a_finding_that_fails_is_written_and_ends_the_script(scripts):
    from study import Claim, conclude

    with pytest.raises(SystemExit, match=r"^the finding does not hold: it shrinks$"):
        conclude(scripts, "# Found", [Claim("it grows", True), Claim("it shrinks", False)])
    assert "- DOES NOT HOLD: it shrinks" in (scripts / "finding.md").read_text()
