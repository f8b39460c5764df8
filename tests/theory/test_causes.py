"""The causes of a global field: all modules on the way that join the whole image, in execution order, and no others."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

import erflab


class Gate(nn.Module):
    """Squeeze and excite without weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True)


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        weights = (tokens @ tokens.transpose(1, 2)).softmax(-1)
        return (weights @ tokens).transpose(1, 2).unflatten(2, x.shape[2:])


def causes(net: nn.Module, layer: str | None = None) -> tuple[str, ...]:
    return erflab.theoretical_field(net, layer, (32, 32)).causes


def test_all_gates_up_to_the_layer_are_named() -> None:
    net = torchvision.models.efficientnet_b0(weights=None)
    gates = [name for name, module in net.named_modules() if name.endswith("avgpool") and "block" in name]
    assert len(gates) == 16
    for layer, count in (("features.0", 0), ("features.2", 3), ("features.7", 16)):
        assert erflab.theoretical_field(net, layer).causes == tuple(gates[:count])


def test_attentions_one_after_another_without_a_skip() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), Attention(), nn.Conv2d(4, 4, 1), Attention(), Gate())
    assert causes(net) == ("1", "3", "4")
    assert causes(net, "2") == ("1",)


def test_execution_order_is_not_the_order_of_names() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Gate(), Gate()

        def forward(self, x: Tensor) -> Tensor:
            return self.a(self.b(x))

    assert causes(Net(), "a") == ("b", "a")


def test_a_branch_that_is_left_out_again_is_no_cause() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aside, self.gate, self.last = Gate(), Gate(), nn.Conv2d(3, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            both = torch.cat([self.aside(x), x], 1)
            return self.last(self.gate(both[:, 3:]))

    assert causes(Net(), "last") == ("gate",)
