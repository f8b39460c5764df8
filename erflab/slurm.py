"""What Slurm is asked: whether it keeps account of its jobs, and how one ended that left no outcome."""

from __future__ import annotations

import shutil
import signal
import subprocess
from typing import Any

from erflab.errors import ConfigError

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


def ending(job: Any) -> str | None:
    """Wait for a job of submitit's; why it left no outcome, or None if it did.

    A job that Slurm calls completed has left one, though a slow file system may not show it yet.
    """
    job.wait()
    dead = [task for task in map(job.task, range(job.num_tasks)) if not task.paths.result_pickle.exists()]
    if not dead:
        error = job.exception()
        return None if error is None else f"job {job.job_id}: {str(error).strip().splitlines()[-1]}"
    state, code = _account(job.job_id) if job.watcher.__class__.__name__ == "SlurmInfoWatcher" else (job.state, "")
    return None if state == "COMPLETED" else f"job {job.job_id}: {_told(state, code)}. Its log: {dead[0].paths.stderr}"


def _account(job_id: str) -> tuple[str, str]:
    """State and exit code (CODE:SIGNAL) of a job. "CANCELLED by 0" is cut to its first word."""
    line = _sacct("--allocations", "--parsable2", "--format=State,ExitCode", f"--jobs={job_id}").stdout.strip()
    state, _, code = line.partition("|")
    return (state.split() or ["unknown"])[0], code


def _told(state: str, code: str) -> str:
    if state in REASONS:
        return REASONS[state]
    status, _, killed_by = code.partition(":")
    number = int(killed_by or 0) or int(status or 0) - 128  # a shell reports signal N as 128 + N
    if number in set(signal.Signals):
        return f"killed by {signal.Signals(number).name}, perhaps for want of memory (hydra.launcher.mem_gb=N)"
    return f"ended as {state}" + (f" with exit code {status}" if status else "")


def _sacct(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sacct", "--noheader", *options], capture_output=True, text=True, check=False)
