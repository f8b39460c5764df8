"""Which device a process takes."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from erflab import hardware
from erflab.hardware import choose_device


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
