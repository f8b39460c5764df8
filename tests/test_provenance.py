"""What a result was made with, beyond what it depends on."""

import subprocess
from pathlib import Path

import pytest
import torch

from erflab.provenance import cudnn_version, driver_version, git_state, processor_name


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_and_what_differs_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "untracked.py").write_text("2")
    assert git_state(tmp_path) == {"commit": commit, "changed": []}
    (tmp_path / "a.py").write_text("2")
    (tmp_path / "b.py").unlink()
    assert git_state(tmp_path) == {"commit": commit, "changed": ["a.py", "b.py"]}


def test_without_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path(__file__).parent) is None


def test_driver_and_processor_are_those_that_the_kernel_tells(tmp_path: Path) -> None:
    version, info = tmp_path / "version", tmp_path / "cpuinfo"
    assert driver_version(version) is None
    assert processor_name(info) is None
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n")
    info.write_text("processor\t: 0\nmodel name\t: Some Processor @ 2 GHz\n")
    assert driver_version(version) == "535.104.05"
    assert processor_name(info) == "Some Processor @ 2 GHz"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n")
    assert driver_version(version) == "570.86.15"


def test_a_cudnn_that_torch_refuses_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise RuntimeError("cuDNN version incompatibility")

    assert cudnn_version() == torch.backends.cudnn.version()
    monkeypatch.setattr(torch.backends.cudnn, "version", refused)
    assert cudnn_version() is None
