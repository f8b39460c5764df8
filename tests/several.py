"""Several processes for the tests: forked from one that has imported erflab and computed nothing, which takes milliseconds."""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier
from typing import Any

import torch
from nets import small_net
from torch import Tensor, nn

from erflab import cli
from erflab.attribution.occlusion import OccludedDifference
from erflab.config import OcclusionConfig, RuntimeConfig
from erflab.distributed import Processes, joined
from erflab.images import Image, TensorImages
from erflab.measurement import measure
from erflab.placement import Placement
from erflab.result import Result

assert OccludedDifference  # imported here, and not once in each process
QUIET = RuntimeConfig(progress=False, device="cpu", precision="float64", batch_size=8, threads=1)


@dataclass(frozen=True)
class Threads(Processes):
    """Threads that stand for processes: they exchange by a board."""

    board: list[Any] = field(default_factory=list)
    barrier: Barrier = field(default_factory=lambda: Barrier(1))

    @classmethod
    def of(cls, size: int) -> "list[Threads]":
        """All of them."""
        board, barrier = [None] * size, Barrier(size)
        return [cls(rank, size, rank, board, barrier) for rank in range(size)]

    def _exchange(self, item: Any) -> Any:
        self.board[self.rank] = item
        self.barrier.wait()
        items = list(self.board)
        self.barrier.wait()
        return items

    def _send(self, value: Any) -> Any:
        return self.gathered(value)[0]

    def _add(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.gathered(tensor)).sum(0)


def nursery() -> Executor:
    """One process from which others are forked."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def in_processes(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function` returns, or the exception it raises, in each of so many processes; None in one that was killed."""
    fork = multiprocessing.get_context("fork")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pipes = [fork.Pipe(duplex=False) for _ in range(size)]
    members = [
        fork.Process(target=_member, args=(Placement(rank, size, rank, port=port), send, function, arguments))
        for rank, (_, send) in enumerate(pipes)
    ]
    for member, (_, send) in zip(members, pipes, strict=True):
        member.start()
        send.close()
    found = [_received(receive) for receive, _ in pipes]
    for member in members:
        member.join()
    return found


def _received(receive: Any) -> Any:
    try:
        return receive.recv()
    except EOFError:
        return None


def _member(placement: Placement, send: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(placement.variables)
    torch.set_num_threads(1)
    try:
        found = function(*arguments)
    except Exception as error:
        found = error
    send.send(found)


class Scenes(TensorImages):
    """Images of seven scenes, in no regular order."""

    def _image(self, index: int) -> Image:
        return replace(super()._image(index), scene=self.scene(index))

    def scene(self, index: int) -> str:
        return f"scene {index * index % 11 % 7}"


def images(count: int) -> Scenes:
    return Scenes(torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(2)))


class Failing(nn.Module):
    """A network that fails in one process (1, or WHERE says which), from a forward pass on, in one of several ways."""

    def __init__(self, fault: str = "none") -> None:
        super().__init__()
        self.net, self.fault, self.passes = small_net(), os.environ.get("FAULT", fault), 0
        self.mine = os.environ.get("RANK") == os.environ.get("WHERE", "1")

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.mine and self.passes > int(os.environ.get("PASSES", 3)):
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "told":
                os.kill(os.getpid(), signal.SIGTERM)
            if self.fault == "bug":
                raise KeyError("a bug")
            if self.fault == "memory" and len(x) > 3:
                raise MemoryError
        return self.net(x * torch.where(x[:, :1, :1, :1] > 100, torch.nan, 1.0) if self.fault == "undefined" else x)


def measured(fault: str = "none", count: int = 40, **settings: Any) -> Result:
    """A measurement by all the processes there are."""
    runtime = replace(QUIET, **settings.pop("runtime", {}))
    with joined() as processes:
        return measure(
            Failing(fault),
            settings.pop("x", images(count)),
            "net.head",
            runtime=runtime,
            processes=processes,
            **settings,
        )


def all_methods() -> Result:
    return measured(method=["gradient", "occlusion"], occlusion=OcclusionConfig(step=4, patch=4))


def several_layers() -> Result:
    """In float32, of two layers at once, by more than one look."""
    with joined() as processes:
        runtime = replace(QUIET, precision="fp32")
        net, layers = small_net().float(), ["body", "head"]
        return measure(net, images(90), layers, runtime=runtime, processes=processes)


def stopped() -> Result:
    return measured(count=300, runtime={"tolerance": 0.2, "batch_size": 20})


def lowered() -> Result:
    return measured(runtime={"precision": "bf16"}, count=12)


def not_finite() -> Result:
    x = images(20)
    x.tensor[[1, 9, 10], :, 0, 0] = 1000
    return measured("undefined", x=x)


def other_images() -> Result:
    x = images(8)
    x.tensor += int(os.environ["RANK"])
    return measured(x=x)


def unknown_devices() -> Result:
    return measured(runtime={"device": f"nowhere{os.environ['RANK']}"})


def other_units() -> Result:
    return measured(unit=[0, int(os.environ["RANK"])])


def command_where(environment: dict[str, str], directory: Path, *arguments: str) -> tuple[int, str]:
    """`command` with further variables in the environment."""
    os.environ.update(environment)
    return command(directory, *arguments)


def command(directory: Path, *arguments: str) -> tuple[int, str]:
    """The console entry in a directory; its exit code and what it wrote to standard error."""
    os.chdir(directory)
    log = directory / f"stderr{os.environ['RANK']}"
    with log.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = ["erflab", *arguments]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0), log.read_text()
    return 0, log.read_text()
