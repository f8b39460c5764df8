"""What a result was made with: versions (part of the result) and circumstances (which vary from run to run)."""

from __future__ import annotations

import platform
import socket
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
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


def circumstances(started: datetime, device: torch.device, command: list[str] | None = None) -> dict[str, Any]:
    """Times, host, command: what differs between two runs with the same result."""
    finished = datetime.now(UTC)
    return {
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": round((finished - started).total_seconds(), 3),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "device": str(device),
        "device_name": device_name(device),
        "command": sys.argv if command is None else command,
    }
