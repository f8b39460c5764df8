"""The record of a run that failed: `failure.json`, where its result would be."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from erflab.errors import foreseen
from erflab.jsonfiles import write_json

FAILURE = "failure.json"
REFUSED = ".refused"
UNFINISHED = ("unfinished", "no result: killed, or still running")
ENDED_FROM_OUTSIDE = {"UnfinishedError", "UncompletedJobError"}
"""Kinds that say nothing against the run: a cluster's end of it, and what submitit raises in it when its time is up."""


def write_failure(error: Exception, directory: Path, asked: Mapping[str, Any]) -> None:
    """Leave the kind of `error`, its reason on one line, what was asked for (overrides and config), and when."""
    failure = {
        "kind": type(error).__name__,
        "reason": reason_of(error),
        "failed": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        **asked,
    }
    write_json(directory / FAILURE, failure)


def refusal(directory: Path) -> Path:
    """Where a sweep records what it was refused in a run's directory that holds another's result: beside it."""
    return directory.parent / REFUSED / directory.name


def read_ending(directory: Path) -> tuple[str, str] | None:
    """The status of a run without a result, failed or unfinished, and why; None if no failure is recorded."""
    file = directory / FAILURE
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text())
        return ("unfinished" if found["kind"] in ENDED_FROM_OUTSIDE else "failed"), str(found["reason"])
    except (ValueError, KeyError, TypeError):
        return "failed", f"{FAILURE} is damaged; run.log may tell why"


def read_configuration(directory: Path) -> dict[str, Any]:
    """The configuration of the run in a directory that failed or has no result yet; empty if none is known."""
    try:
        return dict(json.loads((directory / FAILURE).read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return _composed(directory / ".hydra" / "config.yaml")


def _composed(file: Path) -> dict[str, Any]:
    """What Hydra composed, as it is written before a run measures; empty if it is not there or damaged."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from erflab.compose import as_plain

    try:
        found = OmegaConf.load(file)
        return as_plain(found) if isinstance(found, DictConfig) else {}
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return {}


def started(directory: Path) -> list[Path]:
    """The directories below `directory` in which a run was started, or ended before it could be."""
    return sorted({mark.parent for name in (".hydra", FAILURE) for mark in directory.rglob(name)})


def jobs(directory: Path) -> set[Path]:
    """The directories of the runs below `directory`: a run that was refused is counted where it was to be."""
    return {run.parents[1] / run.name if run.parent.name == REFUSED else run for run in started(directory)}


def endings(directory: Path) -> Iterator[tuple[Path, str, str]]:
    """The directories below `directory` whose run failed or has no result, with status and reason."""
    for folder in started(directory):
        if (ending := read_ending(folder)) is not None:
            yield folder, *ending
        elif not (folder / "result.nc").exists():
            yield folder, *UNFINISHED


def reason_of(error: Exception) -> str:
    """Why something failed, on one line."""
    return foreseen(error) or _unforeseen(error)


def _unforeseen(error: Exception) -> str:
    text = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    short = isinstance(error, MemoryError) or "out of memory" in str(error)
    return f"{text}. Lower runtime.batch_size or attribution.occlusion.per_evaluation." if short else text
