"""Measurements on crops: the same result as on whole images, the check on the first image, and what is recorded."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from nets import small_net
from torch import Tensor, nn

import erflab
from erflab import cropping
from erflab.config import IntegratedGradientsConfig, OcclusionConfig, RuntimeConfig
from erflab.errors import ConfigError, MeasurementError
from erflab.result import Result
from erflab.theory.crop import Crop

EXACT = RuntimeConfig(progress=False, device="cpu", dtype="float64")
CASES: dict[str, dict[str, Any]] = {
    "gradient": {},
    "corner": {"unit": "corner", "magnitude": "signed"},
    "several layers": {"layer": ["stem", "head"]},
    "against a blurred image": {
        "method": "integrated_gradients",
        "integrated_gradients": IntegratedGradientsConfig(steps=2, baseline="blur", tolerance=9.0),
    },
    "occlusion of one unit": {
        "method": ["occlusion", "input_x_gradient"],
        "occlusion": OcclusionConfig(units="one", patch=4, step=2, baseline="image"),
    },
    "occlusion read at all units": {"method": "occlusion", "occlusion": OcclusionConfig(patch=4, step=2)},
}


def measured(images: Tensor | None = None, net: nn.Module | None = None, crop: str = "auto", **options: Any) -> Result:
    torch.manual_seed(0)
    if images is None:
        images = torch.randn(4, 3, 48, 56, dtype=torch.float64)
    runtime = dataclasses.replace(EXACT, crop=crop)
    return erflab.measure(net or small_net(), images, runtime=runtime, **options)


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_that_of_whole_images(case: str) -> None:
    options = {"layer": "head", **CASES[case]}
    cropped, whole = (measured(crop=crop, **options) for crop in ("auto", "off"))
    for part, other in zip(cropped, whole, strict=True):
        record = part.attribute("crop")
        assert math.prod(record["size"]) < 48 * 56 * 0.6
        assert record["difference"] <= 1e-12
        assert other.attribute("crop") == {"refused": "runtime.crop is off", "difference": None}
        assert part.flags == other.flags
        sums = {
            f"{m}_{kind}" for m in part.methods for kind in ("groups", "equal_groups")
        }  # of what was computed alone
        for name in set(part.dataset.data_vars) - sums:
            expected = other.dataset[name].values.astype(float)
            peak = np.max(np.abs(expected), where=np.isfinite(expected), initial=0)
            np.testing.assert_allclose(part.dataset[name].values, expected, rtol=0, atol=1e-7 * peak, err_msg=str(name))
        for method in part.methods:
            expected = other.map(method).values
            np.testing.assert_allclose(part.map(method).values, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
            groups = zip(part.grouped(method).means, other.grouped(method).means, strict=True)
            for mean, expected in groups:
                np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
            sigma, expected = (r.weights(method)["equal_weight_sigma"] for r in (part, other))
            assert (sigma.value is None) == (expected.value is None)
            if sigma.value is not None:
                assert sigma.value == pytest.approx(expected.value, rel=1e-6)
                assert sigma.standard_error == pytest.approx(expected.standard_error, rel=1e-4)


def test_units_read_together_stay_in_their_windows() -> None:
    """The border is as wide as half of a field, so that the crop around 5 x 6 separate units leaves it out."""
    net = nn.Sequential(nn.Conv2d(3, 4, 9, stride=8, padding=4), nn.Tanh()).double()
    images, options = torch.randn(9, 3, 57, 66, dtype=torch.float64), {"layer": "1", "unit": "grid"}
    cropped, whole = (measured(images, net, crop, **options) for crop in ("auto", "off"))
    assert len(cropped.attribute("theory")["units"]) > 1
    assert cropped.attribute("crop")["difference"] <= 1e-12
    np.testing.assert_allclose(cropped.map().values, whole.map().values, rtol=1e-10)


def test_a_refusal_is_recorded() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.pool = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.stem(x) * self.pool(self.stem(x))

    result = measured(net=Gated().double())
    assert result.attribute("crop")["refused"] == "the field of layer '(output)' is global, by pool"


def test_few_images_are_not_worth_the_check() -> None:
    result = measured(torch.randn(1, 3, 48, 56), layer="head")
    assert "it would save the work of 0.8" in result.attribute("crop")["refused"]


def test_a_crop_that_gives_another_map_is_dropped_and_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = measured(crop="off", layer="head")
    field = erflab.theoretical_field(small_net(), "head", (48, 56))
    box = field.box()
    assert box is not None
    wrong = Crop((int(box[0]) // 4 * 4 + 4, int(box[2]) // 4 * 4), (16, 16), (48, 56))
    monkeypatch.setattr("erflab.cropping.find_crop", lambda *_: wrong)
    result = measured(layer="head")
    (flag,) = (flag for flag in result.flags if flag.code == "crop_differs")
    assert "of the peak" in flag.seen
    assert result.attribute("crop")["difference"] > 1e-3
    assert result.map().equals(expected.map())


def test_of_large_images_the_outputs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erflab.cropping.LARGE", 1000)
    monkeypatch.setattr("erflab.cropping._maps", None)  # no gradient of the whole image
    images = torch.randn(1, 3, 48, 56, dtype=torch.float64)
    result = measured(images, layer="head")
    assert 0 <= result.attribute("crop")["difference"] <= 1e-12
    expected = measured(images, crop="off", layer="head").map()
    np.testing.assert_allclose(result.map().values, expected.values, rtol=0, atol=1e-12 * float(expected.max()))


def test_where_the_gradient_of_an_image_does_not_fit_outputs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> list[Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("erflab.cropping._maps", failing)
    assert 0 <= measured(layer="head").attribute("crop")["difference"] <= 1e-12


class Hiding(nn.Module):
    """A network in float32; its last kernel may be neither parameter nor buffer, and then stays so."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        self.net = small_net().float()
        self.kernel = torch.ones(4, 1, 1, 1) if hidden else nn.Parameter(torch.ones(4, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.net(x), self.kernel, groups=4)


@pytest.mark.parametrize("hidden", [False, True])
def test_what_float32_leaves_open_float64_decides(hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cropping.ALLOWED, torch.float32, -1.0)
    net, runtime = Hiding(hidden=hidden), RuntimeConfig(progress=False, device="cpu")
    result = erflab.measure(net, torch.randn(4, 3, 48, 56), runtime=runtime)
    crop = result.attribute("crop")
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert ("crop_differs" in [flag.code for flag in result.flags]) is hidden
    assert crop["refused"].startswith("the map differed by") if hidden else crop["difference"] <= 1e-12


def test_a_first_image_without_a_map_has_its_own_error() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.square()

    images = torch.randn(4, 3, 48, 56, dtype=torch.float64)
    images[0] *= 1e200
    with pytest.raises(MeasurementError, match=r"not finite for image\(s\) \[0\]"):
        measured(images, nn.Sequential(nn.Conv2d(3, 4, 3), Square()).double())


def test_crop_is_auto_or_off() -> None:
    with pytest.raises(ConfigError, match=r"runtime.crop is 'on'; choose one of auto, off"):
        RuntimeConfig(crop="on")
