"""What a result was made with: versions (part of the result) and circumstances (which vary from run to run)."""

from __future__ import annotations

import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    "erflab",
    "torch",
    "torchvision",
    "timm",
    "captum",
    "numpy",
    "scipy",
    "xarray",
    "h5netcdf",
    "h5py",
    "pillow",
)


def versions() -> dict[str, str]:
    """Python's and the packages' versions that a result depends on; "absent" for a package that is not installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the processor architecture for the CPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return platform.machine()


def environment(device: torch.device) -> dict[str, str]:
    """What the last digits depend on, and is not part of the configuration: versions and the device."""
    return {**versions(), "device": device.type, "device_name": device_name(device)}


def circumstances(course: Mapping[str, Any], device: torch.device, command: list[str] | None = None) -> dict[str, Any]:
    """Times (in all, and of each method, in s), host, command: what differs between two runs with the same result.

    Args:
        course: the state of the measurement's `History`; `resumed` lists the starts after the first.
        device: that measured.
        command: this process's by default.
    """
    return {
        "started": course["starts"][0]["started"],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(course["seconds"], 3),
        "timings": {method: round(seconds, 3) for method, seconds in course["timings"].items()},
        "resumed": course["starts"][1:],
        "host": socket.gethostname(),
        "system": platform.platform(),
        "device": str(device),
        "device_name": device_name(device),
        "processor": processor_name(),
        "cuda": torch.version.cuda,
        "cudnn": cudnn_version(),
        "driver": driver_version(),
        "source": git_state(Path(__file__).parent),
        "working_directory": git_state(Path.cwd()),
        "command": sys.argv if command is None else command,
    }


def git_state(directory: Path) -> dict[str, Any] | None:
    """The commit of the repository that holds a directory, and whether tracked files differ from it; None without one."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if changed is None else sorted(line[3:] for line in changed.splitlines())}


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip() if done.returncode == 0 else None


def driver_version(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of NVIDIA's kernel driver, which the kernel tells; None without one."""
    found = re.search(r"Kernel Module.*?(\d+(?:\.\d+)+)", file.read_text()) if file.exists() else None
    return found[1] if found else None


def cudnn_version() -> int | None:
    """The version of cuDNN; None without one, and where torch refuses it, which is no matter of this record."""
    try:
        found: int | None = torch.backends.cudnn.version()
    except RuntimeError:
        return None
    return found


def processor_name(file: Path = Path("/proc/cpuinfo")) -> str | None:
    """The processor's name: kernels, and with them the last digits, depend on it. None where it is not told."""
    found = re.search(r"model name\s*:\s*(.+)", file.read_text()) if file.exists() else None
    return found[1].strip() if found else None
