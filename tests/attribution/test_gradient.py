"""Gradient attribution against exact Jacobians, closed forms and plain autograd."""

import itertools
import math

import numpy as np
import pytest
import torch
import xarray as xr
from nets import jacobian, small_net, uniform_stack
from scipy.linalg import hadamard
from torch import Tensor, nn

from erflab.analysis import moments
from erflab.attribution.base import Aim, Batch, pixel_frame
from erflab.attribution.gradient import MAGNITUDES, gradient_maps, input_gradient, one_draw, shared_gradient_maps
from erflab.target import OUTPUT, Layout, Trunk

SIZE, GRID, UNIT = 16, (4, 4), (2, 1)
AIM = Aim((UNIT,))


def trunk_of(net: nn.Module, grid: tuple[int, int] = GRID, layer: str = OUTPUT) -> Trunk:
    return Trunk(net, layer, 0, Layout("nchw", grid))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def batch_of(images: Tensor) -> Batch:
    return Batch(images, tuple(range(len(images))), tuple(map(str, range(len(images)))))


def test_captums_gradient_is_that_of_autograd_bit_for_bit(images: Tensor) -> None:
    net = small_net().float()
    x = images.float()
    found = input_gradient(trunk_of(net), x, lambda y: y[:, :, 2, 1].sum(1))
    leaf = x.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(net(leaf)[:, :, 2, 1].sum(), leaf)
    assert torch.equal(found, expected)


def test_an_inner_layer_gives_the_gradient_of_that_layer(images: Tensor) -> None:
    net = small_net()
    found = input_gradient(trunk_of(net, (8, 8), "body"), images, lambda y: y[:, :, 3, 3].sum(1))
    leaf = images.clone().requires_grad_(True)
    inner = net.body(torch.relu(net.stem(leaf)))
    (expected,) = torch.autograd.grad(inner[:, :, 3, 3].sum(), leaf)
    assert torch.equal(found, expected)


def exact_energy(net: nn.Module, images: Tensor) -> Tensor:
    return torch.stack([jacobian(net, image, UNIT).square().sum((0, 1)) for image in images])


def test_energy_over_all_sign_vectors_is_the_jacobians_sum_of_squares(images: Tensor) -> None:
    net = small_net(channels=4)
    vectors = [torch.tensor(v, dtype=torch.float64) for v in itertools.product((-1.0, 1.0), repeat=4)]
    maps = [
        one_draw(trunk_of(net), images, AIM, MAGNITUDES["energy"], lambda c, v=v: v.expand(len(images), c))
        for v in vectors
    ]
    torch.testing.assert_close(torch.stack(maps).mean(0), exact_energy(net, images), rtol=1e-12, atol=0)


def test_energy_over_hadamard_rows_is_the_jacobians_sum_of_squares(images: Tensor) -> None:
    net = small_net(channels=8)
    rows = torch.from_numpy(hadamard(8)).double()
    maps = [
        one_draw(trunk_of(net), images, AIM, MAGNITUDES["energy"], lambda c, v=v: v.expand(len(images), c))
        for v in rows
    ]
    torch.testing.assert_close(torch.stack(maps).mean(0), exact_energy(net, images), rtol=1e-12, atol=0)


def test_sampled_energy_is_unbiased_within_its_standard_error(images: Tensor) -> None:
    net, draws = small_net(channels=4), 400
    trunk = trunk_of(net)
    totals = torch.stack(
        [gradient_maps(trunk, batch_of(images), AIM, "energy", seed=seed).sum((1, 2)) for seed in range(draws)]
    )
    exact = exact_energy(net, images).sum((1, 2))
    error = totals.std(0) / math.sqrt(draws)
    assert bool(((totals.mean(0) - exact).abs() < 4 * error).all())
    assert float((error / exact).max()) < 0.1  # or the line above would say nothing


def test_more_draws_average_the_same_estimator(images: Tensor) -> None:
    trunk = trunk_of(small_net())
    one = gradient_maps(trunk, batch_of(images), AIM, "energy", draws=1)
    many = gradient_maps(trunk, batch_of(images), AIM, "energy", draws=8)
    exact = exact_energy(small_net(), images)
    assert not torch.equal(one, many)
    assert float((many - exact).norm()) < float((one - exact).norm())


def test_the_other_magnitudes_follow_their_definitions(images: Tensor) -> None:
    net = small_net()
    full = torch.stack([jacobian(net, image, UNIT) for image in images])
    torch.testing.assert_close(
        gradient_maps(trunk_of(net), batch_of(images), AIM, "absolute"), full.sum(1).abs().sum(1)
    )
    torch.testing.assert_close(gradient_maps(trunk_of(net), batch_of(images), AIM, "signed"), full.sum(1).sum(1))
    active = (net(images)[:, :, UNIT[0], UNIT[1]] > 0)[:, :, None, None, None]
    torch.testing.assert_close(
        gradient_maps(trunk_of(net), batch_of(images), AIM, "replknet"), (full * active).sum(1).relu().sum(1)
    )


def test_one_channel_needs_no_signs(images: Tensor) -> None:
    net = small_net()
    trunk = Trunk(net, OUTPUT, 0, Layout("nchw", GRID), channel=2)
    exact = torch.stack([jacobian(net, image, UNIT)[2].square().sum(0) for image in images])
    torch.testing.assert_close(gradient_maps(trunk, batch_of(images), AIM, "energy"), exact)


def stack_sigma(layers: int, kernel: int, magnitude: str) -> float:
    """The measured sigma of a uniform stack at the middle of an image that holds the whole field."""
    size = layers * (kernel - 1) + 5
    net = uniform_stack(layers, kernel)
    middle = size // 2
    x = torch.zeros(1, 1, size, size, dtype=torch.float64)
    maps = gradient_maps(trunk_of(net, (size, size)), batch_of(x), Aim(((middle, middle),)), magnitude)
    frame = pixel_frame((size, size), (float(middle), float(middle)))
    return moments(xr.DataArray(maps[0].numpy(), {"y": frame.y, "x": frame.x}, ("y", "x"))).sigma


@pytest.mark.parametrize(("layers", "kernel"), [(5, 3), (10, 3), (20, 3), (40, 3), (3, 5), (4, 7)])
@pytest.mark.parametrize("magnitude", ["signed", "absolute"])
def test_uniform_stacks_have_the_closed_form_sigma(layers: int, kernel: int, magnitude: str) -> None:
    assert stack_sigma(layers, kernel, magnitude) == pytest.approx(math.sqrt(layers * (kernel**2 - 1) / 12), rel=1e-6)


@pytest.mark.parametrize("layers", [5, 10, 20, 40])
def test_the_energy_of_uniform_stacks_is_the_squared_kernel(layers: int) -> None:
    """Published to three digits: 1.343, 1.861, 2.607, 3.669 px for 5, 10, 20, 40 layers of 3 x 3."""
    line = np.ones(1)
    for _ in range(layers):
        line = np.convolve(line, np.ones(3) / 3)
    offset = np.arange(len(line)) - len(line) // 2
    expected = math.sqrt((offset**2 * line**2).sum() / (line**2).sum())
    assert stack_sigma(layers, 3, "energy") == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx({5: 1.343, 10: 1.861, 20: 2.607, 40: 3.669}[layers], abs=6e-4)


@pytest.mark.parametrize("magnitude", list(MAGNITUDES))
def test_one_forward_pass_gives_several_layers_the_numbers_that_captum_gives_each(
    magnitude: str, images: Tensor
) -> None:
    net = small_net()
    trunks = [trunk_of(net, (8, 8), "body"), trunk_of(net), trunk_of(net)]
    aims = [Aim(((3, 3),)), AIM, Aim(((0, 0),))]
    found = shared_gradient_maps(trunks, batch_of(images), aims, magnitude, seed=3, draws=2)
    for trunk, aim, maps in zip(trunks, aims, found, strict=True):
        assert torch.equal(maps, gradient_maps(trunk, batch_of(images), aim, magnitude, seed=3, draws=2))


def test_a_layer_that_is_overwritten_in_place_is_read_before_that(images: Tensor) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3)).double()
    trunks = [trunk_of(net, (14, 14), "0"), trunk_of(net, (12, 12), "2")]
    aims = [Aim(((5, 5),)), Aim(((4, 4),))]
    found = shared_gradient_maps(trunks, batch_of(images), aims, "replknet")
    for trunk, aim, maps in zip(trunks, aims, found, strict=True):
        torch.testing.assert_close(maps, gradient_maps(trunk, batch_of(images), aim, "replknet"))


def test_windows_of_separate_units_are_averaged(images: Tensor) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3).double()
    units = ((0, 0), (0, 5), (7, 2))
    aim = Aim(units, tuple((y, y + 2, x, x + 2) for y, x in units))
    found = gradient_maps(trunk_of(net, (14, 14)), batch_of(images), aim, "energy", seed=5)
    singly = [
        gradient_maps(trunk_of(net, (14, 14)), batch_of(images), Aim((unit,), (window,)), "energy", seed=5)
        for unit, window in zip(units, aim.windows, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(singly).mean(0))


@pytest.mark.cuda
def test_cuda_gives_the_cpus_map(images: Tensor) -> None:
    expected = gradient_maps(trunk_of(small_net()), batch_of(images), AIM, "energy")
    found = gradient_maps(trunk_of(small_net().cuda()), batch_of(images.cuda()), AIM, "energy")
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-12 * float(expected.max()))
