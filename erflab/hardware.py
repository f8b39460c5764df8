"""Where a measurement runs: device and threads."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator

import torch
from torch import Tensor

from erflab.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device that `runtime.device` names; auto takes CUDA where there is one, spread
    in each process of a pool the next of the CUDA devices. Raises ConfigError if there is no such.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "spread":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return torch.device(f"cuda:{_worker() % count}" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"runtime.device is {name!r}; give auto, cpu, cuda, cuda:N or spread.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(
                f"runtime.device is {name!r}, and torch sees {count} CUDA device(s); use runtime.device=cpu or auto."
            )
    elif device.type != "cpu":
        raise ConfigError(f"runtime.device is {name!r}; give auto, cpu, cuda, cuda:N or spread.")
    return device


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, from pinned memory to a GPU, so that the host does not wait for it; on a CPU itself."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _worker() -> int:
    """The number of this process among those that its parent has started; 0 for one that was started otherwise."""
    identity: tuple[int, ...] = multiprocessing.current_process()._identity
    return identity[-1] - 1 if identity else 0


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """CPU threads inside the block; None leaves torch's choice."""
    before = torch.get_num_threads()
    if count not in (None, before):
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
