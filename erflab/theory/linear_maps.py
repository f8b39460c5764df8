"""Coefficients of linear operations, told by running them on unit vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Positions along the other axes, which keep their length. (With one, ATen's antialiased resampling gives wrong numbers.)
_BESIDE = 2


def along_axis(axes: int, axis: int, n: int, out: int, run: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
    """The matrix [out, n] of an operation that resamples each of `axes` image axes for itself, along one of them.

    `run(x, size)` applies it to x [1, n, *image axes] with outputs of `size`.
    """
    shape = [n if a == axis else _BESIDE for a in range(axes)]
    lines = torch.eye(n, dtype=torch.float64).reshape([1, n, *(n if a == axis else 1 for a in range(axes))])
    answer = run(lines.expand(1, n, *shape).contiguous(), [out if a == axis else _BESIDE for a in range(axes)])
    index = tuple(slice(None) if a == axis else 0 for a in range(axes))
    return answer[(0, slice(None), *index)].T
