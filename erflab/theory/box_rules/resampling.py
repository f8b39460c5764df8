"""Box rules of resampling: each output reads a few taps of the input along each axis.

The taps are those with a non-zero coefficient, computed as ATen's kernels do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.theory import box
from erflab.theory.box_rules.call import Call
from erflab.theory.graph import Value

# Coefficients this close to zero are rounding.
ZERO = 1e-9

Taps = Callable[
    [int, int, float], Tensor
]  # (outputs, inputs, input px per output px) -> positions [out, taps], -1 for none


def nearest(call: Call, source: Value, size: Any, *scales: Any) -> Tensor:
    """upsample_nearest: one tap."""
    return _resampled(call, source, False, scales, lambda out, n, ratio: _one_tap(out, n, ratio, 0.0))


def nearest_exact(call: Call, source: Value, size: Any, *scales: Any) -> Tensor:
    """upsample_nearest_exact: one tap, the centre's."""
    return _resampled(call, source, False, scales, lambda out, n, ratio: _one_tap(out, n, ratio, 0.5))


def linear(call: Call, source: Value, size: Any, align_corners: bool, *scales: Any) -> Tensor:
    """upsample_linear, bilinear, trilinear: two taps, one where the output falls on an input."""

    def taps(out: int, n: int, ratio: float) -> Tensor:
        low, rest = _places(out, ratio, align_corners, clamp=True)
        return _near(low, rest, (0, 1), n)

    return _resampled(call, source, align_corners, scales, taps)


def cubic(call: Call, source: Value, size: Any, align_corners: bool, *scales: Any) -> Tensor:
    """upsample_bicubic: four taps, one where the output falls on an input."""

    def taps(out: int, n: int, ratio: float) -> Tensor:
        low, rest = _places(out, ratio, align_corners, clamp=False)
        return _near(low, rest, (-1, 0, 1, 2), n)

    return _resampled(call, source, align_corners, scales, taps)


def linear_antialiased(call: Call, source: Value, size: Any, align_corners: bool, *scales: Any) -> Tensor:
    """A triangle as wide as the larger of the two pixels."""
    return _resampled(call, source, align_corners, scales, lambda out, n, ratio: _filtered(out, n, ratio, 1.0))


def cubic_antialiased(call: Call, source: Value, size: Any, align_corners: bool, *scales: Any) -> Tensor:
    """Keys' cubic (a = -1/2), widened likewise; it is zero at distance 1."""
    return _resampled(
        call, source, align_corners, scales, lambda out, n, ratio: _filtered(out, n, ratio, 2.0, zero_at=1.0)
    )


def _one_tap(out: int, n: int, ratio: float, offset: float) -> Tensor:
    places = (torch.arange(out, dtype=torch.float32) + offset) * torch.tensor(ratio, dtype=torch.float32)
    return places.floor().long().clamp(max=n - 1)[:, None]


def _places(out: int, ratio: float, align_corners: bool, *, clamp: bool) -> tuple[Tensor, Tensor]:
    at = torch.arange(out, dtype=torch.float64)
    at = at * ratio if align_corners else (at + 0.5) * ratio - 0.5
    at = at.clamp(min=0) if clamp else at
    low = (at + ZERO).floor()
    return low.long(), at - low


def _near(low: Tensor, rest: Tensor, offsets: Sequence[int], n: int) -> Tensor:
    taps = (low[:, None] + torch.tensor(offsets)).clamp(0, n - 1)
    exact = rest.abs() < ZERO
    return torch.where(exact[:, None], low.clamp(0, n - 1)[:, None], taps)


def _filtered(out: int, n: int, ratio: float, radius: float, zero_at: float = math.inf) -> Tensor:
    """The taps of a filter of that radius in px, of the larger pixel, with a zero inside it at distance `zero_at`."""
    scale = max(ratio, 1.0)
    support = radius * scale
    centers = ratio * (torch.arange(out, dtype=torch.float64) + 0.5)
    first = (centers - support + 0.5).long().clamp(min=0)
    last = (centers + support + 0.5).long().clamp(max=n)
    taps = first[:, None] + torch.arange(math.ceil(support) * 2 + 1)
    distance = (taps + 0.5 - centers[:, None]).abs() / scale
    read = (taps < last[:, None]) & (distance < radius - ZERO) & ((distance - zero_at).abs() > ZERO)
    return torch.where(read, taps, -1)


def _resampled(call: Call, source: Value, align_corners: bool, scales: Sequence[Any], taps: Taps) -> Tensor:
    edge = call.edge(source)
    for dim, ratio in enumerate(_ratios(source, call.shape, align_corners, scales), 2):
        n, out = edge.shape[dim], call.shape[dim]
        values = box.core(edge) if n == out and ratio == 1 else box.gather(edge, dim, taps(out, n, ratio))
        edge = box.spread(values, [out if d == dim else s for d, s in enumerate(edge.shape)])
    return box.core(edge)


def _ratios(source: Value, shape: Sequence[int], align_corners: bool, scales: Sequence[Any]) -> list[float]:
    """Input px per output px, as ATen computes them."""
    flat = [s for scale in scales for s in (scale if isinstance(scale, (list, tuple)) else [scale])]
    given = [*flat, *[None] * len(shape)]
    ratios = []
    for axis in range(2, len(shape)):
        n, out, scale = source.shape[axis], shape[axis], given[axis - 2]
        if align_corners:
            ratios.append((n - 1) / (out - 1) if out > 1 else 0.0)
        else:
            ratios.append(1.0 / scale if scale else n / out)
    return ratios
