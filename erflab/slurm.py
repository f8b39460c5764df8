"""What Slurm is asked: whether it keeps account of its jobs, and how one ended that left no outcome."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from erflab.errors import ConfigError

if TYPE_CHECKING:
    from submitit import Job

REASONS = {
    "CANCELLED": "cancelled",
    "TIMEOUT": "out of time; hydra.launcher.timeout_min=N gives more",
    "OUT_OF_MEMORY": "out of memory; hydra.launcher.mem_gb=N gives more",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "preempted by another job",
    "DEADLINE": "its deadline passed",
}
"""What Slurm's states of a dead job mean (sacct's column State)."""


def require_accounting() -> None:
    """Check before submitting that Slurm is there and keeps account: else whoever waits for a cancelled job waits for ever.

    Raises:
        ConfigError: no `sbatch` or `sacct`, or accounting is off.
    """
    missing = [tool for tool in ("sbatch", "sacct") if shutil.which(tool) is None]
    if missing:
        raise ConfigError(
            f"hydra/launcher=slurm found no {' and no '.join(missing)}; start it where Slurm's commands are, "
            "or use hydra/launcher=joblib."
        )
    asked = _sacct("--format=JobID")
    if asked.returncode:
        raise ConfigError(
            "hydra/launcher=slurm needs Slurm's accounting (slurmdbd), without which the end of a cancelled job is never "
            f"learnt; sacct says: {' '.join(asked.stderr.split())}"
        )


def ending(job: Job[Any], poll_s: float) -> str | None:
    """Wait for a job of submitit's, asking every `poll_s` seconds; why it left no outcome, or None if it did.

    A job that Slurm calls completed has left one, though a slow file system may not show it yet.
    """
    from submitit import SlurmJob  # of an extra
    from submitit.core.utils import pickle_load

    tasks = [job.task(number) for number in range(job.num_tasks)]
    while not all(task.done(force_check=True) for task in tasks):
        time.sleep(poll_s)
    dead = [task for task in tasks if not task.paths.result_pickle.exists()]
    if not dead:
        outcomes = [pickle_load(task.paths.result_pickle) for task in tasks]
        traces = [content for outcome, content in outcomes if outcome == "error"]
        return f"job {job.job_id}: {traces[0].strip().splitlines()[-1]}" if traces else None
    state = (job.state.split() or ["unknown"])[0]  # Slurm says "CANCELLED by 0"
    if state == "COMPLETED":
        return None
    exits = _exits(job.job_id) if isinstance(job, SlurmJob) else []
    return f"job {job.job_id}: {_told(state, exits)}. Its log: {dead[0].paths.stderr}"


def _exits(job_id: str) -> list[str]:
    """The exit codes (CODE:SIGNAL) of a job and its steps."""
    return _sacct("--parsable2", "--format=ExitCode", f"--jobs={job_id}").stdout.split()


def _told(state: str, exits: list[str]) -> str:
    if state in REASONS:
        return REASONS[state]
    numbers = [int(signalled) for _, _, signalled in (code.partition(":") for code in exits)]
    if killed_by := next(filter(None, numbers), 0):
        return f"killed by signal {killed_by}, perhaps for want of memory (hydra.launcher.mem_gb=N)"
    return f"ended without an outcome ({', exit code '.join([state, *exits[:1]])})"


def _sacct(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sacct", "--noheader", *options], capture_output=True, text=True, check=False)
