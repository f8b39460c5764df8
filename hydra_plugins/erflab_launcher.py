"""Where Hydra finds `hydra/launcher=slurm`: it takes launchers from the package `hydra_plugins` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ClusterLauncher(Launcher):
    """Submits a sweep's jobs through submitit and waits for all of them (`erflab.cluster`, imported when needed only).

    Unlike hydra-submitit-launcher's own launchers, from which it takes what a job does, it outlives the jobs: one that is
    cancelled or killed is recorded with the reason, and the sweep goes on.
    """

    def __init__(self, **settings: Any) -> None:
        """Settings: those of `conf/hydra/launcher/slurm.yaml`."""
        self.settings: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(settings))  # type: ignore[assignment]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra knows of the sweep."""
        self.context = hydra_context
        self.task = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs. Raises ConfigError if they cannot be submitted."""
        from erflab.cluster import Sweep

        sweep = Sweep(self.context, self.task, self.config)
        return sweep.run(self.settings, [list(overrides) for overrides in job_overrides], initial_job_idx)
