"""MLflow: metrics over parts, parameters, flags as tags, summary and figures as artifacts; on a server or a local store.

How often a server that does not answer is asked again is MLflow's own setting, MLFLOW_HTTP_REQUEST_MAX_RETRIES.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from erflab.config import MLflowConfig
from erflab.tracking.record import Record

METRICS_A_CALL = 1000
PARAMS_A_CALL = 100
PARAM_LENGTH = 500
"""What servers since MLflow 1.28 take; longer values are cut, and whole in the artifact `config.json`."""
TAG_LENGTH = 5000

T = TypeVar("T")


@dataclass(frozen=True)
class MLflow:
    """Logs to the experiment of that name, which is made if there is none."""

    settings: MLflowConfig

    def __call__(self, run: Record) -> dict[str, str]:
        """Log one run. The step of a metric is the part: of several layers, sigma is drawn against depth."""
        client = MlflowClient(tracking_uri=self.settings.uri)
        run_id = client.create_run(_experiment(client, self.settings.experiment), run_name=run.name).info.run_id
        try:
            _log(client, run_id, run)
        except Exception:
            with contextlib.suppress(Exception):  # if the server is gone, what it said first is told
                client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
        return {"run_id": run_id}


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:  # another job of the sweep may have made it meanwhile
        made = client.get_experiment_by_name(name)
        if made is None:
            raise
        return str(made.experiment_id)


def _log(client: MlflowClient, run_id: str, run: Record) -> None:
    now = int(1000 * time.time())
    metrics = [Metric(_key(n), v, now, step) for step, part in enumerate(run.numbers) for n, v in part.items()]
    for measured in _in_calls(metrics, METRICS_A_CALL):
        client.log_batch(run_id, metrics=measured)
    for chosen in _in_calls([Param(_key(name), _text(value)) for name, value in run.options.items()], PARAMS_A_CALL):
        client.log_batch(run_id, params=chosen)
    tags = {"parts": ", ".join(run.parts), "flags": "\n".join(run.flags) or "none"}
    client.log_batch(run_id, tags=[RunTag(key, text[:TAG_LENGTH]) for key, text in tags.items()])
    client.log_dict(run_id, run.options, "config.json")
    for name in ("summary.json", "provenance.json"):
        client.log_artifact(run_id, str(run.directory / name))
    for figure in run.figures:
        client.log_artifact(run_id, str(figure), "figures")


def _key(name: str) -> str:
    """Without the characters that MLflow refuses: "gradient.sigma (px)" becomes "gradient.sigma px"."""
    return re.sub(r"[^\w.\-/ ]", "", name)


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= PARAM_LENGTH else f"{text[: PARAM_LENGTH - 3]}..."


def _in_calls(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """The items in runs of at most `most`: servers refuse more in one call."""
    return (items[start : start + most] for start in range(0, len(items), most))
