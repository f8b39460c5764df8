"""A sweep on a cluster, through submitit: jobs submitted as one array, waited for, and the dead ones recorded."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from erflab.compose import as_plain, to_config
from erflab.errors import ConfigError, UnfinishedError
from erflab.failure import write_failure
from erflab.job import finished
from erflab.slurm import ending, require_accounting

try:
    import submitit
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
except ImportError as error:
    raise ConfigError("hydra/launcher=slurm needs submitit's launcher: pip install 'erflab[slurm]'.") from error

log = logging.getLogger("erflab")

SHARED = {"name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}
"""Settings that submitit gives to any cluster; the others are Slurm's."""

OWN = {"cluster", "folder", "max_num_timeout", "poll_s"}
"""Settings that are no resource of a job."""


class ClusterJob(BaseSubmititLauncher):  # type: ignore[misc]
    """What runs on a node: the composition and the task, as hydra-submitit-launcher does them."""


@dataclass(frozen=True)
class Run:
    """One job of the sweep before it is submitted: its number, what it is composed from, and where its result goes."""

    number: int
    overrides: list[str]
    composed: DictConfig
    directory: Path

    def is_answered(self) -> bool:
        """Whether no node is needed: the result is there already, or what is asked for will be refused."""
        try:
            config = to_config(self.composed)
            return not config.runtime.overwrite and finished(config, self.directory) is not None
        except Exception:  # the run itself tells and records it
            return True

    def record(self, reason: str) -> None:
        """Leave in the directory that the cluster ended the run, unless its result was there already."""
        if not (self.directory / "result.nc").exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            asked = {"overrides": self.overrides, "config": as_plain(self.composed)}
            write_failure(UnfinishedError(reason), self.directory, asked)


@dataclass(frozen=True)
class Sweep:
    """What Hydra hands to a launcher."""

    context: HydraContext
    task: TaskFunction
    config: DictConfig

    def run(self, settings: dict[str, Any], job_overrides: list[list[str]], first: int) -> list[JobReturn]:
        """Submit what is still to be measured and wait for it; tell at once what needs no node.

        Args:
            settings: of `conf/hydra/launcher/slurm.yaml`.
            job_overrides: one list a job.
            first: the number of the first job.

        Raises:
            ConfigError: the cluster cannot be used, or refuses the jobs.
        """
        if settings["cluster"] == "slurm":
            require_accounting()
        runs = [self._compose(number, overrides) for number, overrides in enumerate(job_overrides, first)]
        waiting = []
        for run in runs:
            if run.is_answered():
                self._run_here(run)
            else:
                waiting.append(run)
        self._submit(settings, waiting)
        return [JobReturn(overrides=run.overrides, status=JobStatus.COMPLETED) for run in runs]

    def _submit(self, settings: dict[str, Any], runs: list[Run]) -> None:
        if not runs:
            return
        job = ClusterJob()
        job.setup(hydra_context=self.context, task_function=self.task, config=self.config)
        state = Singleton.get_state()
        arguments = [(run.overrides, "hydra.sweep.dir", run.number, str(run.number), state) for run in runs]
        try:
            jobs = _executor(settings).map_array(job, *zip(*arguments, strict=True))
        except (submitit.core.utils.FailedJobError, NameError, ValueError, AssertionError) as error:
            raise ConfigError(f"the jobs cannot be submitted: {' '.join(str(error).split())}") from error
        log.info("submitted %d jobs: %s", len(jobs), ", ".join(job.job_id for job in jobs))
        for run, submitted in zip(runs, jobs, strict=True):
            if (reason := ending(submitted, settings["poll_s"])) is not None:
                run.record(reason)

    def _compose(self, number: int, overrides: list[str]) -> Run:
        composed = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(composed.hydra.job):
            composed.hydra.job.num = number
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().set_config(composed)  # ${hydra:...} in the directory's name
            directory = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = before
        own = copy.deepcopy(composed)
        with open_dict(own):
            del own["hydra"]
        return Run(number, overrides, own, directory)

    def _run_here(self, run: Run) -> None:
        here = BasicLauncher()
        here.setup(hydra_context=self.context, task_function=self.task, config=self.config)
        here.launch([run.overrides], run.number)


def _executor(settings: dict[str, Any]) -> submitit.AutoExecutor:
    requeues = {"slurm_max_num_timeout": settings["max_num_timeout"]}
    executor = submitit.AutoExecutor(settings["folder"], cluster=settings["cluster"], **requeues)
    given = {key: value for key, value in settings.items() if key not in OWN}
    executor.update_parameters(**{key if key in SHARED else f"slurm_{key}": value for key, value in given.items()})
    return executor
