"""What the studies share: measure a sweep where it has not run yet, write its table, state the finding and check it.

python experiments/NAME.py           conf/experiment/NAME.yaml, the quick form
python experiments/NAME.py --full    conf/experiment/NAME_full.yaml, which builds on it
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from matplotlib.figure import Figure
from omegaconf import OmegaConf

import erflab
from erflab.analysis import Coefficient
from erflab.compose import config_directory, register
from erflab.config import ModelConfig
from erflab.figures import save
from erflab.models import build_model
from erflab.result import Result
from erflab.storage import read_attributes

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # a configuration's experiments.NAME imports wherever a study is started

Table = Sequence[Mapping[str, object]]
"""Rows of equal columns."""


@dataclass(frozen=True)
class Claim:
    """A sentence that a study checks each time it runs."""

    sentence: str
    holds: bool


def run(study: Callable[[str], None], name: str) -> None:
    """From the command line: the study of the experiment NAME, or with --full of NAME_full."""
    question = (sys.modules[study.__module__].__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--full", action="store_true", help=f"more seeds and images: conf/experiment/{name}_full.yaml")
    study(f"{name}_full" if parser.parse_args().full else name)


def replicates(experiment: str, reduced: Mapping[str, str] | None = None) -> dict[str, list[Result]]:
    """The results of a sweep (see `measured`) by the value of its first option, such as the weight seeds of each network."""
    found = replicate_directories(experiment, reduced)
    return {value: [erflab.load(directory) for directory in directories] for value, directories in found.items()}


def replicate_directories(experiment: str, reduced: Mapping[str, str] | None = None) -> dict[str, list[Path]]:
    """The same before they are read: where they are."""
    found: dict[str, list[Path]] = {}
    for (value, *_), directory in measured(experiment, reduced).items():
        found.setdefault(value, []).append(directory)
    return found


def measured(experiment: str, reduced: Mapping[str, str] | None = None) -> dict[tuple[str, ...], Path]:
    """The directories of the sweep in conf/experiment/EXPERIMENT.yaml, by the values of its options in the file's order.

    Runs `erflab +experiment=EXPERIMENT` in the working directory first if any result is missing. `reduced` gives
    some of the swept options fewer values, or sweeps others too: {"model.seed": "0,1", "images.count": "4"}.
    """
    directories = _directories(experiment, reduced or {})
    if not all((directory / "summary.json").exists() for directory in directories.values()):
        _run(experiment, reduced or {})
    return directories


def number(directory: Path, name: str) -> float:
    """One number of a result's summary, such as "gradient.sigma", in the summary's unit."""
    (row,) = rows(directory)
    return float(row[name]["value"])


def numbers(directories: Sequence[Path], name: str) -> np.ndarray:
    """The same number of every result, such as one a weight seed."""
    return np.array([number(directory, name) for directory in directories])


def rows(directory: Path) -> list[dict[str, Any]]:
    """The summary of each layer or unit that a run measured."""
    summary = json.loads((directory / "summary.json").read_text())
    return summary if isinstance(summary, list) else [summary]


def predicted_sigma(directory: Path) -> float:
    """Sigma in px that structure and weights of a measured network predict, without an image: it is built again."""
    (about,) = read_attributes(directory / "result.nc")
    theory = about["theory"]
    model = build_model(ModelConfig(**about["config"]["model"]), allow=["experiments"]).module
    return erflab.predicted_field(model, theory["layer"], theory["input_size"]).sigma


def coefficient(row: Mapping[str, Any], name: str) -> Coefficient:
    """One number of a summary with its error over images."""
    found = row[name]
    return Coefficient(found["value"], found["standard_error"], found["interval"] and tuple(found["interval"]))


def _directories(experiment: str, reduced: Mapping[str, str]) -> dict[tuple[str, ...], Path]:
    """Where the sweep leaves each of its jobs."""
    register()
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = hydra.compose("config", [f"+experiment={experiment}"], return_hydra_config=True)
    sweep = config.hydra.sweep
    options = {**config.hydra.sweeper.params, **reduced}
    found = {}
    for values in itertools.product(*(_values(f"{option}={given}") for option, given in options.items())):
        for option, value in zip(options, values, strict=True):
            OmegaConf.update(config, option, value, force_add=True)
        found[values] = Path(sweep.dir) / sweep.subdir
    return found


def _values(override: str) -> Iterator[str]:
    """What Hydra's sweeper makes of OPTION=VALUES."""
    parsed = OverridesParser.create().parse_override(override)
    return parsed.sweep_string_iterator() if parsed.is_sweep_override() else iter([str(parsed.value())])


def _run(experiment: str, reduced: Mapping[str, str]) -> None:
    params = ",".join(f"{option}:'{values}'" for option, values in reduced.items())
    # The sweep's models may come from this folder, which must import from any working directory.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "erflab", f"+experiment={experiment}", f"++hydra.sweeper.params={{{params}}}"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})


def publish(
    experiment: str,
    finding: str,
    claims: Sequence[Claim],
    figure: Figure,
    tables: Mapping[str, Table],
    **values: object,
) -> None:
    """What a study leaves below multirun/EXPERIMENT: each table as NAME.csv, the figure under the study's name, finding.md.

    In the finding {NAME} stands for a table, and for any of the values. Exits with a message if a claim does not hold.
    """
    directory = Path("multirun") / experiment
    for name, table in tables.items():
        write_table(directory / f"{name}.csv", table)
    print(*save(figure, directory / experiment.removesuffix("_full")), sep="\n")
    shown = {name: markdown(table) for name, table in tables.items()}
    conclude(directory, finding.format(**shown, **values), claims)


def write_table(path: Path, rows: Table) -> None:
    """A CSV file with one row a mapping, columns in the order of the first."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def markdown(rows: Table) -> str:
    """The same table for finding.md."""
    cells = [[*rows[0]], ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def conclude(directory: Path, finding: str, claims: Sequence[Claim]) -> None:
    """Write and print finding.md: the finding, and what of it holds. Exits with a message if a claim does not."""
    verdicts = [f"- {'holds' if claim.holds else 'DOES NOT HOLD'}: {claim.sentence}" for claim in claims]
    text = "\n".join([finding.strip(), "", *verdicts, ""])
    (directory / "finding.md").write_text(text)
    print(text)
    failed = [claim.sentence for claim in claims if not claim.holds]
    if failed:
        sys.exit(f"the finding does not hold: {'; '.join(failed)}")
