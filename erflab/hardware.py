"""Where a measurement runs: device and threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from erflab.distributed import ALONE, Processes
from erflab.errors import ConfigError


def choose_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The device that `runtime.device` names; auto takes CUDA where there is one, spread
    in each process of a pool the next of the CUDA devices. Raises ConfigError if there is no such.

    Each of several processes of one measurement takes a CUDA device of its own.
    """
    if processes.size > 1:
        return _own_device(name, processes.local_rank)
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


def _own_device(name: str, place: int) -> torch.device:
    """The device of one of several processes, the number `place` on its machine."""
    if name not in ("auto", "cuda", "cpu", "spread"):
        raise ConfigError(
            f"runtime.device is {name!r}; give auto, cpu or cuda where several processes measure together."
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name != "cuda" and not count):
        return torch.device("cpu")
    own = 0 if count == 1 else place  # a scheduler that gives each process its GPU shows it that one alone
    if own >= count:
        raise ConfigError(
            f"process {place} of this machine has no GPU of its own, since torch sees {count}; start no more processes on a "
            "machine than it has GPUs, or set runtime.device=cpu."
        )
    return torch.device(f"cuda:{own}")


def require_own_devices(device: torch.device, processes: Processes) -> None:
    """Raise ConfigError where of several processes some run on the CPU and some on a GPU, or two on the same GPU."""
    if processes.size == 1:
        return
    names = processes.gathered(_name(device))
    if len({name.split()[0] for name in names}) > 1:
        raise ConfigError(
            f"the processes run on {', '.join(names)}; set runtime.device=cpu, or start them where all have a GPU."
        )
    if names.count(_name(device)) > 1 and device.type == "cuda":
        raise ConfigError(
            f"several of the {processes.size} processes run on one GPU ({_name(device)}); start no more than there are GPUs."
        )


def _name(device: torch.device) -> str:
    """The kind of a device; for a GPU also which one it is of all machines'."""
    if device.type == "cpu":
        return "cpu"
    return f"cuda {torch.cuda.get_device_properties(device).uuid} of {socket.gethostname()}"


def stacked(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Tensors of one shape as one on the host; for a GPU in pinned memory, from which it can copy by itself."""
    if device.type != "cuda":
        return torch.stack(list(tensors))
    pinned = torch.empty((len(tensors), *tensors[0].shape), dtype=tensors[0].dtype, pin_memory=True)
    return torch.stack(list(tensors), out=pinned)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on a GPU, made from pinned memory beside what the GPU computes: neither it nor the host waits; on a CPU itself."""
    if device.type != "cuda":
        return tensor.to(device)
    computing = torch.cuda.current_stream(device)
    copying = _copying(computing.device)
    with torch.cuda.stream(copying):
        copy = tensor.pin_memory().to(copying.device, non_blocking=True)
    computing.wait_stream(copying)
    copy.record_stream(computing)  # its memory is not given away before what was computed from it
    return copy


@lru_cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    """The stream of copies to a GPU."""
    return torch.cuda.Stream(device)


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
