"""Small networks spelled as layers: "c3x4-c3d2-p2s2" is four 3 x 3 convolutions, one of dilation 2, a max pooling of stride 2.

c5g4 is a 5 x 5 convolution of 4 groups, a2s2 an average pooling, c3g16+c1x2 a block of two convolutions, twice.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import nn

from erflab.analysis import uniform_variance

BLOCK = re.compile(r"(?P<layers>[^x]+)(?:x(?P<times>\d+))?")
LAYER = re.compile(r"(?P<kind>[cpa])(?P<kernel>\d+)(?:s(?P<stride>\d+))?(?:d(?P<dilation>\d+))?(?:g(?P<groups>\d+))?")
POOLINGS = {"p": nn.MaxPool2d, "a": nn.AvgPool2d}


class Layer(NamedTuple):
    """A convolution (kind c), max pooling (p) or average pooling (a)."""

    kind: str
    kernel: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1


def parsed(layers: str) -> list[Layer]:
    """The layers one by one. Raises ValueError for what is spelled otherwise."""
    found = [spelled for block in layers.split("-") for spelled in _repeated(block)]
    matches = [LAYER.fullmatch(layer) for layer in found]
    if None in matches:
        raise ValueError(f"layers is {layers!r}; spell each as c3, c3s2, c3d2, c3g4, p2s2 or a2s2, joined by '-'.")
    numbers = ("kernel", "stride", "dilation", "groups")
    return [Layer(m["kind"], *(int(m[number] or 1) for number in numbers)) for m in matches if m]


def _repeated(block: str) -> list[str]:
    match = BLOCK.fullmatch(block)
    return match["layers"].split("+") * int(match["times"] or 1) if match else [block]


def expected_variance(layers: str) -> float:
    """sigma^2 in px^2 of the energy that random weights spread evenly over the taps of each layer.

    A kernel of k taps at dilation d adds (d j)^2 (k^2 - 1) / 12, where j is the product of the strides before it.
    """
    jump, variance = 1, 0.0
    for layer in parsed(layers):
        variance += jump**2 * uniform_variance(1, layer.kernel, layer.dilation)
        jump *= layer.stride
    return variance


def network(layers: str, channels: int = 16, padding: str = "valid") -> nn.Sequential:
    """Convolutions with Gaussian weights (He et al. 2015) and no biases, ReLU before each but the first; poolings.

    `padding` is valid (none), or zeros, reflect, replicate or circular: as many px as keep the size at stride 1.
    """
    inputs, modules = 3, list[nn.Module]()
    for kind, kernel, stride, dilation, groups in parsed(layers):
        if kind in POOLINGS:
            modules.append(POOLINGS[kind](kernel, stride))
            continue
        if any(isinstance(module, nn.Conv2d) for module in modules):
            modules.append(nn.ReLU())
        pad, mode = (0, "zeros") if padding == "valid" else (dilation * (kernel - 1) // 2, padding)
        convolution = nn.Conv2d(inputs, channels, kernel, stride, pad, dilation, groups, bias=False, padding_mode=mode)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        modules.append(convolution)
        inputs = channels
    return nn.Sequential(*modules)
