"""Where grid_sample reads at positions that are known, and with which weights.

As ATen's kernels do: coordinates from -1 to 1 are px of the input by align_corners, brought inside by the padding mode, and
read by one tap (nearest), two (linear) or four (cubic) an axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LINEAR, _NEAREST, _CUBIC = range(3)
_ZEROS, _BORDER, _REFLECTION = range(3)


@dataclass(frozen=True)
class Taps:
    """The taps of every output position, [B, positions, T]: places in the flattened image of `pixels`, and their weights.

    A tap outside reads the place after the last pixel, with weight 0.
    """

    places: Tensor
    weights: Tensor
    pixels: int

    def gather(self, values: Tensor, beyond: float) -> Tensor:
        """What the taps read of values [B or 1, C, pixels]: [B, C, positions, T]; `beyond` stands outside."""
        extended = torch.nn.functional.pad(values, (0, 1), value=beyond)
        batch, (count, taps) = len(self.places), self.places.shape[1:]
        places = self.places.reshape(batch, 1, -1).expand(-1, values.shape[1], -1)
        read: Tensor = extended.expand(batch, -1, -1).gather(2, places)
        return read.reshape(*read.shape[:2], count, taps)

    def scatter(self, values: Tensor, coefficients: Tensor) -> Tensor:
        """The transpose: values [B, C, positions] times coefficients [B, positions, T], summed at the places read."""
        image = values.new_zeros((*values.shape[:2], self.pixels + 1))
        for tap in range(self.places.shape[2]):
            places = self.places[:, None, :, tap].expand(values.shape)
            image.scatter_add_(2, places, values * coefficients[:, None, :, tap].to(values))
        return image[..., :-1]


def taps(grid: Tensor, size: tuple[int, ...], interpolation: int, padding: int, align_corners: bool) -> Taps:
    """The taps of `grid` [B, *out, axes] (x before y) on an image of `size`; those of zero weight read nothing."""
    places = torch.zeros((*grid.shape[:-1], 1), dtype=torch.long)
    weights = torch.ones((*grid.shape[:-1], 1), dtype=torch.float64)
    inside = torch.ones_like(places, dtype=torch.bool)
    for n, position in zip(size, grid.double().flip(-1).unbind(-1), strict=True):
        px = _pixel(position, n, align_corners)
        found, weight = _merged(*_along(px, n, interpolation, padding, align_corners))
        here = (found >= 0) & (found < n)
        places = (places.unsqueeze(-1) * n + found.clamp(0, n - 1).unsqueeze(-2)).flatten(-2)
        weights = (weights.unsqueeze(-1) * weight.unsqueeze(-2)).flatten(-2)
        inside = (inside.unsqueeze(-1) & here.unsqueeze(-2)).flatten(-2)
    read = inside & (weights != 0)
    pixels = math.prod(size)
    return Taps(
        torch.where(read, places, pixels).flatten(1, -2), torch.where(read, weights, 0.0).flatten(1, -2), pixels
    )


def _pixel(position: Tensor, n: int, align_corners: bool) -> Tensor:
    return (position + 1) / 2 * (n - 1) if align_corners else ((position + 1) * n - 1) / 2


def _along(px: Tensor, n: int, interpolation: int, padding: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Taps [.., t] along one axis and their weights. Cubic taps are brought inside one by one, others all together."""
    if interpolation == _CUBIC:
        start = px.floor()
        found = start.unsqueeze(-1) + torch.arange(-1, 3)
        return _inside(found, n, padding, align_corners).round().long(), _cubic((px - start).unsqueeze(-1))
    px = _inside(px, n, padding, align_corners)
    if interpolation == _NEAREST:
        return px.round().long().unsqueeze(-1), torch.ones_like(px).unsqueeze(-1)
    start = px.floor()
    return torch.stack([start, start + 1], -1).long(), torch.stack([1 - (px - start), px - start], -1)


def _merged(found: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Taps that meet at one place, as those beyond a border do, are one tap: its weight is their sum."""
    same = found.unsqueeze(-1) == found.unsqueeze(-2)
    repeated = same.tril(-1).any(-1)
    return found, torch.where(repeated, 0.0, (same * weight.unsqueeze(-2)).sum(-1))


def _inside(px: Tensor, n: int, padding: int, align_corners: bool) -> Tensor:
    if padding == _ZEROS:
        return px
    if padding == _REFLECTION:
        low, span = (0.0, n - 1.0) if align_corners else (-0.5, float(n))
        px = torch.zeros_like(px) if span == 0 else low + span - ((px - low).abs() % (2 * span) - span).abs()
    return px.clamp(0, n - 1)


def _cubic(fraction: Tensor) -> Tensor:
    """Keys' kernel with a = -3/4 at distances 1 + f, f, 1 - f, 2 - f."""
    a = -0.75
    far = torch.cat([fraction + 1, 2 - fraction], -1)
    near = torch.cat([fraction, 1 - fraction], -1)
    outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    inner = ((a + 2) * near - (a + 3)) * near.square() + 1
    return torch.stack([outer[..., 0], inner[..., 0], inner[..., 1], outer[..., 1]], -1)
