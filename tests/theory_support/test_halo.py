"""Tiled inference with the halo gives what whole inference gives, and with less it does not."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import erflab
from erflab.errors import TheoryError


class UNet(nn.Module):
    """Two levels down and up, skips concatenated, one way up transposed and one interpolated."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bottom = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1)
        self.join, self.head = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        full = torch.relu(self.first(x))
        half = torch.tanh(self.second(functional.max_pool2d(full, 2)))
        quarter = torch.relu(self.bottom(functional.avg_pool2d(half, 2)))
        half = torch.relu(self.join(torch.cat([half, self.up(quarter)], 1)))
        wide = functional.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(torch.cat([full, wide], 1))


class FullyConvolutional(nn.Module):
    """Unpadded convolutions with asymmetric padding in front: the halo differs from side to side."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((3, 0, 1, 2))
        self.stem, self.body = nn.Conv2d(2, 4, (4, 5), stride=2), nn.Conv2d(4, 4, (3, 1), stride=2, padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(torch.relu(self.stem(self.pad(x))))


def resnet_trunk() -> nn.Module:
    return nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[:6])  # to layer2, stride 8


NETS = {
    "U-Net": (UNet, 2, (48, 64), 16),
    "fully convolutional": (FullyConvolutional, 2, (32, 48), 16),
    "ResNet trunk": (resnet_trunk, 3, (192, 256), 64),
}


def tiled(
    net: nn.Module, image: Tensor, whole: Tensor, tile: int, stride: tuple[int, ...], halo: tuple[int, ...]
) -> Tensor:
    """The map put together from tiles, each run with the halo around it and cut back to its own units."""
    top, bottom, left, right = halo
    (height, width), result = image.shape[2:], torch.full_like(whole, torch.nan)
    for a, c in product(range(0, height, tile), range(0, width, tile)):
        rows = slice(max(0, a - top), min(height, a + tile + bottom))
        columns = slice(max(0, c - left), min(width, c + tile + right))
        part = net(image[:, :, rows, columns])
        units = [
            slice(start // s, (start + tile) // s) for start, s in zip((a, c), stride, strict=True)
        ]  # whose cells lie in the tile
        inside = [
            slice(u.start - p.start // s, u.stop - p.start // s)
            for u, p, s in zip(units, (rows, columns), stride, strict=True)
        ]
        place = result[:, :, units[0], units[1]]
        place.copy_(part[:, :, inside[0], inside[1]][:, :, : place.shape[2], : place.shape[3]])
    return result


@pytest.mark.parametrize("name", NETS)
def test_tiles_are_exact_with_the_halo_and_not_with_less(name: str) -> None:
    build, channels, size, tile = NETS[name]
    torch.manual_seed(0)
    net = build().double().eval().requires_grad_(False)
    field = erflab.theoretical_field(net, None, size, channels=channels)
    image = torch.randn(1, channels, *size, dtype=torch.float64)
    whole = net(image)
    stride, halo = tuple(n // g for n, g in zip(size, field.grid, strict=True)), field.halo()
    tolerance = 1e-12 * float(whole.abs().max())
    assert all(
        overlap % step == 0 for overlap, step in zip(halo, [s for s in field.total_stride for _ in "ab"], strict=True)
    )
    assert float((tiled(net, image, whole, tile, stride, halo) - whole).abs().max()) < tolerance
    for side, overlap in enumerate(halo):
        if overlap:
            less = tuple(h - field.total_stride[side // 2] * (k == side) for k, h in enumerate(halo))
            assert float((tiled(net, image, whole, tile, stride, less) - whole).abs().max()) > 1e3 * tolerance


def test_the_numbers() -> None:
    """ResNet-18's layer2: fields of 99 px every 8 px, from 49 px before: 49 -> 56 and 99 - 8 - 49 = 42 -> 48."""
    field = erflab.theoretical_field(torchvision.models.resnet18(weights=None), "layer2")
    assert (field.size, field.stride, field.padding) == ((99, 99), (8, 8), (49, 49))
    assert field.halo() == (56, 48, 56, 48)


def test_the_total_stride_of_a_decoder_is_that_of_its_bottom() -> None:
    field = erflab.theoretical_field(UNet(), None, (64, 64))
    assert field.total_stride == (4, 4)
    assert field.size != (1, 1)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x * self.pool(x)


def test_no_halo_makes_a_global_field_exact() -> None:
    field = erflab.theoretical_field(Gated(), None, (64, 64))
    assert field.size == (math.inf, math.inf)
    with pytest.raises(
        TheoryError, match=r"no overlap makes tiles exact at layer '\(output\)': its field is global, by pool"
    ):
        field.halo()
    assert field.local.halo() == (1, 1, 1, 1)
