"""Plain stacks of convolutions, the networks of Luo et al. 2016: the layer of depth n is named convN."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
"""Pointwise functions, by the names under which `nn.init` knows their gains."""


def uniform_stack(layers: int, kernel: int = 3) -> nn.Sequential:
    """Linear convolutions of one channel whose weights are all 1 / kernel^2."""
    stack = _stack([1] * (layers + 1), kernel, nn.Identity)
    for convolution in _convolutions(stack):
        nn.init.constant_(convolution.weight, 1 / kernel**2)
    return stack


def random_stack(activation: str, layers: int, kernel: int = 3, channels: int = 16) -> nn.Sequential:
    """Convolutions with Gaussian weights of variance gain^2 / fan-in (He et al. 2015), `activation` between them."""
    stack = _stack([3] + [channels] * layers, kernel, ACTIVATIONS[activation])
    for convolution in _convolutions(stack):
        nn.init.kaiming_normal_(convolution.weight, nonlinearity=activation)
    return stack


def _stack(channels: list[int], kernel: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    # Only conv1 is padded. An input as large as the field then leaves a grid of several units, as a target needs,
    # while the centre one sees no padding at all: borders do not bend the law.
    stack = nn.Sequential()
    for depth, (inputs, outputs) in enumerate(itertools.pairwise(channels), start=1):
        if depth > 1:
            stack.add_module(f"activation{depth - 1}", activation())
        padding = kernel // 2 if depth == 1 else 0
        stack.add_module(f"conv{depth}", nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False))
    return stack


def _convolutions(stack: nn.Sequential) -> Iterable[nn.Conv2d]:
    return (module for module in stack if isinstance(module, nn.Conv2d))
