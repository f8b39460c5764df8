"""Whole measurements: independence of batching, identical bytes, centres, auto size, flags, the Python API."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from nets import jacobian, small_net, uniform_stack
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

import erflab
from erflab.config import (
    METHODS,
    AttributionConfig,
    DatasetConfig,
    ErflabConfig,
    GradientConfig,
    ImagesConfig,
    InputXGradientConfig,
    ModelConfig,
    NoiseConfig,
    OcclusionConfig,
    PhotographsConfig,
    RuntimeConfig,
    TargetConfig,
)
from erflab.errors import ConfigError, ImageError
from erflab.images import as_source
from erflab.measurement import run
from erflab.models import require_module
from erflab.result import Result
from erflab.theory.runs import image_shape

QUIET = RuntimeConfig(progress=False, device="cpu")


def configured(
    images: ImagesConfig | None = None, layer: str | None = "layer2", name: str = "resnet18", **runtime: object
) -> ErflabConfig:
    return ErflabConfig(
        model=ModelConfig(name=name, seed=1),
        images=images or NoiseConfig(count=7, size=64),
        attribution=AttributionConfig(gradient=GradientConfig(), occlusion=OcclusionConfig(step=4, patch=4)),
        target=TargetConfig(layer=layer),
        runtime=dataclasses.replace(QUIET, **runtime),
    )


def test_the_energy_map_is_the_mean_of_exact_jacobians() -> None:
    """With one channel the signs square away, so that the map must equal the Jacobians' to rounding."""
    net = small_net()
    images = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    exact = torch.stack([jacobian(net, x, (2, 2))[1].square().sum(0) for x in images])
    target = TargetConfig(channel=1)
    result = erflab.measure(
        net, images.float(), unit=[2, 2], target=target, runtime=dataclasses.replace(QUIET, dtype="float64")
    )
    rounded = torch.stack([jacobian(net, x.float().double(), (2, 2))[1].square().sum(0) for x in images])
    np.testing.assert_allclose(result.map().values, rounded.mean(0).numpy(), rtol=1e-10)
    np.testing.assert_allclose(result.map().values, exact.mean(0).numpy(), rtol=1e-3, atol=1e-6)
    variance = result.variance()
    assert variance is not None
    np.testing.assert_allclose(variance.values, rounded.var(0).numpy() / 5, rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_batch_size_does_not_change_the_result(dtype: str) -> None:
    results = [run(configured(dtype=dtype, batch_size=size)) for size in (1, 3, 16)]
    for method in ("gradient", "occlusion"):
        first = results[0].map(method)
        for other in results[1:]:
            if dtype == "float64":
                assert float(abs(other.map(method) - first).max()) <= 1e-12 * float(first.max())
            sigma = [r.sizes(method).quantities["sigma"].value for r in (results[0], other)]
            assert sigma[1] == pytest.approx(sigma[0], rel=1e-4)


def test_repeating_a_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(configured(images=PhotographsConfig(count=4, size=64))).save(tmp_path / name)
    for file in ("result.nc", "summary.json"):
        digests = {hashlib.sha256((tmp_path / name / file).read_bytes()).hexdigest() for name in ("one", "two")}
        assert len(digests) == 1, file


def test_seeds_matter() -> None:
    base = configured()
    other = dataclasses.replace(base, runtime=dataclasses.replace(base.runtime, seed=5))
    assert not run(base).map("gradient").equals(run(other).map("gradient"))


@pytest.mark.parametrize(("layers", "magnitude"), [(5, "signed"), (10, "absolute"), (20, "signed")])
def test_uniform_stacks_have_the_closed_form_sigma(layers: int, magnitude: str) -> None:
    size = 2 * layers + 7
    result = erflab.measure(
        uniform_stack(layers, 3),
        torch.randn(2, 1, size, size),
        magnitude=magnitude,
        runtime=dataclasses.replace(QUIET, dtype="float64"),
    )
    assert result.sizes().quantities["sigma"].value == pytest.approx(math.sqrt(layers * 8 / 12), rel=1e-6)


def test_offsets_are_from_the_units_true_centre() -> None:
    """Unit (3, 3) of ResNet-18's last map at 224 px lies at pixel 96, not at 112."""
    field = erflab.theoretical_field(torchvision.models.resnet18(weights=None), None, (224, 224))
    assert (field.layer, field.unit, field.center()) == ("layer4", (3, 3), (96, 96))
    result = run(configured(NoiseConfig(count=1, size=224), layer="layer4"))
    y = result.map("gradient")["y"].values
    assert (y[0], y[96], y[-1]) == (-96, 0, 127)


def test_auto_size_is_the_smallest_that_holds_the_field() -> None:
    result = run(configured(NoiseConfig(count=1, size="auto")))
    theory = result.attribute("theory")
    assert theory["size"] == [99, 99]
    side = theory["input_size"][0]
    assert side % 8 == 0
    box = theory["box"]
    assert box[0] >= 0
    assert box[1] < side
    smaller = erflab.theoretical_field(torchvision.models.resnet18(weights=None), "layer2", (side - 8, side - 8))
    assert smaller.is_clipped()
    assert not result.flags or all(f.code != "trf_clipped" for f in result.flags)


def test_auto_size_beyond_its_limit_falls_back_and_says_so() -> None:
    result = run(configured(NoiseConfig(count=1, size="auto", size_limit=64)))
    codes = [f.code for f in result.flags]
    assert result.attribute("theory")["input_size"] == [224, 224]
    assert "auto_size_fallback" in codes


def test_the_main_job_reads_eleven_photographs_and_names_them() -> None:
    config = ErflabConfig(
        model=ModelConfig(name="tf_efficientnet_lite0", weights="efficientnet_lite0", layer="blocks.4"),
        images=PhotographsConfig(count=11),
        attribution=AttributionConfig(gradient=GradientConfig()),
        runtime=QUIET,
    )
    result = run(config)
    theory, images = result.attribute("theory"), result.attribute("images")
    assert (theory["size"], theory["stride"], theory["input_size"]) == ([339, 339], [16, 16], [352, 352])
    assert len(images["files"]) == 11
    assert all(len(f["sha256"]) == 64 for f in images["files"])
    sigma = result.sizes().quantities["sigma"].value
    assert sigma is not None
    assert 13 < sigma < 20  # 16.6 px measured elsewhere on seven photographs
    assert result.attribute("model")["weights_sha256"].startswith("57934424")
    # Eleven images are few, and that is all there is to say against them.
    assert {f.code for f in result.flags} <= {"few_effective_images", "dominant_image", "large_floor"}
    assert "few_effective_images" in {f.code for f in result.flags}


@pytest.mark.parametrize(
    ("name", "layer", "size", "kind", "grid"),
    [
        ("vit_tiny_patch16_224", "blocks.1", 224, "tokens", [14, 14]),
        ("convnext_atto", "stages.1", 96, "nchw", [12, 12]),
    ],
)
def test_tokens_and_maps_of_timm_models(name: str, layer: str, size: int, kind: str, grid: list[int]) -> None:
    theory = run(configured(NoiseConfig(count=2, size=size), layer=layer, name=name)).attribute("theory")
    assert (theory["layout"], theory["grid"]) == (kind, grid)


def test_a_channels_last_layer_is_measured_as_its_channels_first_twin() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 5, 3, padding=1)
            self.norm = nn.LayerNorm(5)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    images = torch.randn(2, 3, 12, 10)
    last, first = (erflab.measure(Last(), images, layer, runtime=QUIET) for layer in ("norm", "(output)"))
    assert last.attribute("theory")["layout"] == "nhwc"
    assert np.array_equal(last.map().values, first.map().values)


def test_the_users_model_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 3))
    net[1].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    erflab.measure(net, torch.randn(2, 3, 12, 12), runtime=dataclasses.replace(QUIET, dtype="float64"))
    assert [m.training for m in net] == [True, False, True, True]
    assert all(p.requires_grad and p.grad is None and p.dtype == torch.float32 for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_images_of_the_users_own_dataset() -> None:
    data = DatasetConfig(
        count=5, size=32, _target_="torchvision.datasets.FakeData", arguments={"size": 9, "image_size": [3, 40, 40]}
    )
    result = run(configured(data, layer="layer1"))
    assert result.attribute("images")["source"] == "torchvision.datasets.FakeData"


def test_a_dead_unit_is_flagged_and_the_rest_is_kept(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    nn.init.constant_(net[0].bias, -1e6)
    result = erflab.measure(net, torch.randn(2, 3, 12, 12), method=["gradient", "occlusion"], runtime=QUIET)
    assert {f.method for f in result.flags if f.code == "no_size"} == {"gradient", "occlusion"}
    result.save(tmp_path)
    assert "gradient.sigma" not in json.loads((tmp_path / "summary.json").read_text())


def test_signed_maps_have_no_size_and_say_why() -> None:
    result = erflab.measure(
        small_net(), torch.randn(2, 3, 16, 16), magnitude="signed", runtime=dataclasses.replace(QUIET, dtype="float64")
    )
    assert [f.code for f in result.flags if f.code == "no_size"] == ["no_size"]
    with pytest.raises(erflab.ErflabError, match="negative"):
        result.sizes()


def test_a_border_unit_is_flagged_as_clipped() -> None:
    result = erflab.measure(
        small_net(), torch.randn(2, 3, 16, 16), unit="corner", runtime=dataclasses.replace(QUIET, dtype="float64")
    )
    assert "trf_clipped" in [f.code for f in result.flags]


def test_what_the_api_refuses() -> None:
    with pytest.raises(
        ConfigError, match=r"method 'gradiant'; choose from gradient, occlusion, .*deeplift. Did you mean 'gradient'"
    ):
        erflab.measure(small_net(), torch.randn(1, 3, 16, 16), method="gradiant")
    with pytest.raises(ConfigError, match=r"no argument 'occlude'. Settings of a method .*Did you mean 'occlusion'"):
        erflab.measure(small_net(), torch.randn(1, 3, 16, 16), occlude=OcclusionConfig())
    with pytest.raises(ConfigError, match=r"deeplift=OcclusionConfig\(...\); give it a DeepLiftConfig"):
        erflab.measure(small_net(), torch.randn(1, 3, 16, 16), method="deeplift", deeplift=OcclusionConfig())
    with pytest.raises(ImageError, match=r"shape \[3, 16, 16\]"):
        erflab.measure(small_net(), torch.randn(3, 16, 16))
    with pytest.raises(
        ImageError, match=r"images are a list; give a tensor \[N, K, H, W\].*torch.stack.*images=folder"
    ):
        as_source([torch.randn(3, 16, 16)])
    with pytest.raises(ConfigError, match=r"the model is 'resnet18'; give a torch.nn.Module"):
        require_module("resnet18")
    with pytest.raises(ConfigError, match=r"input_size is 224; give px per image axis, such as \(224, 224\)"):
        image_shape(small_net(), 224)


@pytest.mark.parametrize("baseline", ["mean", "zero", "blur", "image"])
def test_every_baseline_measures(baseline: str) -> None:
    config = configured()
    config.attribution.occlusion = OcclusionConfig(step=8, patch=8, baseline=baseline)
    config.attribution.gradient = None
    result: Result = run(config)
    assert result.methods == ("occlusion",)
    assert result.sizes().quantities["sigma"].value is not None


def test_every_method_measures_the_same_unit_of_a_linear_net() -> None:
    """One channel, white images: the squared differences from the baseline are as large at every pixel on average."""
    torch.manual_seed(0)
    net, channel = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2)).double(), TargetConfig(channel=1)
    images = torch.randint(0, 2, (4, 3, 12, 12)).float() * 2 - 1  # x^2 = 1, so that x J has the energy of J
    methods = [m for m in METHODS if m != "occlusion"]
    result = erflab.measure(
        net, images, method=methods, target=channel, runtime=dataclasses.replace(QUIET, dtype="float64")
    )
    assert result.methods == tuple(methods)
    for method in methods:
        np.testing.assert_allclose(result.map(method).values, result.map("gradient").values, rtol=1e-6, atol=1e-14)
    assert result.map("deeplift").attrs["units"] == "output^2"


@pytest.mark.parametrize("baseline", ["mean", "zero", "blur", "image"])
def test_settings_of_a_method_are_given_by_its_name(baseline: str) -> None:
    images = (torch.randn(3, 3, 16, 16) + 1).double()  # in float32, as images are kept
    against = {
        "mean": images.mean((0, 2, 3))[None, :, None, None],
        "zero": torch.zeros(1),
        "blur": gaussian_blur(images, [13, 13], [2.0, 2.0]),
        "image": images.roll(-1, 0),
    }
    net, runtime = small_net(), dataclasses.replace(QUIET, dtype="float64")
    result = erflab.measure(
        net,
        images,
        unit=[2, 2],
        method="input_x_gradient",
        target=TargetConfig(channel=1),
        runtime=runtime,
        input_x_gradient=InputXGradientConfig(baseline=baseline, blur=2),
    )
    slopes = torch.stack([jacobian(net, x, (2, 2))[1] for x in images])
    expected = ((images - against[baseline]) * slopes).square().sum(1).mean(0)
    np.testing.assert_allclose(result.map().values, expected.numpy(), rtol=1e-10, atol=1e-16)


def test_the_users_model_gets_its_own_tensors_back() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    tensors = {
        name: (tensor, tensor.dtype, tensor.data_ptr()) for name, tensor in net.state_dict(keep_vars=True).items()
    }
    erflab.measure(net, torch.randn(2, 3, 8, 8), runtime=dataclasses.replace(QUIET, dtype="float64"))
    for name, (tensor, dtype, place) in tensors.items():
        assert net.get_submodule(name[0])._buffers.get(name[2:], tensor) is tensor
        assert (tensor.dtype, tensor.data_ptr()) == (dtype, place)


@pytest.mark.cuda
def test_cuda_gives_the_cpus_sizes() -> None:
    cpu, cuda = (run(configured(device=device, precision="float64")) for device in ("cpu", "cuda"))
    for method in cpu.methods:
        expected = cpu.sizes(method).quantities["sigma"].value
        assert cuda.sizes(method).quantities["sigma"].value == pytest.approx(expected, rel=1e-4)
