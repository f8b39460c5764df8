"""The settings of the trackers: one class a tracker, and one for none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from erflab.errors import ConfigError
from erflab.settings import option


@dataclass
class TrackingConfig:
    """Where a run is sent once its result is written. This one: nowhere."""

    sink: ClassVar[str] = "none"
    package: ClassVar[str | None] = None
    """What must be installed."""


@dataclass
class TensorBoardConfig(TrackingConfig):
    """Event files for TensorBoard."""

    sink = "tensorboard"
    package = "tensorboard"
    directory: str | None = option(
        None, "where the runs' event files go, each below its name; default: tensorboard/ in the run's own directory"
    )


@dataclass
class MLflowConfig(TrackingConfig):
    """A run in MLflow."""

    sink = "mlflow"
    package = "mlflow"
    uri: str | None = option(
        None, "server or store, http://HOST:5000 or sqlite:///FILE; default: MLFLOW_TRACKING_URI, else MLflow's own"
    )
    experiment: str = option("erflab", "the experiment that the run belongs to; made if there is none of that name")

    def __post_init__(self) -> None:
        """Check that there is a name."""
        if not self.experiment.strip():
            raise ConfigError(f"tracking.experiment is {self.experiment!r}; give a name.")
