"""Which device a process takes."""

import contextlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from erflab import hardware
from erflab.distributed import Processes
from erflab.errors import ConfigError
from erflab.hardware import choose_device, require_own_devices


def test_spread_gives_each_process_of_a_pool_the_next_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("spread") == torch.device("cuda:0")
    for worker, device in ((0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0")):
        monkeypatch.setattr(hardware, "_worker", lambda worker=worker: worker)
        assert choose_device("spread") == torch.device(device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("spread") == torch.device("cpu")


def test_the_processes_of_a_pool_have_consecutive_numbers() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as first:
        one = first.submit(hardware._worker).result()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as second:
        assert second.submit(hardware._worker).result() == one + 1


def test_each_process_of_a_measurement_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    third, gpus = Processes(rank=7, size=8, local_rank=2), 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name, device in (("auto", "cuda:2"), ("cuda", "cuda:2"), ("spread", "cuda:2"), ("cpu", "cpu")):
        assert choose_device(name, third) == torch.device(device)
    gpus = 1  # that which a scheduler shows to this process alone
    assert choose_device("auto", third) == torch.device("cuda:0")
    gpus = 2
    with pytest.raises(
        ConfigError, match=r"process 2 of this machine has no GPU of its own, since torch sees 2; start no"
    ):
        choose_device("auto", third)
    gpus = 0
    assert choose_device("auto", third) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"process 2 of this machine has no GPU of its own, since torch sees 0"):
        choose_device("cuda", third)
    with pytest.raises(
        ConfigError, match=r"runtime.device is 'cuda:1'; give auto, cpu or cuda where several processes"
    ):
        choose_device("cuda:1", third)


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        (["cpu", "cpu"], None),
        (["cuda a", "cuda b"], None),
        (["cuda a", "cpu"], r"the processes run on cuda a, cpu; set runtime.device=cpu, or start them where all have"),
        (
            ["cuda a", "cuda a"],
            r"several of the 2 processes run on one GPU \(cuda a\); start no more than there are GPUs",
        ),
    ],
)
def test_devices_are_of_one_kind_and_no_gpu_is_shared(
    names: list[str], refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "gathered", lambda self, value: names)
    monkeypatch.setattr(hardware, "_name", lambda device: names[0])
    expected = pytest.raises(ConfigError, match=refused) if refused else contextlib.nullcontext()
    with expected:
        require_own_devices(torch.device(names[0].split()[0]), Processes(0, 2))
