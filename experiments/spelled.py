"""Small networks spelled as layers: "c3-c3d2-p2s2" is a 3 x 3 convolution, one of dilation 2, and a max pooling of stride 2."""

from __future__ import annotations

import re
from itertools import pairwise

from torch import nn

SPELLING = re.compile(r"(?P<kind>[cp])(?P<kernel>\d+)(?:s(?P<stride>\d+))?(?:d(?P<dilation>\d+))?")


def parsed(layers: str) -> list[tuple[str, int, int, int]]:
    """(kind, kernel, stride, dilation) of each layer."""
    found = [SPELLING.fullmatch(layer) for layer in layers.split("-")]
    if None in found:
        raise ValueError(f"layers is {layers!r}; spell each as c3, c3s2, c3d2 or p2s2, joined by '-'.")
    return [(m["kind"], int(m["kernel"]), int(m["stride"] or 1), int(m["dilation"] or 1)) for m in found if m]


def network(layers: str, channels: int = 16, padding: str = "valid") -> nn.Sequential:
    """Convolutions with Gaussian weights (He et al. 2015) and no biases, ReLU before each but the first; max poolings.

    `padding` is valid (none), or zeros, reflect, replicate or circular: as many px as keep the size at stride 1.
    """
    sizes = iter(pairwise([3] + [channels] * len(layers)))
    modules: list[nn.Module] = []
    for kind, kernel, stride, dilation in parsed(layers):
        if kind == "p":
            modules.append(nn.MaxPool2d(kernel, stride))
            continue
        if any(isinstance(module, nn.Conv2d) for module in modules):
            modules.append(nn.ReLU())
        pad, mode = (0, "zeros") if padding == "valid" else (dilation * (kernel - 1) // 2, padding)
        convolution = nn.Conv2d(*next(sizes), kernel, stride, pad, dilation, bias=False, padding_mode=mode)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        modules.append(convolution)
    return nn.Sequential(*modules)
