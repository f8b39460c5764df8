"""A small U-Net (Ronneberger et al. 2015), with its skips, without, or with gradients along some of its paths alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d


class UNet(nn.Module):
    """Two 3 x 3 convolutions a level, max pooling down, nearest neighbours up; Gaussian weights (He et al. 2015).

    paths: "all", or "none" of the skips, which then carry zeros. A level's number, 0 for the full resolution, leaves the
    outputs as they are and lets gradients pass through that level's skip alone, `depth` through the bottom alone: the
    fields of all levels are what the whole field is made of.
    """

    def __init__(self, paths: str | int = "all", depth: int = 3, channels: int = 16) -> None:
        super().__init__()
        self.paths = paths
        self.down = nn.ModuleList(_block(channels if level else 3, channels) for level in range(depth + 1))
        self.up = nn.ModuleList(_block(2 * channels, channels) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Features at full resolution, [B, channels, H, W]."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = skips.pop()
        for level in reversed(range(len(skips))):
            coarse = interpolate(x, scale_factor=2)
            x = self.up[level](torch.cat(self._joined(level, skips[level], coarse), 1))
        return x

    def _joined(self, level: int, skip: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """What a level of the decoder is given, with what gradients may not pass cut off."""
        if self.paths == "all":
            return skip, coarse
        if self.paths == "none":
            return torch.zeros_like(skip), coarse
        return (skip, coarse.detach()) if level == self.paths else (skip.detach(), coarse)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        convolution = nn.Conv2d(width, outputs, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, nn.ReLU()]
    return nn.Sequential(*layers)
