"""The loop over images: memory that runs out, precisions and their audit, values that are not finite."""

import dataclasses
import math
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from nets import small_net
from torch import Tensor, nn

import erflab
from erflab import loader as loading
from erflab.attribution.base import Batch, pixel_frame
from erflab.config import METHODS, OcclusionConfig, RuntimeConfig
from erflab.errors import ConfigError, ImageError, MeasurementError
from erflab.images import Image, TensorImages
from erflab.loader import Loader
from erflab.memory import Halving, is_out_of_memory
from erflab.models import LoadedModel
from erflab.precision import Audit, Precision, arithmetic, exact_precision, falls_back
from erflab.result import Result

QUIET = RuntimeConfig(progress=False, device="cpu", precision="float64")
OCCLUSION = OcclusionConfig(step=4, patch=4)
CPU = torch.device("cpu")
CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)


class Forgetful(nn.Module):
    """A network whose memory runs out in its n-th forward pass, and in each with more than `most` images."""

    def __init__(self, error: Exception, fails_at: int | None = None, most: int = 10**6) -> None:
        super().__init__()
        self.net, self.error, self.fails_at, self.most, self.passes = small_net(), error, fails_at, most, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += x.shape[0] > 0
        if self.passes == self.fails_at or len(x) > self.most:
            raise self.error
        return self.net(x)


def images(count: int = 11) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def measured(net: nn.Module, method: str = "gradient", **runtime: object) -> Result:
    settings = {"occlusion": OCCLUSION} if method == "occlusion" else {}
    chosen = dataclasses.replace(QUIET, **{"batch_size": 4, **runtime})
    return erflab.measure(net, images(), "net.head", method=method, runtime=chosen, **settings)


ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError(CPU_ALLOCATOR)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_memory_that_runs_out_in_the_middle_of_a_run_changes_no_number(method: str, error: Exception) -> None:
    counting = Forgetful(error)
    expected = measured(counting, method)
    net = Forgetful(error, fails_at=counting.passes - 2)
    found = measured(net, method)
    assert net.passes > net.fails_at
    peak = float(expected.map(method).max())
    assert float(abs(found.map(method) - expected.map(method)).max()) <= 1e-12 * peak
    for name in (f"{method}_totals", f"{method}_groups", f"{method}_variance", f"{method}_equal_groups"):
        np.testing.assert_allclose(found.dataset[name], expected.dataset[name], rtol=1e-6, atol=1e-12 * peak**2)
    assert found.dataset[method].attrs["images"] == 11
    assert "out_of_memory_batch" not in expected.dataset[method].attrs
    assert found.dataset[method].attrs["out_of_memory_batch"] >= 1


def test_a_batch_is_halved_until_it_fits_and_later_ones_are_not_tried_whole() -> None:
    batch = Batch(images(8), tuple(range(8)), ("scene",) * 8, baseline=images(8) + 1)
    sizes = []

    def maps(part: Batch) -> list[Tensor]:
        sizes.append(len(part.indices))
        if len(part.indices) > 2:
            raise MemoryError
        assert torch.equal(part.reference, part.images + 1)
        return [part.images.sum(1), torch.tensor(part.indices)]

    halving = Halving(maps)
    for _ in range(2):
        sums, indices = halving(batch)
        assert torch.equal(sums, batch.images.sum(1))
        assert indices.tolist() == list(range(8))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert halving.most == 2


def test_an_image_that_never_fits_is_an_error_and_other_errors_are_not_memory() -> None:
    with pytest.raises(
        MeasurementError, match=r"one image of 16 x 16 px does not fit in the memory of cpu.*images.size"
    ):
        Halving(lambda _: (_ for _ in ()).throw(MemoryError))(Batch(images(2), (0, 1), ("", "")))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    for words in (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "FIND was unable to find an engine to execute this computation",
    ):
        assert is_out_of_memory(RuntimeError(words))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Halving(lambda _: (_ for _ in ()).throw(RuntimeError("shapes do not match")))(Batch(images(1), (0,), ("",)))


class Undefined(nn.Module):
    """A layer that is not a number where the image's first pixel is above 100."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x)) * torch.where(x[:, :1, :1, :1] > 100, math.nan, 1.0)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("deeplift", "guided_backprop")])
def test_a_map_that_is_not_finite_names_layer_and_images(method: str) -> None:
    x = images()
    x[[1, 9], :, 0, 0] = 1000
    settings = {"occlusion": OCCLUSION} if method == "occlusion" else {}
    runtime = dataclasses.replace(QUIET, batch_size=2)
    with pytest.raises(
        MeasurementError, match=rf"{method} of layer '\(output\)' is not finite for image\(s\) \[1, 9\]"
    ):
        erflab.measure(Undefined(), x, "(output)", method=method, runtime=runtime, **settings)


def test_bf16_runs_and_its_differences_from_fp32_are_stored() -> None:
    exact, found = (measured(small_net_f(), precision=p, batch_size=16) for p in ("fp32", "bf16"))
    attributes = found.dataset["gradient"].attrs
    assert (attributes["precision"], exact.dataset["gradient"].attrs["precision"]) == ("bf16", "fp32")
    assert "precision_map_change" not in exact.dataset["gradient"].attrs
    # One batch holds all images, so that the audit is the difference of the two results.
    a, b = found.map(), exact.map()
    assert attributes["precision_map_change"] == pytest.approx(
        float(np.linalg.norm(a - b) / np.linalg.norm(b)), rel=1e-6
    )
    assert 1e-5 < attributes["precision_map_change"] < 0.1
    sigma = [r.sizes().moments.sigma for r in (found, exact)]
    assert attributes["precision_sigma_change"] == pytest.approx(abs(sigma[0] / sigma[1] - 1), rel=1e-4)


def small_net_f() -> nn.Module:
    """The small network as the part `net` of another."""
    return Forgetful(MemoryError()).float()


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_a_precision_that_moves_sigma_is_flagged(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erflab.precision.SIGMA_TOLERANCE", 0.0)
    (flag,) = [f for f in measured(small_net_f(), method, precision="bf16").flags if f.code == "low_precision"]
    assert flag.method == method
    assert flag.seen.startswith("bf16 moves sigma by 0.")


def test_auto_falls_back_where_one_targets_sigma_moves_by_a_thousandth() -> None:
    assert not falls_back([Audit(0.03, 0.0009), Audit(0.03, 0.0)])
    assert falls_back([Audit(0.03, 0.0001), Audit(0.0, 0.001)])
    assert falls_back([Audit(0.0, None)])
    (flag,) = Precision("fp32", CPU, "bf16", (Audit(0.03, 0.0), Audit(0.03, 0.01))).flags("gradient", 0)
    assert (flag.code, flag.seen) == ("precision_fallback", "bf16 moves sigma by 1.00%, map by 3.00%")
    assert Precision("bf16", CPU, "bf16", (Audit(0.03, 0.0),)).flags("gradient", 0) == ()


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["auto", "tf32", "bf16"])
def test_lower_precisions_on_cuda_are_audited(precision: str) -> None:
    attributes = measured(small_net_f(), precision=precision, device="cuda").dataset["gradient"].attrs
    assert attributes["audited_precision"] == ("bf16" if precision == "auto" else precision)
    assert attributes["precision_sigma_change"] < 0.01


@pytest.mark.parametrize("method", ["integrated_gradients", "deeplift"])
def test_methods_that_must_be_complete_stay_in_fp32(method: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    runtime = dataclasses.replace(QUIET, precision="bf16")
    assert erflab.measure(net, images(2), method=method, runtime=runtime).dataset[method].attrs["precision"] == "fp32"


def test_auto_on_a_cpu_is_fp32_bit_for_bit() -> None:
    results = [measured(small_net_f(), precision=p) for p in ("auto", "fp32")]
    assert results[0].map().equals(results[1].map())
    assert results[0].dataset["gradient"].attrs["precision"] == "fp32"


def test_an_audit_compares_the_mean_map_and_its_sigma() -> None:
    maps = torch.rand(3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frame = pixel_frame((9, 9), (4, 4))
    assert Audit.of(2 * maps, maps, frame).map == pytest.approx(1.0)
    assert Audit.of(2 * maps, maps, frame).sigma == pytest.approx(0.0, abs=1e-12)
    assert Audit.of(maps, torch.zeros_like(maps), frame) == Audit(0.0, None)
    assert not Audit.of(maps, torch.zeros_like(maps), frame).passes
    assert str(Audit(0.5, None)) == "sigma by unknown, map by 50.00%"


def switches() -> tuple[str, ...]:
    """Of torch 2.9 and later, as they are in force."""
    backends = torch.backends
    parts: tuple[Any, ...] = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    return tuple(part.fp32_precision for part in parts)


@pytest.fixture
def _users_switches() -> Iterator[None]:
    """Whatever a test sets is as it was at first afterwards."""
    before = switches()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.fp32_precision = "none"
    assert switches() == before


SWITCHES = pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="the newer switches of TF32 came with torch 2.9"
)


@SWITCHES
@pytest.mark.usefixtures("_users_switches")
@pytest.mark.parametrize(
    "users",
    [
        "",
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.cuda.matmul.allow_tf32 = True",
        "torch.backends.cudnn.allow_tf32 = False",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cudnn.fp32_precision = 'ieee'",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    ],
)
def test_tf32_is_on_for_tf32_alone_and_put_back(users: str) -> None:
    exec(users)
    before = switches()
    for precision in ("fp32", "tf32", "bf16", "float64"):
        with arithmetic(precision, CPU):
            assert switches() == ("tf32" if precision == "tf32" else "ieee",) * 3
            assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
        assert switches() == before
    if "float32_matmul" in users:
        assert torch.get_float32_matmul_precision() == "medium"


@SWITCHES
@pytest.mark.usefixtures("_users_switches")
def test_before_torch_2_9_the_older_switches_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erflab.precision.hasattr", lambda *_: False, raising=False)
    flags = lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)  # noqa: E731
    before = flags()
    for precision in ("fp32", "tf32"):
        with arithmetic(precision, CPU):
            assert flags() == (precision == "tf32",) * 2
        assert flags() == before


class Kept:
    """A hook, which lives as long as the tensor it is on."""

    def __call__(self, gradient: Tensor) -> None:
        """Leave the gradient as it is."""


def test_bf16_keeps_no_batch_after_its_block() -> None:
    net, hook = nn.Conv2d(3, 4, 3).requires_grad_(False), Kept()
    kept = weakref.ref(hook)
    with arithmetic("fp32", CPU):
        with arithmetic("bf16", CPU):
            batch = images(2).requires_grad_(True)
            batch.register_hook(hook)
            torch.autograd.grad(net(batch).float().sum(), batch)
        del batch, hook
        assert kept() is None


@pytest.mark.parametrize(("capability", "taken"), [((9, 0), False), ((8, 0), False), ((7, 5), True)])
def test_auto_tries_bf16_where_a_gpu_has_it(
    capability: tuple[int, int], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    chosen = exact_precision("gradient", RuntimeConfig(), torch.device("cuda"))
    assert (chosen == Precision("fp32", torch.device("cuda"))) is taken


def test_one_precision_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"runtime.dtype is 'float64' and runtime.precision 'bf16'; set runtime.prec"):
        RuntimeConfig(dtype="float64", precision="bf16")
    with pytest.raises(
        ConfigError, match=r"runtime.precision is 'fp16'; choose one of auto, fp32, tf32, bf16, float64"
    ):
        RuntimeConfig(precision="fp16")


def test_channels_last_memory_changes_no_number_and_the_users_weights_keep_their_order() -> None:
    net = Forgetful(MemoryError())
    for method in ("gradient", "occlusion"):
        first, last = (measured(net, method, channels_last=c).map(method) for c in (False, True))
        assert float(abs(last - first).max()) <= 1e-12 * float(first.max())
    assert all(p.is_contiguous() for p in net.parameters())


class Viewing(nn.Module):
    """A network whose view is impossible in channels-last order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y.view(len(y), -1).view(y.shape)


def test_a_model_that_does_not_run_channels_last_runs_channels_first() -> None:
    runtime = RuntimeConfig(progress=False, device="cpu")
    torch.manual_seed(0)
    net = Viewing()
    found, expected = (
        erflab.measure(net, images(), "(output)", runtime=dataclasses.replace(runtime, channels_last=c)).map()
        for c in ("auto", False)
    )
    assert found.equals(expected)
    with pytest.raises(
        ConfigError, match=r"runtime.channels_last is true, but the model does not run so: view size is not"
    ):
        erflab.measure(net, images(), "(output)", runtime=dataclasses.replace(runtime, channels_last=True))
    with pytest.raises(ConfigError, match=r"runtime.channels_last is 'yes'; choose one of auto, True, False"):
        RuntimeConfig(channels_last="yes")


def test_images_read_ahead_are_those_of_their_index() -> None:
    asked: list[int] = []

    class Source(TensorImages):
        def _image(self, index: int) -> Image:
            asked.append(index)
            if index == 9:
                raise ImageError("image 9 cannot be read")
            return super()._image(index)

    described = LoadedModel(nn.Identity(), "", None, "", "", None, None, None)
    loader = Loader(Source(images()), described, CPU, torch.float32, 3, False)
    batches = loader.batches("gradient")
    for indices in ((0, 1, 2), (3, 4, 5), (6, 7, 8)):
        batch = next(batches)
        assert batch.indices == indices
        assert torch.equal(batch.images, images()[list(indices)])
    with pytest.raises(ImageError, match="image 9 cannot be read"):
        next(batches)
    assert asked[-1] == 9


def test_batches_are_as_large_as_what_is_computed_and_what_is_loaded_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    described = LoadedModel(nn.Identity(), "", None, "", "", None, None, None)
    loader = Loader(TensorImages(images()), described, torch.device("cuda"), torch.float32, "auto", False)
    for side, computed, count in ((224, 224, 256), (512, 448, 167), (4096, 448, 8), (4096, 4096, 2), (2**15, 448, 1)):
        monkeypatch.setattr(Loader, "shape", (3, side, side))
        assert loader.fitting((computed, computed)) == count


@pytest.mark.parametrize("concurrent", [True, False])
def test_threads_that_read_together_keep_the_order(concurrent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()

    class Source(TensorImages):
        def _image(self, index: int) -> Image:
            names.add(threading.current_thread().name[:6])
            time.sleep(0.002 * (index % 3 == 0))
            return super()._image(index)

    monkeypatch.setitem(loading.READERS, "cpu", 4)
    monkeypatch.setattr(Source, "concurrent", concurrent)
    described = LoadedModel(nn.Identity(), "", None, "", "", None, None, None)
    batch = Loader(Source(images()), described, CPU, torch.float32, 3, False).load(range(11))
    assert torch.equal(batch.images, images())
    assert names == {"pixels" if concurrent else "MainTh"}
