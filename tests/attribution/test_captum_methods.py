"""Captum's other attributions against closed forms, full Jacobians and completeness; what its hooks miss is refused."""

import itertools
from collections.abc import Callable

import pytest
import torch
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR, maxpool2d
from nets import jacobian
from scipy.linalg import hadamard
from torch import Tensor, nn

from erflab.attribution.base import Aim, Batch
from erflab.attribution.completeness import refuse_incomplete
from erflab.attribution.deeplift import deeplift
from erflab.attribution.gradient import MAGNITUDES, Selector, gradient_maps, one_draw
from erflab.attribution.guided_backprop import guided_backprop
from erflab.attribution.input_x_gradient import input_x_gradient
from erflab.attribution.integrated_gradients import integrated_gradients
from erflab.attribution.methods import PIXEL_METHODS
from erflab.config import METHODS, DeepLiftConfig, GuidedBackpropConfig, IntegratedGradientsConfig
from erflab.errors import MeasurementError
from erflab.target import OUTPUT, Layout, Trunk

SIZE, UNIT = 10, (2, 1)
AIM = Aim((UNIT,))


def random_images(seed: int, count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def images() -> Tensor:
    return random_images(1)


@pytest.fixture
def baseline() -> Tensor:
    return random_images(2)


def batch_of(images: Tensor, baseline: Tensor | None = None) -> Batch:
    count = len(images)
    return Batch(images, tuple(range(count)), tuple(map(str, range(count))), baseline)


def exact(net: nn.Module) -> nn.Module:
    return net.double().eval().requires_grad_(False)


def trunk_of(net: nn.Module, layer: str = OUTPUT) -> Trunk:
    """The trunk that ends at a layer, whichever its grid."""
    shapes: list[Tensor] = []
    handle = net.get_submodule("" if layer == OUTPUT else layer).register_forward_hook(lambda *a: shapes.append(a[2]))
    net(random_images(0, 1))
    handle.remove()
    return Trunk(net, layer, 0, Layout("nchw", tuple(shapes[0].shape[2:])))


def linear_net() -> nn.Module:
    torch.manual_seed(0)
    return exact(nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(5, 4, 3, padding=1)))


def relu_net(pool: nn.Module | None = None, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
    last = nn.Conv2d(4, 4, 3, padding=1)
    return exact(nn.Sequential(first, activation(), pool or nn.Identity(), second, activation(), last))


def of_channels(y: Tensor) -> Tensor:
    """A scalar an image with another weight for every channel."""
    return (y[:, :, UNIT[0], UNIT[1]] * torch.arange(1, y.shape[1] + 1).to(y)).sum(1)


def full(net: nn.Module, images: Tensor) -> Tensor:
    """The Jacobians of the unit, [B, C, K, H, W]."""
    return torch.stack([jacobian(net, image, UNIT) for image in images])


def attributions(trunk: Trunk, images: Tensor, selector: Selector, baseline: Tensor) -> dict[str, Tensor]:
    return {
        "input_x_gradient": input_x_gradient(trunk, images, selector, baseline),
        "integrated_gradients": integrated_gradients(trunk, images, selector, baseline, 8, 0.5),
        "guided_backprop": guided_backprop(trunk, images, selector),
        "deeplift": deeplift(trunk, images, selector, baseline),
    }


def test_on_a_linear_net_each_is_the_jacobian_or_times_the_difference(images: Tensor, baseline: Tensor) -> None:
    net = linear_net()
    weights = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None, None, None]
    slope = (full(net, images) * weights).sum(1)
    found = attributions(trunk_of(net), images, of_channels, baseline)
    # captum keeps the weights of the quadrature in float32.
    for name, error in (("input_x_gradient", 1e-12), ("integrated_gradients", 1e-7), ("deeplift", 1e-12)):
        torch.testing.assert_close(found[name], (images - baseline) * slope, rtol=error, atol=1e-13)
    torch.testing.assert_close(found["guided_backprop"], slope, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("pool", [nn.Identity(), nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)], ids=str)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Softplus, nn.ELU, lambda: nn.ReLU(inplace=True)])
def test_deeplift_sums_to_the_change_of_the_output(
    images: Tensor, baseline: Tensor, pool: nn.Module, activation: Callable[[], nn.Module]
) -> None:
    """Also through pooling windows that overlap, where captum's own rule does not."""
    trunk = trunk_of(relu_net(pool, activation))
    found = deeplift(trunk, images, of_channels, baseline)
    change = of_channels(trunk(images)) - of_channels(trunk(baseline))
    torch.testing.assert_close(found.sum((1, 2, 3)), change, rtol=1e-10, atol=1e-10)
    with pytest.raises(MeasurementError, match=r"sums to something else.*and 1e-06 is allowed. Look elsewhere"):
        refuse_incomplete(trunk, images, baseline, of_channels, 1.1 * found, 1e-6, "Look elsewhere.")


@pytest.mark.parametrize("activation", [nn.Softplus, nn.Tanh])
def test_integrated_gradients_sum_to_the_change_of_a_smooth_output(
    images: Tensor, baseline: Tensor, activation: Callable[[], nn.Module]
) -> None:
    trunk = trunk_of(relu_net(activation=activation))
    found = integrated_gradients(trunk, images, of_channels, baseline, 64, 1e-8)
    change = of_channels(trunk(images)) - of_channels(trunk(baseline))
    torch.testing.assert_close(found.sum((1, 2, 3)), change, rtol=1e-6, atol=1e-6)


def test_integrated_gradients_are_the_mean_slope_on_the_path(images: Tensor, baseline: Tensor) -> None:
    """Against 20 000 midpoints of each single path, of a net with one ReLU layer, where DeepLift must agree too."""
    torch.manual_seed(0)
    net = exact(nn.Sequential(nn.Conv2d(3, 4, 3, stride=3), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    trunk, one, b = trunk_of(net), images[:1], baseline[:1]
    path = b + (torch.arange(20000)[:, None, None, None] + 0.5) / 20000 * (one - b)
    leaf = path.requires_grad_(True)
    (slopes,) = torch.autograd.grad(of_channels(net(leaf)).sum(), leaf)
    expected = ((one - b) * slopes.mean(0)).detach()
    torch.testing.assert_close(deeplift(trunk, one, of_channels, b), expected, rtol=0, atol=2e-4)
    found = integrated_gradients(trunk, one, of_channels, b, 256, 0.01)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2 * float(expected.abs().max()))


def test_too_few_steps_on_a_bent_path_are_refused(images: Tensor, baseline: Tensor) -> None:
    trunk = trunk_of(relu_net(activation=nn.Tanh))
    with pytest.raises(
        MeasurementError, match=r"sums to something else.*In 1 steps; raise attribution.integrated_grad"
    ):
        integrated_gradients(trunk, 5 * images, of_channels, 5 * baseline, 1, 0.01)


def test_guided_backprop_cuts_every_relu_to_its_positive_part(images: Tensor) -> None:
    """Against the backward pass written out by hand."""
    net = relu_net()
    first, second, last = net[0], net[3], net[5]
    z1 = first(images)
    z2 = second(z1.relu())
    seed = torch.zeros_like(last(z2)).requires_grad_(True)
    weights = torch.arange(1.0, 5.0, dtype=torch.float64).expand(3, 4)
    out = torch.zeros_like(seed)
    out[:, :, UNIT[0], UNIT[1]] = weights
    back = nn.functional.conv_transpose2d
    g2 = back(out, last.weight, padding=1).relu() * (z2 > 0)
    g1 = back(g2, second.weight, padding=1).relu() * (z1 > 0)
    expected = back(g1, first.weight, padding=1)
    torch.testing.assert_close(guided_backprop(trunk_of(net), images, of_channels), expected, rtol=1e-12, atol=1e-14)


def test_a_relu_that_runs_twice_is_cut_both_times(images: Tensor) -> None:
    once, shared = relu_net(), relu_net()
    shared[4] = shared[1]
    expected = guided_backprop(trunk_of(once), images, of_channels)
    torch.testing.assert_close(guided_backprop(trunk_of(shared), images, of_channels), expected, rtol=0, atol=0)


@pytest.mark.parametrize("layer", ["1", "2", "4"])
def test_inner_layers_may_end_at_an_activation_or_pool(images: Tensor, baseline: Tensor, layer: str) -> None:
    trunk = trunk_of(relu_net(nn.MaxPool2d(3, 2, 1)), layer)
    found = deeplift(trunk, images, of_channels, baseline)
    change = of_channels(trunk(images)) - of_channels(trunk(baseline))
    torch.testing.assert_close(found.sum((1, 2, 3)), change, rtol=1e-10, atol=1e-10)


def by_channel(name: str, trunk: Trunk, images: Tensor, baseline: Tensor) -> Tensor:
    """The attributions of each channel alone, [B, C, K, H, W]."""
    channels = trunk(images).shape[1]
    alone: list[Selector] = [lambda y, c=c: y[:, c, UNIT[0], UNIT[1]] for c in range(channels)]
    return torch.stack([attributions(trunk, images, only, baseline)[name] for only in alone], 1)


@pytest.mark.parametrize("name", ["input_x_gradient", "integrated_gradients", "deeplift"])
def test_signs_give_the_energy_of_what_is_linear_in_the_output(images: Tensor, baseline: Tensor, name: str) -> None:
    """Over all Hadamard rows sum_k (sum_c v_c a_c)^2 averages to sum_k sum_c a_c^2 exactly."""
    trunk = trunk_of(relu_net(nn.MaxPool2d(2)))
    rows = torch.from_numpy(hadamard(4)).double()

    def attribute(trunk: Trunk, images: Tensor, selector: Selector) -> Tensor:
        return attributions(trunk, images, selector, baseline)[name]

    maps = [
        one_draw(trunk, images, AIM, MAGNITUDES["energy"], lambda c, v=v: v.expand(len(images), c), attribute)
        for v in rows
    ]
    expected = by_channel(name, trunk, images, baseline).square().sum((1, 2))
    torch.testing.assert_close(torch.stack(maps).mean(0), expected, rtol=1e-9, atol=1e-14)
    whole = by_channel(name, trunk, images, baseline).sum(1)
    torch.testing.assert_close(
        gradient_maps(trunk, batch_of(images), AIM, "absolute", attribute=attribute),
        whole.abs().sum(1),
        rtol=1e-9,
        atol=1e-14,
    )
    torch.testing.assert_close(
        gradient_maps(trunk, batch_of(images), AIM, "signed", attribute=attribute), whole.sum(1), rtol=1e-9, atol=1e-13
    )


def test_single_channels_give_the_energy_of_guided_backprop_and_signs_do_not(images: Tensor, baseline: Tensor) -> None:
    trunk = trunk_of(relu_net())
    expected = by_channel("guided_backprop", trunk, images, baseline).square().sum((1, 2))
    drawn = [2.0 * torch.eye(4, dtype=torch.float64)[c] for c in range(4)]
    signs = [torch.tensor(v, dtype=torch.float64) for v in itertools.product((-1.0, 1.0), repeat=4)]
    single, random = (
        torch.stack(
            [
                one_draw(trunk, images, AIM, MAGNITUDES["energy"], lambda c, v=v: v.expand(3, c), guided_backprop)
                for v in seeds
            ]
        ).mean(0)
        for seeds in (drawn, signs)
    )
    torch.testing.assert_close(single, expected, rtol=1e-12, atol=1e-15)
    assert float((random - expected).norm() / expected.norm()) > 0.05


def test_the_option_guided_backprop_draws_single_channels(images: Tensor) -> None:
    trunk = trunk_of(relu_net())
    single = by_channel("guided_backprop", trunk, images, images).square().sum(2)
    found = PIXEL_METHODS["guided_backprop"].maps(trunk, batch_of(images), AIM, GuidedBackpropConfig(), 0)
    for image, candidates in zip(found, 4 * single, strict=True):
        assert sum(torch.allclose(image, candidate) for candidate in candidates) == 1


@pytest.mark.parametrize("name", PIXEL_METHODS)
@pytest.mark.parametrize("magnitude", ["energy", "absolute"])
def test_a_map_depends_on_its_own_image_alone(images: Tensor, baseline: Tensor, name: str, magnitude: str) -> None:
    trunk, maps = trunk_of(relu_net(nn.MaxPool2d(3, 2, 1))), PIXEL_METHODS[name].maps
    config = METHODS[name](magnitude=magnitude)
    if name == "integrated_gradients":
        config = IntegratedGradientsConfig(magnitude=magnitude, steps=4, tolerance=0.5)
    together = maps(trunk, batch_of(images, baseline), AIM, config, 0)
    one = Batch(images[1:2], (1,), ("1",), baseline[1:2])
    assert together.shape == (3, SIZE, SIZE)
    assert float(together.min()) >= 0
    torch.testing.assert_close(together[1:2], maps(trunk, one, AIM, config, 0), rtol=1e-10, atol=1e-15)


def test_without_a_baseline_images_are_compared_with_zero(images: Tensor) -> None:
    trunk, maps = trunk_of(relu_net()), PIXEL_METHODS["deeplift"].maps
    zeros = maps(trunk, batch_of(images, torch.zeros_like(images)), AIM, DeepLiftConfig(), 0)
    assert torch.equal(maps(trunk, batch_of(images), AIM, DeepLiftConfig(), 0), zeros)


def test_where_the_image_is_the_baseline_nothing_is_attributed(images: Tensor, baseline: Tensor) -> None:
    baseline[:, :, :, 0] = images[:, :, :, 0]
    trunk = trunk_of(relu_net())
    for name, found in attributions(trunk, images, of_channels, baseline).items():
        assert (float(found[..., 0].abs().max()) == 0) == (name != "guided_backprop"), name


class Functional(nn.Module):
    """A network whose one activation is whatever function is given."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.function = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), function
        exact(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.stem(x)))


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (torch.relu, "relu"),
        (nn.functional.leaky_relu, "leaky_relu"),
        (lambda y: y.clamp(min=0), "clamp"),
        (nn.functional.gelu, "gelu"),
        (nn.functional.silu, "silu"),
    ],
)
def test_a_rectifier_that_is_no_module_is_refused_by_name(
    images: Tensor, function: Callable[[Tensor], Tensor], operation: str
) -> None:
    trunk = trunk_of(Functional(function))
    for method in (
        lambda: guided_backprop(trunk, images, of_channels),
        lambda: deeplift(trunk, images, of_channels, 0 * images),
    ):
        with pytest.raises(
            MeasurementError, match=rf"the model itself \(Functional\) runs {operation}, .*of the kind ReLU"
        ):
            method()


def test_another_kind_of_rectifier_is_refused_by_name(images: Tensor) -> None:
    trunk = trunk_of(relu_net(activation=nn.ReLU6))
    with pytest.raises(
        MeasurementError, match=r"guided_backprop up to layer '\(output\)': '1' \(ReLU6\) runs hardtanh"
    ):
        guided_backprop(trunk, images, of_channels)
    with pytest.raises(MeasurementError, match=r"deeplift up to layer '\(output\)': '1' \(ReLU6\) runs hardtanh"):
        deeplift(trunk, images, of_channels, 0 * images)


def test_what_lies_beyond_the_layer_is_not_looked_at(images: Tensor) -> None:
    net = Functional(torch.relu)
    assert guided_backprop(trunk_of(net, "stem"), images, of_channels).shape == images.shape


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda y: y * y.mean((2, 3), keepdim=True), "mul"),
        (lambda y: nn.functional.max_pool2d(y, 3, 1, 1), "max_pool2d"),
    ],
)
def test_deeplift_refuses_gates_and_functional_pooling(
    images: Tensor, function: Callable[[Tensor], Tensor], operation: str
) -> None:
    with pytest.raises(MeasurementError, match=f"runs {operation}.*attribution=integrated_gradients"):
        deeplift(trunk_of(Functional(function)), images, of_channels, 0 * images)


def test_deeplift_refuses_a_module_that_runs_twice(images: Tensor) -> None:
    net = relu_net()
    net[4] = net[1]
    with pytest.raises(MeasurementError, match=r"'1' \(ReLU\) runs 2 times, and captum keeps one state a module"):
        deeplift(trunk_of(net), images, of_channels, 0 * images)


def test_deeplift_refuses_what_does_not_sum_up(images: Tensor) -> None:
    """A nonlinear call that is in no list: the sum gives it away."""
    with pytest.raises(MeasurementError, match=r"sums to something else than the output's change.*do not cover"):
        deeplift(trunk_of(Functional(torch.sin)), images, of_channels, 0 * images)


def test_captum_and_the_model_are_left_as_they_were(images: Tensor, baseline: Tensor) -> None:
    net = relu_net(nn.MaxPool2d(3, 2, 1))
    trunk = trunk_of(net)
    attributions(trunk, images, of_channels, baseline)
    assert SUPPORTED_NON_LINEAR[nn.MaxPool2d] is maxpool2d
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in trunk.modules())
    assert not images.requires_grad


def test_the_table_holds_every_method_but_occlusion_with_its_unit() -> None:
    assert {*PIXEL_METHODS, "occlusion"} == set(METHODS)
    assert PIXEL_METHODS["deeplift"].map_unit("energy") == "output^2"
    assert PIXEL_METHODS["deeplift"].map_unit("absolute") == "output"
    assert PIXEL_METHODS["guided_backprop"].map_unit("energy") == "(output/input)^2"
    assert PIXEL_METHODS["gradient"].map_unit("signed") == "(output/input)"


def test_the_gradients_own_maps_are_untouched(images: Tensor) -> None:
    trunk = trunk_of(relu_net())
    found = PIXEL_METHODS["gradient"].maps(trunk, batch_of(images), AIM, METHODS["gradient"](draws=2), 3)
    assert torch.equal(found, gradient_maps(trunk, batch_of(images), AIM, "energy", seed=3, draws=2))


def test_without_biases_and_from_zero_all_attributions_of_the_output_agree(images: Tensor) -> None:
    """A ReLU network without biases is linear on each ray from zero: Ancona et al., ICLR 2018, and LRP-0 with them."""
    net = relu_net(nn.MaxPool2d(3, 2, 1))
    for convolution in (net[0], net[3], net[5]):
        convolution.bias = None
    zero = torch.zeros_like(images)
    found = attributions(trunk_of(net), images, of_channels, zero)
    change = of_channels(trunk_of(net)(images))
    torch.testing.assert_close(found["input_x_gradient"].sum((1, 2, 3)), change, rtol=1e-12, atol=1e-12)
    for name, error in (("integrated_gradients", 1e-7), ("deeplift", 1e-12)):
        torch.testing.assert_close(found[name], found["input_x_gradient"], rtol=error, atol=1e-12)
