"""What all tests share: runtime type checks, the slow and CUDA markers, a deterministic hypothesis profile."""

import os
import shutil

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault(
    "HF_HUB_OFFLINE", "1"
)  # a test that reaches for the network fails at once, instead of after retries
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Processes side by side share the cores, and so do the processes that they start.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

from jaxtyping import install_import_hook

install_import_hook("erflab", "typecheck.checked")

import pytest
import torch
from hypothesis import settings
from slurm_cluster import missing_programs

settings.register_profile("erflab", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("erflab")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--run-slurm", action="store_true", help="also run the tests marked slurm, as root on Debian")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--run-slow"):
            item.add_marker(pytest.mark.skip(reason="slow: add --run-slow"))
        if item.get_closest_marker("slurm") and (reason := _no_slurm(config)):
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _no_slurm(config: pytest.Config) -> str | None:
    if not config.getoption("--run-slurm"):
        return "installs and starts a Slurm cluster: add --run-slurm"
    if os.geteuid():
        return "only root can start a Slurm cluster"
    missing = missing_programs()
    return (
        None if not missing or shutil.which("apt-get") else f"no {', '.join(missing)}, and no apt-get to install them"
    )
