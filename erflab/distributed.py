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
"""What to do about a process that died."""


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
        self.gathered(None)
        return self._send(value)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, a new tensor; the tensor itself where there is one process."""
        self.gathered(None)
        return self._add(tensor)

    def require_same(self, what: str, value: object) -> None:
        """Raise ConfigError if what must be the same for all processes is not."""
        values = self.gathered(value)
        if (other := next((rank for rank, found in enumerate(values) if found != values[0]), None)) is not None:
            raise ConfigError(
                f"process {other} of {self.size} has other {what} than process 0; give all of them the same."
            )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All processes leave this block in the same way: done, or with an error, which is told to the others."""
        try:
            with stop_as_error():
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

    def _send(self, value: Value) -> Value:
        return value

    def _add(self, tensor: Tensor) -> Tensor:
        return tensor


ALONE = Processes()


@dataclass(frozen=True)
class ConnectedProcesses(Processes):
    """Several processes of torch.distributed: objects and CPU tensors by gloo, CUDA tensors by NCCL.

    within, between: the groups by which they exchange in the middle of a measurement, and by which orders are given, where
    they wait long.
    """

    within: Any = field(default=None, compare=False)
    between: Any = field(default=None, compare=False)

    def lead(self, order: ErflabConfig | None) -> None:
        """See `Processes.lead`; None ends the others' `orders`."""
        self._from_leader(order)

    def orders(self) -> Iterator[ErflabConfig]:
        """See `Processes.orders`."""
        while (order := self._from_leader(None)) is not None:
            yield order

    def _from_leader(self, order: ErflabConfig | None) -> ErflabConfig | None:
        told = [order]
        with self._alive():
            dist.broadcast_object_list(told, src=0, group=self.between)
        return told[0]

    def _exchange(self, item: tuple[str | None, Value]) -> list[tuple[str | None, Value]]:
        items: list[Any] = [None] * self.size
        with self._alive():
            dist.all_gather_object(items, item, group=self.within)
        return items

    def _send(self, value: Value) -> Value:
        told = [value if self.first else None]
        with self._alive():
            dist.broadcast_object_list(told, src=0, group=self.within)
        return told[0]  # type: ignore[return-value]

    def _add(self, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        with self._alive():
            dist.all_reduce(total, group=self.within)
        return total

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """What torch raises when a connection breaks, or nothing comes for long, as ProcessDiedError."""
        try:
            yield
        except RuntimeError as error:
            raise _died(f"another of the {self.size} processes of this run died, or stands still") from error


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
    theirs = dist.is_initialized()  # in a script that has joined them for a use of its own
    _joined = connected = _connect(placement)
    try:
        with _heeding_stop():
            yield connected
    finally:
        _joined = ALONE
        del os.environ[JOINED]
        with contextlib.suppress(ProcessDiedError):
            if connected.first:
                connected.lead(None)
            if not theirs:
                dist.destroy_process_group()


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
    if not dist.is_initialized():
        dist.init_process_group(backend, timeout=PATIENCE)
    within, between = dist.new_group(backend=backend, timeout=PATIENCE), dist.new_group(backend="gloo", timeout=IDLE)
    return ConnectedProcesses(placement.rank, placement.size, placement.local_rank, within, between)


class _ToldToStop(BaseException):
    """SIGTERM, on its way out of what ran. No Exception, which the code it arrives in may take for its own, as a trace does."""


@contextlib.contextmanager
def stop_as_error() -> Iterator[None]:
    """What SIGTERM ends inside the block, in processes that are joined, leaves it as ProcessDiedError."""
    try:
        yield
    except _ToldToStop:
        raise _died("this process was told to stop (SIGTERM), as all are when another of the run has died") from None


@contextlib.contextmanager
def _heeding_stop() -> Iterator[None]:
    """Inside the block SIGTERM is an error: torchrun sends it when another process has died, and the run is to say so."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # someone else, such as submitit, has a use for it
        yield
        return
    signal.signal(signal.SIGTERM, _stop)
    try:
        with stop_as_error():
            yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _stop:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough, and the error is to be recorded and printed in peace
    raise _ToldToStop


def _died(what: str) -> ProcessDiedError:
    """The error, which no SIGTERM that follows is to replace."""
    if signal.getsignal(signal.SIGTERM) is _stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return ProcessDiedError(f"{what}. {ADVICE}")
