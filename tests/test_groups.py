"""From stored groups to the analysis, and the flags that their weights raise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import small_net
from torch import Tensor

import erflab
from erflab.config import RuntimeConfig
from erflab.result import Result

QUIET = RuntimeConfig(progress=False, device="cpu", dtype="float64")


def measured(images: Tensor, **options: object) -> Result:
    return erflab.measure(small_net(), images, runtime=QUIET, **options)


def codes(result: Result) -> dict[str, str]:
    return {flag.code: flag.seen for flag in result.flags}


@pytest.fixture(scope="module")
def result() -> Result:
    torch.manual_seed(0)
    return measured(torch.randn(24, 3, 24, 24))


def test_one_image_has_no_interval_and_says_so() -> None:
    alone = measured(torch.randn(1, 3, 16, 16))
    assert codes(alone)["few_groups"] == "one group, so no interval"
    assert alone.sizes().quantities["sigma"].standard_error is None
    assert alone.weights()["equal_weight_sigma"].standard_error is None


def test_few_scenes_and_few_images_are_flagged_with_their_number() -> None:
    found = codes(measured(torch.randn(5, 3, 16, 16)))
    assert found["few_groups"] == "5 groups"
    assert found["few_effective_images"].endswith("of 5")


def test_enough_scenes_and_images_are_not_flagged(result: Result) -> None:
    assert "few_groups" not in codes(result)
    assert "dominant_image" not in codes(result)
    many = measured(torch.randn(120, 3, 12, 12))
    assert many.weights()["effective_images"].value > 100
    assert not {"few_effective_images", "few_groups", "dominant_image"} & set(codes(many))


def test_an_image_that_outweighs_the_rest_is_flagged(result: Result) -> None:
    bright = result.dataset["gradient_totals"].copy()
    bright[3] = 10 * bright.sum()
    loud = Result((result.dataset.assign(gradient_totals=bright),))
    assert codes(loud)["dominant_image"] == "91%"
    assert loud.weights()["largest_image_share"].value == pytest.approx(10 / 11, rel=0.05)
    assert loud.weights()["effective_images"].value < 1.5


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_a_stored_map_of_any_scale_has_the_same_numbers_and_errors(
    scale: float, result: Result, tmp_path: Path
) -> None:
    net = small_net()
    net.head.weight.data *= scale  # the energy by its square, which is no float32
    torch.manual_seed(0)
    scaled = erflab.measure(net, torch.randn(24, 3, 24, 24), runtime=QUIET)
    back = erflab.load(scaled.save(tmp_path))
    assert "underflow" not in codes(back)
    lengths = {name: length for name, length in result.sizes().quantities.items() if length.unit == "px"}
    for name, truth in lengths.items():
        found = back.sizes().quantities[name]
        assert found.value == pytest.approx(truth.value, rel=1e-5, abs=1e-6), name
        assert found.standard_error == pytest.approx(truth.standard_error, rel=1e-3, abs=1e-6), name
    np.testing.assert_allclose(back.grouped().sums / scale**2, result.grouped().sums, rtol=1e-6)


def test_the_published_ratio_comes_with_its_warning() -> None:
    torch.manual_seed(1)
    found = measured(torch.randn(3, 3, 24, 24), magnitude="replknet")
    assert "scale_dependent" in codes(found)
    assert "gradient.replknet_area_ratio_0.5" in found.summary()
    assert "gradient.replknet_area_ratio_0.5" not in measured(torch.randn(2, 3, 16, 16)).summary()


def test_equal_weights_undo_the_scale_of_an_image() -> None:
    """A linear layer's energy does not depend on the image: the mean of maps of sum 1 is the map, with no error."""
    net = torch.nn.Conv2d(3, 1, 5, padding=2).double()
    found = erflab.measure(net, torch.randn(9, 3, 16, 16), runtime=QUIET)
    equal, plain = found.weights()["equal_weight_sigma"], found.sizes().quantities["sigma"]
    assert equal.value == pytest.approx(plain.value, rel=1e-6)
    assert equal.standard_error == pytest.approx(0, abs=1e-6)


def test_equal_weights_are_the_mean_of_normalised_maps(result: Result) -> None:
    torch.manual_seed(0)
    images = torch.randn(24, 3, 24, 24)
    maps = [measured(image[None]).map().values for image in images[:2]]
    two = measured(images[:2])
    found = two.dataset["gradient_equal_groups"].values.sum(0) / 2
    # Signs are keyed by the image's index, so only the first image's map is the same on its own.
    np.testing.assert_allclose(
        two.dataset["gradient_equal_groups"].values[0], maps[0] / maps[0].sum(), rtol=1e-5, atol=1e-9
    )
    assert found.sum() == pytest.approx(1)
    assert two.dataset["gradient_equal_group_images"].values.sum() == 2


def test_a_dead_image_weighs_nothing_and_breaks_nothing() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3, padding=1, bias=False), torch.nn.ReLU()).double()
    images = torch.randn(4, 3, 12, 12)
    images[1] = 0  # every ReLU is shut
    found = erflab.measure(net, images, runtime=QUIET)
    assert found.dataset["gradient_equal_group_images"].values.sum() < 4
    assert found.weights()["equal_weight_sigma"].value > 0


def test_signed_maps_have_no_equal_weight_sigma() -> None:
    assert measured(torch.randn(3, 3, 16, 16), magnitude="signed").weights()["equal_weight_sigma"].value is None


def test_agreement_of_a_linear_net_on_white_images_is_exact_in_expectation() -> None:
    """Occlusion by the mean colour is the energy summed over the patch; what is left is the noise of 1500 readings."""
    torch.manual_seed(0)
    net = torch.nn.Conv2d(3, 1, 9, padding=4, bias=False).double()
    y = torch.arange(9.0) - 4
    bell = torch.exp(-(y[:, None] ** 2 + y[None] ** 2) / 16)
    net.weight.data = (bell * torch.randn(1, 3, 9, 9).sign()).double()
    occlusion = erflab.OcclusionConfig(patch=3, step=1, baseline="zero")
    result = erflab.measure(
        net, torch.randn(1500, 3, 16, 16), method=["gradient", "occlusion"], occlusion=occlusion, runtime=QUIET
    )
    found = result.agreement()
    blurred = found["blurred_gradient_vs_occlusion"]
    assert blurred["cosine"].value > 0.995
    assert blurred["sigma_ratio"].interval[0] < 1 < blurred["sigma_ratio"].interval[1]
    assert blurred["total_variation"].value < found["gradient_vs_occlusion"]["total_variation"].value
    assert (
        found["gradient_vs_theory"]["square_ratio"].value == result.sizes().quantities["square_0.9545_over_trf"].value
    )
    summary = result.summary()
    assert summary["gradient_vs_occlusion.cosine"]["value"] == found["gradient_vs_occlusion"]["cosine"].value
    assert summary["gradient_vs_occlusion.radial_earth_mover"]["unit"] == "px"


def test_agreement_with_a_predicted_map() -> None:
    torch.manual_seed(0)
    net = small_net()
    result = erflab.measure(net, torch.randn(8, 3, 24, 24), method=["gradient", "occlusion"], runtime=QUIET)
    predicted = erflab.predicted_field(net, input_size=(24, 24)).map
    found = result.agreement(predicted)
    for name in ("predicted_vs_gradient", "predicted_vs_occlusion"):
        assert 0.5 < found[name]["sigma_ratio"].value < 2
        assert found[name]["cosine"].value > 0.7
        assert found[name]["cosine"].standard_error > 0


def test_a_dead_unit_has_no_agreement() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    torch.nn.init.constant_(net[0].bias, -1e6)
    runtime = dataclasses.replace(QUIET, dtype="float32")
    result = erflab.measure(net, torch.randn(2, 3, 12, 12), method=["gradient", "occlusion"], runtime=runtime)
    assert result.agreement() == {}
    assert result.weights()["equal_weight_sigma"].value is None
