"""The processes that make one measurement together, and all that they say to each other.

Every exchange carries, beside its values, whether a process has failed. So an error of one, wherever it happens, is told at the
others' next exchange, and all end with its reason; none waits for what will not come.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from erflab.config import ErflabConfig
from erflab.errors import ConfigError, ProcessDiedError, ProcessFailedError
from erflab.failure import reason_of
from erflab.placement import Placement, read_placement

Value = TypeVar("Value")

JOINED = "ERFLAB_PROCESS"
"""The environment variable that tells a child of one of these processes that it is none itself."""

IDLE = timedelta(days=30)
"""How long processes wait for the next measurement, while the first analyses and draws the last."""

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another in the middle of a measurement: longer than any batch takes."""

ADVICE = "Its own messages may tell why; start the same command again, with fewer processes if memory ran out."


@dataclass(frozen=True)
class Processes:
    """The processes of a run as one of them sees it; here a single one, which measures every batch and exchanges nothing."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that alone writes, and leads the others."""
        return self.rank == 0

    def measures(self, batch: int) -> bool:
        """Whether the batch with this number is this process's: they are dealt in turn."""
        return batch % self.size == self.rank

    def ends_round(self, batch: int) -> bool:
        """Whether with this batch every process has been dealt one."""
        return batch % self.size == self.size - 1

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes, in their order.

        Raises ProcessFailedError if one has failed, with its reason; ProcessDiedError if one is no more there.
        """
        told = self._exchange((None, value))
        for rank, (reason, _) in enumerate(told):
            if reason is not None:
                raise ProcessFailedError(f"process {rank} of {self.size} failed: {reason}")
        return [value for _, value in told]

    def from_first(self, value: Value) -> Value:
        """The first process's value."""
        return self.gathered(value if self.first else None)[0]  # type: ignore[return-value]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, a new tensor; the tensor itself where there is one process."""
        self.gathered(None)
        return self._add(tensor)

    def require_same(self, what: str, value: object) -> None:
        """Raise ConfigError if what must be the same for all processes is not."""
        values = self.gathered(value)
        if (other := next((rank for rank, found in enumerate(values) if found != values[0]), None)) is not None:
            raise ConfigError(
                f"process {other} of {self.size} has other {what} than process 0; give all of them the same files."
            )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All processes leave this block in the same way: done, or with an error, which is told to the others."""
        try:
            yield
        except ProcessFailedError:
            raise  # all have been told
        except Exception as error:
            with contextlib.suppress(ProcessDiedError):
                self._exchange((reason_of(error), None))
            raise
        self.gathered(None)

    def lead(self, order: ErflabConfig) -> None:
        """Tell the other processes what is measured next."""

    def orders(self) -> Iterator[ErflabConfig]:
        """What the first process leads to, until it ends."""
        yield from ()

    def _exchange(self, item: tuple[str | None, Value]) -> list[tuple[str | None, Value]]:
        return [item]

    def _add(self, tensor: Tensor) -> Tensor:
        return tensor


ALONE = Processes()


@dataclass(frozen=True)
class End:
    """The last order: whether the first process ends with an error."""

    failed: bool


@dataclass(frozen=True)
class ConnectedProcesses(Processes):
    """Several processes of torch.distributed: objects and CPU tensors by gloo, CUDA tensors by NCCL.

    between: the group by which orders are given; its members wait long.
    """

    between: Any = field(default=None, compare=False)

    def lead(self, order: ErflabConfig | End) -> None:
        """See `Processes.lead`."""
        with self._alive():
            dist.broadcast_object_list([order], src=0, group=self.between)

    def orders(self) -> Iterator[ErflabConfig]:
        """See `Processes.orders`. Raises SystemExit where the first process ends with an error."""
        while True:
            order: list[Any] = [None]
            with self._alive():
                dist.broadcast_object_list(order, src=0, group=self.between)
            if isinstance(order[0], End):
                break
            yield order[0]
        if order[0].failed:
            raise SystemExit(1)

    def _exchange(self, item: tuple[str | None, Value]) -> list[tuple[str | None, Value]]:
        items: list[Any] = [None] * self.size
        with self._alive():
            dist.all_gather_object(items, item)
        return items

    def _add(self, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        with self._alive():
            dist.all_reduce(total)
        return total

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """What torch raises when a connection breaks, or nothing comes for long, as ProcessDiedError."""
        try:
            yield
        except RuntimeError as error:
            told = str(error).strip().splitlines()[0]
            raise ProcessDiedError(
                f"another process of this run of {self.size} died, or stands still ({told}). {ADVICE}"
            ) from error


_joined: Processes = ALONE


@contextlib.contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """The processes that were started together with this one, connected for the time of the block; ALONE without any.

    A block inside such a block gives the same ones. Raises ConfigError in a process that one of them has started.
    """
    global _joined
    placement = read_placement(environment)
    if _joined.size > 1 or placement.size == 1:
        yield _joined
        return
    _joined = _connect(placement)
    failed = True
    try:
        with _told_to_stop():
            yield _joined
        failed = False
    except SystemExit as stop:
        failed = bool(stop.code)
        raise
    finally:
        _leave(_joined, failed)
        _joined = ALONE


def _connect(placement: Placement) -> ConnectedProcesses:
    if os.environ.setdefault(JOINED, str(os.getpid())) != str(os.getpid()):
        raise ConfigError(
            f"this run has {placement.size} processes already, and its launcher starts more; use hydra/launcher=basic, which "
            "runs one job after another, each on all processes."
        )
    os.environ.update(placement.variables)
    if torch.cuda.is_available() and placement.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(placement.local_rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    between = dist.new_group(backend="gloo", timeout=IDLE)
    return ConnectedProcesses(placement.rank, placement.size, placement.local_rank, between)


def _leave(processes: Processes, failed: bool) -> None:
    if isinstance(processes, ConnectedProcesses) and processes.first:
        with contextlib.suppress(ProcessDiedError):
            processes.lead(End(failed))
    if not failed:  # others may be gone, and would be waited for
        dist.destroy_process_group()
    os.environ.pop(JOINED, None)


@contextlib.contextmanager
def _told_to_stop() -> Iterator[None]:
    """Inside the block SIGTERM is an error: torchrun sends it when another process has died, and the run is to say so."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # someone else, such as submitit, has a use for it
        yield
        return
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise ProcessDiedError(
        f"this process was told to stop (SIGTERM), as all are when another one of the run has died. {ADVICE}"
    )
