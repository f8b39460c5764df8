"""The loop over images never waits for the device, and leaves nothing on the host: tensors on `meta`, which hold no data to
wait for, stand for those of a GPU.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from erflab.accumulate import MapSums
from erflab.attribution.base import Aim, Batch
from erflab.attribution.gradient import MAGNITUDES, shared_gradient_maps
from erflab.attribution.methods import PIXEL_METHODS
from erflab.attribution.occlusion import (
    AxisPlan,
    Fill,
    OccludedDifference,
    OcclusionPlan,
    blurred_fill,
    constant_fill,
    occlusion_maps,
)
from erflab.config import GradientConfig, GuidedBackpropConfig, InputXGradientConfig
from erflab.hardware import upload
from erflab.images import TensorImages
from erflab.loader import Loader
from erflab.models import LoadedModel
from erflab.recomputing import recomputed
from erflab.target import Layout, Trunk
from erflab.theory.crop import Crop
from erflab.theory.predicted import _like
from erflab.theory.trace import _state

META = torch.device("meta")
CUDA = torch.device("cuda")


def net() -> nn.Module:
    """Its modules "0" and "1" have 4 x 4 units at 16 px."""
    stem = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()), nn.MaxPool2d(2))
    return nn.Sequential(stem, nn.Conv2d(4, 4, 3, padding=1), nn.Flatten()).eval().requires_grad_(False)


NET = net().to(META)
CASES = [
    *(("gradient", GradientConfig(magnitude=magnitude, draws=2)) for magnitude in MAGNITUDES),
    ("input_x_gradient", InputXGradientConfig()),
    ("guided_backprop", GuidedBackpropConfig()),
]
AIM = Aim(((0, 1), (2, 2)), ((0, 5, 0, 5), (2, 7, 2, 7)))


class Apart(TorchDispatchMode):
    """Raises for a call on tensors of the host and of the device. (Reading a value of `meta` raises without this.)"""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        places = {t.device.type for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)}
        assert len(places) < 2, f"{func} on {places}"
        return result


class FromNumbers(TorchFunctionMode):
    """Raises for numbers that become a tensor on the device, as lists that index one do: a copy that is waited for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        makes = func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and result.is_meta
        indexes = func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].is_meta and _has_list(args[1])
        assert not makes, f"{args} becomes a tensor on the device"
        assert not indexes, f"{args[1]} is the index of a tensor on the device"
        return result


def _has_list(index: Any) -> bool:
    return any(isinstance(part, list) for part in (index if isinstance(index, tuple) else (index,)))


@pytest.fixture
def _device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Uploads alone lead to the device, and there without waiting."""

    def uploaded(tensor: Tensor, device: torch.device) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    for module in ("accumulate", "loader", "attribution.base", "attribution.signs", "attribution.occlusion"):
        monkeypatch.setattr(f"erflab.{module}.upload", uploaded)
    with Apart(), FromNumbers():
        yield


def trunk_to(layer: str = "1") -> Trunk:
    """Up to a layer of 4 x 4 units at 16 px."""
    return Trunk(NET, layer, 0, Layout("nchw", (4, 4)))


def batch_of() -> Batch:
    """Three images and their baselines, cut from larger ones as a crop does."""
    images = torch.empty(3, 3, 24, 24, device=META)
    return Batch(images, (4, 5, 6), ("a", "b", "a"), torch.zeros_like(images)).cut(Crop((8, 0), (16, 16), (24, 24)))


@pytest.mark.usefixtures("_device")
def test_images_are_loaded_without_waiting() -> None:
    described = LoadedModel(nn.Identity(), "", None, "", "", (0.5,) * 3, (0.5,) * 3, None)
    loader = Loader(TensorImages(torch.zeros(5, 3, 8, 8), normalised=False), described, META, torch.float32, 2, False)
    batches = list(loader.batches("gradient"))
    assert [len(batch.images) for batch in batches if isinstance(batch, Batch)] == [2, 2, 1]
    assert all(batch.images.is_meta for batch in batches if isinstance(batch, Batch))


@pytest.mark.usefixtures("_device")
@pytest.mark.parametrize(("method", "config"), CASES)
def test_maps_are_made_and_summed_without_waiting(method: str, config: Any) -> None:
    with recomputed(NET, ["1"]) if method == "gradient" else nullcontext():
        maps = PIXEL_METHODS[method].maps(trunk_to(), batch_of(), AIM, config, 3)
    sums = MapSums((6, 6), META)
    for _ in range(2):
        sums.update(maps, batch_of().scenes)
    assert sums.group_sums.is_meta
    with pytest.raises(NotImplementedError, match="meta"):
        sums.totals  # noqa: B018 (this waits)


@pytest.mark.usefixtures("_device")
def test_several_targets_share_a_pass_without_waiting() -> None:
    maps = shared_gradient_maps([trunk_to("0"), trunk_to("1")], batch_of(), [Aim(((1, 1),)), AIM], "energy", draws=2)
    assert [tuple(m.shape) for m in maps] == [(3, 16, 16), (3, 6, 6)]
    assert all(m.is_meta for m in maps)


@pytest.mark.usefixtures("_device")
@pytest.mark.parametrize(("per_evaluation", "fill"), [(1, constant_fill([0.0, 0.0, 0.0])), (3, blurred_fill(4))])
def test_occluders_are_run_and_summed_without_waiting(per_evaluation: int, fill: Fill) -> None:
    axis = AxisPlan((5.5, 7.5), (0, 1, 2, 3), (1.5, 5.5, 9.5, 13.5), (-4.0, -2.0, 0.0, 2.0, 4.0))
    plan = OcclusionPlan(axis, axis, 4)
    with _disable_current_modes(), torch._C.DisableTorchFunction():  # made once, and may wait
        difference = OccludedDifference(trunk_to(), plan, (16, 16), META)
    maps = occlusion_maps(difference, plan, batch_of(), fill(batch_of()), per_evaluation)
    assert maps.shape == (3, 5, 5)
    assert maps.is_meta


PROTOTYPE = pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")


@pytest.fixture
def _waiting_is_an_error() -> Iterator[None]:
    """Of the host for a GPU, as torch itself sees it."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@PROTOTYPE
@pytest.mark.cuda
@pytest.mark.parametrize(("method", "config"), CASES)
def test_a_gpu_is_not_waited_for(method: str, config: Any, request: pytest.FixtureRequest) -> None:
    trunk, sums = Trunk(net().to(CUDA), "1", 0, Layout("nchw", (4, 4))), MapSums((6, 6), CUDA)
    images = torch.randn(3, 3, 16, 16, device=CUDA)
    batch = Batch(images, (4, 5, 6), ("a", "b", "a"), torch.zeros_like(images))
    for again in (False, True):  # at first libraries are loaded, and indices made
        if again:
            request.getfixturevalue("_waiting_is_an_error")
        sums.update(PIXEL_METHODS[method].maps(trunk, batch, AIM, config, 3), batch.scenes)


@PROTOTYPE
@pytest.mark.cuda
@pytest.mark.usefixtures("_waiting_is_an_error")
def test_uploads_are_whole_and_not_waited_for() -> None:
    tensors = [torch.full((2**20,), float(number)) for number in range(20)]
    found = [upload(tensor, CUDA) * 2 for tensor in tensors]
    torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(copy.cpu(), tensor * 2) for copy, tensor in zip(found, tensors, strict=True))


def test_theory_reads_a_model_on_a_gpu_from_the_host() -> None:
    with FakeTensorMode(), torch.device("cuda"):
        net = nn.BatchNorm2d(3)
        with _state(net, meta=False) as pairs:
            assert {tensor.device.type for pair in pairs for tensor in pair} == {"cpu"}
            assert net.running_mean is not None
            assert net.running_mean.device.type == "cpu"
        assert {tensor.device.type for tensor in net.state_dict().values()} == {"cuda"}
        assert _like(net, None).device.type == "cpu"
