"""A small sweep for the tests: real runs of a tiny network, driven as the console entry is."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from erflab import cli

NETWORKS = """
import os, pathlib, signal, time
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, width=4, fault="none"):
        super().__init__()
        self.fault, self.a, self.b = fault, nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2, 3, padding=1)
    def forward(self, x):
        if self.fault == "memory" and not x.is_meta:
            raise MemoryError("8 GiB for a small network")
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "held":
            job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
            pathlib.Path(f"{job}.pid").write_text(str(os.getpid()))
            while pathlib.Path("hold").exists():
                time.sleep(0.1)
        return self.b(torch.relu(self.a(x)))
"""

TINY = [
    "model=custom",
    "model._target_=tinynets.Tiny",
    "runtime.allow=[tinynets]",
    "images=noise",
    "images.count=4",
    "images.size=16",
    "attribution=gradient",
    "runtime.progress=false",
    "runtime.figures=false",
    "runtime.device=cpu",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory from which `tinynets` imports."""
    (tmp_path / "tinynets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("tinynets", None)


def erflab(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The console entry in this process; its exit code."""
    monkeypatch.delenv(cli.FULL_ERROR, raising=False)
    monkeypatch.setattr(sys, "argv", ["erflab", *arguments])
    monkeypatch.setattr(sys, "path", sys.path[:])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        os.environ.pop(cli.FULL_ERROR, None)
    return 0
