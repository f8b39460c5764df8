"""Which process of how many this is, as the program that started it says in the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Placement:
    """A process's number among those of one run, and on its machine, and where the first of them listens."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 29500

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that `torch.distributed` reads."""
        values = (self.rank, self.size, self.local_rank, self.address, self.port)
        return dict(zip(TORCH, map(str, values), strict=True))


TORCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def read_placement(environment: Mapping[str, str]) -> Placement:
    """The placement of this process: from torchrun's variables, else submitit's, else those of a Slurm step.

    The size is 1 where nothing was started together. A batch script of Slurm's that calls no `srun` is a single process,
    however many tasks its job has: only a step's own number of tasks counts.
    """
    if all(name in environment for name in TORCH):
        rank, size, local_rank, address, port = (environment[name] for name in TORCH)
        return Placement(int(rank), int(size), int(local_rank), address, int(port))
    if "SUBMITIT_EXECUTOR" in environment and find_spec("submitit"):
        return _of_submitit()
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _of_slurm(environment)
    return Placement()


def _of_submitit() -> Placement:
    from submitit.helpers import TorchDistributedEnvironment

    told = TorchDistributedEnvironment()
    return Placement(told.rank, told.world_size, told.local_rank, told.master_addr, told.master_port)


def _of_slurm(environment: Mapping[str, str]) -> Placement:
    number = 100 * int(environment["SLURM_JOB_ID"]) + int(environment["SLURM_STEP_ID"])
    return Placement(
        int(environment["SLURM_PROCID"]),
        int(environment["SLURM_STEP_NUM_TASKS"]),
        int(environment["SLURM_LOCALID"]),
        _first_host(environment["SLURM_STEP_NODELIST"]),
        20000 + number % 40000,  # the same in all processes of a step, another in the next step
    )


def _first_host(nodes: str) -> str:
    """The first machine of a list as Slurm writes it: "gpu[07-09,12],big1" begins with gpu07."""
    found = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    assert found is not None
    return "".join(part or "" for part in found.groups())
