"""A sweep on a real Slurm cluster: one job cancelled, one killed, the others kept, and the second start runs those two."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import cluster, install
from sweeping import TINY, folder

from erflab import collect

__all__ = ["folder"]

pytestmark = pytest.mark.slurm

SWEEP = [
    *("-m", *TINY, "hydra.sweep.dir=sweep", "+model.arguments.fault=none,held", "model.seed=0,1"),
    *(
        "hydra/launcher=slurm",
        "hydra.launcher.timeout_min=5",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.poll_s=1",
    ),
]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    install()
    with cluster() as environment:
        yield environment


def start(folder: Path, environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
    """The sweep's process, as a user would start it from the command line."""
    command = [sys.executable, "-m", "erflab", *SWEEP, *options]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def held(folder: Path) -> dict[str, int]:
    """The jobs that wait in their network, with their process ids."""
    return {file.stem: int(text) for file in folder.glob("*.pid") if (text := file.read_text())}


def told(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_sweep_outlives_cancelled_and_killed_jobs(folder: Path, environment: dict[str, str]) -> None:
    (folder / "hold").touch()
    sweep = start(folder, environment)
    try:
        end = time.monotonic() + 240
        while len(held(folder)) < 2:
            assert sweep.poll() is None, sweep.communicate()
            assert time.monotonic() < end, told(environment, "squeue")
            time.sleep(0.2)
        (cancelled, waiting), (killed, process) = sorted(held(folder).items())
        told(environment, "scancel", cancelled)
        os.kill(process, signal.SIGKILL)
        _, err = sweep.communicate(timeout=300)
    finally:
        sweep.kill()
    assert sweep.returncode == 1, err
    assert "erflab: error: 2 of 4 jobs in sweep unfinished; the others are finished" in err
    table = collect("sweep")
    assert sorted(table["status"]) == ["finished", "finished", "unfinished", "unfinished"]
    assert set(table["model.seed"]) == {0, 1}
    reasons = " ".join(table["reason"].dropna())
    assert f"job {cancelled}: cancelled. Its log: " in reasons
    assert f"job {killed}: killed by signal 9, perhaps for want of memory" in reasons
    kept = {run: Path(run, "result.nc").stat().st_mtime_ns for run in table["run"][table["status"] == "finished"]}

    end = time.monotonic() + 60
    while Path(f"/proc/{waiting}").exists():  # Slurm calls a job cancelled before its process has ended
        assert time.monotonic() < end
        time.sleep(0.2)
    (folder / "hold").unlink()
    again = start(folder, environment, "hydra.launcher.tasks_per_node=2")  # two processes a measurement
    try:
        out, err = again.communicate(timeout=300)
    finally:
        again.kill()
    assert again.returncode == 0, err
    assert re.search(r"submitted 2 jobs: \d+_0, \d+_1\n", out)
    assert list(collect("sweep")["status"]) == ["finished"] * 4
    assert kept == {run: Path(run, "result.nc").stat().st_mtime_ns for run in kept}
    assert len(list(Path("sweep", ".submitit").glob("*/*_1_log.out"))) == 2  # of each measurement's second process
    jobs = told(environment, "sacct", "-n", "-X", "-P", "--format=JobID").split()
    assert len(jobs) == 4 + 2
