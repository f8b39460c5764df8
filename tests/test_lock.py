"""Two processes on one directory: the second is told and leaves everything as it is."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweeping import TINY, erflab, folder

from erflab.errors import InUseError
from erflab.job import run_job
from erflab.lock import LOCK, alone_in

__all__ = ["folder"]

HOLDS = (
    "import sys, pathlib, erflab.lock\nwith erflab.lock.alone_in(pathlib.Path(sys.argv[1])): print(flush=True); input()"
)


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the directory sweep/a."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    (folder / "sweep" / "a").mkdir(parents=True)
    command = [sys.executable, "-c", HOLDS, "sweep/a"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield process
        process.kill()


def test_the_second_is_told_and_touches_nothing(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = Path("sweep/a")
    told = (
        f"sweep/a is in use: process {holder.pid} on {socket.gethostname()} measures into it; wait until it has ended"
    )
    for _ in range(2):
        with pytest.raises(InUseError, match=told):
            run_job(lambda: pytest.fail("read"), directory, {"config.yaml": ""}, {})
    assert [path.name for path in directory.iterdir()] == [LOCK]
    # In a sweep the other jobs go on.
    assert erflab(monkeypatch, "-m", *TINY, "hydra.sweep.dir=sweep", "hydra.sweep.subdir=a") == 0
    assert told in capfd.readouterr().err
    assert [path.name for path in directory.iterdir()] == [LOCK]


def test_what_a_killed_process_held_is_free(holder: subprocess.Popen[str]) -> None:
    directory = Path("sweep/a")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (directory / LOCK).exists()
    with alone_in(directory):
        assert (directory / LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not list(directory.iterdir())
