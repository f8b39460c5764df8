"""Recomputed activations: the same bits, each block run twice, and what cannot be recomputed is refused."""

import dataclasses

import pytest
import torch
import torchvision
from torch import Tensor, nn

import erflab
from erflab.config import RuntimeConfig
from erflab.errors import ConfigError, MeasurementError
from erflab.recomputing import blocks, recompute_wanted, recomputed

EAGER = RuntimeConfig(progress=False, device="cpu", crop="off", recompute=False)
AGAIN = dataclasses.replace(EAGER, recompute=True)


class Gated(nn.Module):
    """A block with a global gate, as squeeze-and-excitation has, and a count of its runs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.SiLU(True))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        y = self.body(x)
        return x + y * self.gate(y)


def gated_net() -> nn.Sequential:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True))
    return nn.Sequential(stem, nn.Sequential(*[Gated(6) for _ in range(3)]), nn.Conv2d(6, 4, 1))


@pytest.mark.parametrize(
    ("layer", "method"),
    [
        ("1.1", "gradient"),
        ("2", "gradient"),
        (["1.0", "2"], "gradient"),
        ("2", "integrated_gradients"),
        ("2", "input_x_gradient"),
    ],
)
def test_the_result_is_the_same_to_the_bit(layer: str | list[str], method: str) -> None:
    images = torch.randn(3, 3, 17, 19, generator=torch.Generator().manual_seed(1))
    found = erflab.measure(gated_net(), images, layer, method=method, runtime=AGAIN)
    for part, expected in zip(
        found, erflab.measure(gated_net(), images, layer, method=method, runtime=EAGER), strict=True
    ):
        assert torch.equal(torch.tensor(part.map().values), torch.tensor(expected.map().values))
        assert part.attribute("versions") == expected.attribute("versions")


def test_blocks_run_again_in_the_backward_pass_and_keep_their_inputs_alone() -> None:
    net, kept = gated_net(), []
    images = torch.randn(1, 3, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        eager = net(images).sum()
        count = len(kept)
        with recomputed(net, ["2"]):
            recomputing = net(images).sum()
        assert len(kept) - count < count / 2
    assert [block.runs for block in net[1]] == [2, 2, 2]
    (expected,), (found,) = (torch.autograd.grad(scalar, images) for scalar in (eager, recomputing))
    assert [block.runs for block in net[1]] == [3, 3, 3]
    assert torch.equal(found, expected)
    assert not any("forward" in vars(module) for module in net.modules())


def test_blocks_are_the_largest_that_hold_no_layer() -> None:
    names = [f"layer{stage}.{block}" for stage in (1, 2) for block in (0, 1)]
    assert list(blocks(torchvision.models.resnet18(weights=None), ["layer2", "layer3.0.conv2"])) == [
        *names,
        "layer3.0.downsample",
        "layer3.1",
        "layer4.0",
        "layer4.1",
    ]
    assert list(blocks(gated_net(), ["2"])) == ["0", "1.0", "1.1", "1.2"]


def test_large_images_recompute_by_themselves() -> None:
    assert recompute_wanted(RuntimeConfig(), "gradient", (4096, 4096))
    assert not recompute_wanted(RuntimeConfig(), "gradient", (1024, 1024))
    assert not recompute_wanted(RuntimeConfig(), "deeplift", (4096, 4096))
    assert not recompute_wanted(RuntimeConfig(compile=True), "gradient", (4096, 4096))
    assert not recompute_wanted(RuntimeConfig(recompute=False), "gradient", (4096, 4096))


def test_an_input_that_is_changed_in_place_is_refused() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.conv = nn.Hardswish(inplace=True), nn.Conv2d(6, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.act(x))

    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), Overwriting(), nn.Conv2d(6, 2, 1))
    with pytest.raises(MeasurementError, match="the input of '2' is changed in place, so that its activations cannot"):
        erflab.measure(net, torch.randn(2, 3, 12, 12), "3", runtime=AGAIN)


class Unlike(nn.Module):
    """A block that takes a list, and whose second run is not its first."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.body, self.act = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)), act
        self.runs, self.limit = 0, 10**6

    def forward(self, given: list[Tensor]) -> Tensor:
        self.runs += 1
        return self.body(given[0] if self.runs > self.limit else self.act(given[0]))


def unlike_net(act: nn.Module) -> nn.Sequential:
    class Listed(nn.Conv2d):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [super().forward(x)]

    torch.manual_seed(0)
    return nn.Sequential(Listed(3, 3, 3), Unlike(act), nn.Conv2d(3, 2, 1))


def test_what_a_block_is_given_in_a_list_must_not_be_changed_either() -> None:
    with pytest.raises(MeasurementError, match="the input of '1' is changed in place"):
        erflab.measure(unlike_net(nn.Hardswish(inplace=True)), torch.randn(2, 3, 12, 12), "2", runtime=AGAIN)


def test_a_block_that_runs_otherwise_the_second_time_is_refused() -> None:
    net = unlike_net(nn.SiLU())
    inputs = torch.randn(2, 3, 12, 12, requires_grad=True)

    def gradient() -> None:
        with recomputed(net, ["2"]):
            scalar = net(inputs).sum()
            net[1].limit = 1
            torch.autograd.grad(scalar, inputs)

    with pytest.raises(MeasurementError, match=r"a block .* runs otherwise .*recompute=false"):
        gradient()


def test_random_numbers_are_drawn_again() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + torch.randn_like(x)).square()

    net = nn.Sequential(nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3), Noisy()), nn.ReLU()), nn.Conv2d(3, 2, 1))
    images = torch.randn(1, 3, 9, 9, requires_grad=True)

    def gradient() -> Tensor:
        torch.manual_seed(3)
        return torch.autograd.grad(net(images).sum(), images)[0]

    with recomputed(net, ["1"]):
        found = gradient()
    assert torch.equal(found, gradient())


def test_no_block_holds_a_module_that_is_read_under_another_name() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), Gated(6), Gated(6), nn.Conv2d(6, 2, 1))
    net[2].body = net[1].body
    assert list(blocks(net, ["3"])) == ["1", "2"]
    assert list(blocks(net, ["1.body", "3"])) == ["1.body", "1.gate", "2.gate"]
    images = torch.randn(2, 3, 12, 12)
    found, expected = (erflab.measure(net, images, ["1.body:0", "3"], runtime=r) for r in (AGAIN, EAGER))
    for part, wanted in zip(found, expected, strict=True):
        assert torch.equal(torch.tensor(part.map().values), torch.tensor(wanted.map().values))


def test_what_cannot_be_recomputed_is_refused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    images = torch.randn(1, 3, 12, 12)
    with pytest.raises(
        ConfigError, match="before 2 is no block of several modules whose activations could be computed again"
    ):
        erflab.measure(plain, images, "2", runtime=AGAIN)
    with pytest.raises(ConfigError, match=r"runtime.recompute is true, and guided_backprop hooks modules"):
        erflab.measure(nn.Sequential(plain, nn.ReLU()), images, "1", method="guided_backprop", runtime=AGAIN)
    with pytest.raises(ConfigError, match=r"runtime.recompute and runtime.compile are true"):
        RuntimeConfig(recompute=True, compile=True)
    with pytest.raises(ConfigError, match=r"runtime.recompute is 'sometimes'"):
        RuntimeConfig(recompute="sometimes")
