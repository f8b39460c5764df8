"""Runs in a tracker as well, TensorBoard or MLflow: sent once, after the result is written, and never at its cost."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from erflab.config import MLflowConfig, TensorBoardConfig, TrackingConfig, as_dict
from erflab.errors import ConfigError
from erflab.jsonfiles import write_json
from erflab.result import Result
from erflab.tracking.record import Record, recorded

TRACKED = "tracking.json"
"""Where a run was sent: what keeps a finished run from being sent twice."""

Sink = Callable[[Record], dict[str, str]]
"""Sends a run to one tracker and returns where it is found there; raises whatever the tracker's library does if it cannot."""

log = logging.getLogger("erflab")


def refuse_missing(tracking: TrackingConfig) -> None:
    """Raise ConfigError, before anything is measured, if the tracker's package is not installed."""
    if tracking.package is not None and find_spec(tracking.package) is None:
        raise ConfigError(
            f"tracking={tracking.sink} needs the package {tracking.package!r}, which is not installed: "
            f"pip install 'erflab[{tracking.sink}]'."
        )


def track(result: Result, tracking: TrackingConfig, directory: Path) -> list[str]:
    """Send a result that is written in `directory`, unless it was sent there before.

    Returns:
        A warning if that failed: the result stands, and the same run started again sends it.
    """
    if tracking.package is None:
        return []
    wanted, sent = {"sink": tracking.sink, **as_dict(tracking)}, _sent(directory)
    if any(wanted.items() <= entry.items() for entry in sent):
        return []
    try:
        found = _sink(tracking)(recorded(result, directory))
        write_json(directory / TRACKED, [*sent, wanted | found])
    except Exception as error:  # a server that is down, a full disk: each library raises its own
        failed = f"tracking={tracking.sink} failed; the result is kept, and the same command sends it again"
        warning = f"{failed}: {type(error).__name__}: {error}"
        log.warning("%s", warning)
        return [warning]
    log.info("tracked: %s", found)
    return []


def _sink(tracking: TrackingConfig) -> Sink:
    """The sink of that kind. Imported here: MLflow alone takes seconds."""
    if isinstance(tracking, TensorBoardConfig):
        from erflab.tracking.tensorboard import TensorBoard

        return TensorBoard(tracking)
    assert isinstance(tracking, MLflowConfig)
    from erflab.tracking.mlflow import MLflow

    return MLflow(tracking)


def _sent(directory: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads((directory / TRACKED).read_text()))
    except (OSError, ValueError):  # none yet, or damaged: then it is sent once more
        return []
