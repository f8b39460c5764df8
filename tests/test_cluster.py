"""The launcher for clusters without one: what is submitted, how dead jobs are told, and what is refused before submitting."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sweeping import TINY, erflab, folder

from erflab import collect
from erflab.errors import ConfigError
from erflab.slurm import ending, require_accounting

submitit = pytest.importorskip("submitit", reason="submitit is not installed")

__all__ = ["folder"]

# What submitit asks (with a heading), and what erflab asks.
SACCT = 'case "$*" in *NodeList*) printf "JobID|State|NodeList\\n{job}|{state}|x\\n";; *) echo {exits};; esac'

LAUNCH = ["-m", *TINY, "hydra/launcher=slurm", "hydra.sweep.dir=sweep", "model.seed=0,1"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts shell scripts in the place of Slurm's commands."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def write(name: str, script: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    return write


@dataclass
class Pool:
    """In the place of submitit's executor: jobs run in this process, but for those that were cancelled in the queue."""

    folder: Path
    cancelled: set[int]
    submitted: list[int]

    def map_array(self, job: Callable[..., Any], *columns: Any) -> list[Any]:
        rows = list(zip(*columns, strict=True))
        self.submitted.append(len(rows))
        jobs = [submitit.SlurmJob(self.folder, f"7_{k}") for k in range(len(rows))]
        for k, (row, submitted) in enumerate(zip(rows, jobs, strict=True)):
            if k not in self.cancelled:
                submitit.core.utils.cloudpickle_dump(("success", job(*row)), submitted.paths.result_pickle)
        return jobs


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    (tmp_path / "jobs").mkdir()
    pool = Pool(tmp_path / "jobs", set(), [])
    monkeypatch.setenv("SUBMITIT_DEBUG_JOB_ID", "7")
    monkeypatch.setattr("erflab.cluster._executor", lambda settings: pool)
    return pool


def test_only_what_is_missing_is_submitted_and_the_cancelled_are_told(
    folder: Path,
    pool: Pool,
    command: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    command("sbatch", "exit 1")
    command("sacct", SACCT.format(job="7_1", state="CANCELLED by 0", exits="0:0"))
    pool.cancelled = {1}
    assert erflab(monkeypatch, *LAUNCH) == 1
    assert "erflab: error: 1 of 2 jobs in sweep unfinished; the others are finished" in capfd.readouterr().err
    table = collect("sweep")
    assert dict(zip(table["status"], table["model.seed"], strict=True)) == {"finished": 0, "unfinished": 1}
    assert table["reason"].dropna().str.startswith("job 7_1: cancelled. Its log: ").all()
    pool.cancelled, pool.folder = set(), folder
    assert erflab(monkeypatch, *LAUNCH) == 0
    assert list(collect("sweep")["status"]) == ["finished", "finished"]
    assert erflab(monkeypatch, *LAUNCH) == 0
    assert pool.submitted == [2, 1]


@pytest.mark.parametrize(
    ("state", "exits", "reason"),
    [
        ("CANCELLED by 0", "0:0 0:15", "job 7: cancelled. Its log: "),
        ("TIMEOUT", "0:0 0:0", r"job 7: out of time; hydra.launcher.timeout_min=N gives more. Its log: "),
        ("OUT_OF_MEMORY", "0:125", r"job 7: out of memory; hydra.launcher.mem_gb=N gives more. Its log: "),
        ("FAILED", "9:0 9:0 0:9", "job 7: killed by signal 9, perhaps for want of memory"),
        ("FAILED", "3:0 3:0", "job 7: ended without an outcome (FAILED, exit code 3:0). Its log: "),
        ("FAILED", "", "job 7: ended without an outcome (FAILED). Its log: "),
        ("COMPLETED", "0:0", None),
    ],
)
def test_how_a_job_ended_is_told(
    state: str, exits: str, reason: str | None, tmp_path: Path, command: Callable[[str, str], None]
) -> None:
    command("sacct", SACCT.format(job=7, state=state, exits=exits))
    told = ending(submitit.SlurmJob(tmp_path, "7"), poll_s=0.1)
    assert told == reason if reason is None else str(told).startswith(reason)


def test_what_a_job_raised_is_told(tmp_path: Path, command: Callable[[str, str], None]) -> None:
    command("sacct", "exit 1")
    job = submitit.SlurmJob(tmp_path, "7")
    submitit.core.utils.cloudpickle_dump(("error", "Traceback\n  here\nKeyError: 'x'"), job.paths.result_pickle)
    assert ending(job, poll_s=0.1) == "job 7: KeyError: 'x'"


def test_a_cluster_that_cannot_be_waited_for_is_refused_before_submitting(
    folder: Path,
    command: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(folder))
        with pytest.raises(
            ConfigError, match=r"found no sbatch and no sacct; start it where Slurm's commands are, or use"
        ):
            require_accounting()
    command("sbatch", "touch submitted")
    command("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    assert erflab(monkeypatch, *LAUNCH) == 1
    told = capfd.readouterr().err
    assert "erflab: error: hydra/launcher=slurm needs Slurm's accounting (slurmdbd)" in told
    assert "sacct says: Slurm accounting storage is disabled" in told
    assert not (folder / "submitted").exists()


def test_what_slurm_refuses_is_told(
    folder: Path,
    command: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    command("sbatch", "echo sbatch: error: invalid partition specified: nowhere >&2; exit 1")
    command("sacct", "exit 0")
    command("srun", "exit 0")
    assert erflab(monkeypatch, *LAUNCH, "hydra.launcher.partition=nowhere") == 1
    assert "the jobs cannot be submitted: sbatch: error: invalid partition specified" in capfd.readouterr().err
    assert erflab(monkeypatch, *LAUNCH, "hydra.launcher.partion=nowhere") == 1
    assert "Could not override 'hydra.launcher.partion'" in capfd.readouterr().err
