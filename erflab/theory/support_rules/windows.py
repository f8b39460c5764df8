"""Support rules of windows that slide, and of operations that resample each axis for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from erflab.theory import box
from erflab.theory.box_rules.call import as_tuple
from erflab.theory.graph import Value
from erflab.theory.linear_maps import along_axis
from erflab.theory.support_rules import marks
from erflab.theory.support_rules.back import Back, Marks

# --- windows --------------------------------------------------------------------------------------------------------------


def convolution(
    back: Back,
    source: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    _: Any,
    groups: int,
) -> Marks:
    """Each output reads a window of all input channels of its group."""
    if isinstance(source, Value):
        mark = box.mix_channels(back.mark, groups, source.shape[1], torch.any)
        move = marks.transposed_window if transposed else marks.window
        yield source, _windows(mark, source, weight.shape[2:], stride, padding, dilation, move)
    yield from _kernel(back, weight, bias, groups if transposed else None)


def _kernel(back: Back, weight: Any, bias: Any, groups: int | None) -> Marks:
    """An input-dependent kernel is read by its own output channels; a transposed one (`groups`) by its group's."""
    read = marks.over(back.mark, [0, *range(2, back.mark.dim())]).flatten(2)[:1, :, :1]  # [1, outputs, 1]
    if isinstance(bias, Value):
        yield bias, back.uncut(read.flatten(), bias, [0])
    if isinstance(weight, Value):
        rows = read if groups is None else box.mix_channels(read, groups, weight.shape[0], torch.any)
        rows = rows.reshape(-1, *[1] * (len(weight.shape) - 1))
        yield weight, box.spread(back.uncut(rows, weight, range(len(weight.shape))), weight.shape)


def _windows(
    mark: Tensor, source: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, move: Any = marks.window
) -> Tensor:
    settings = [as_tuple(s) for s in (kernel, stride, padding, dilation)]
    count = max(map(len, settings))
    settings = [s * count if len(s) == 1 else s for s in settings]
    for dim, (k, s, p, d) in enumerate(zip(*settings, strict=True), len(source.shape) - count):
        mark = move(mark, dim, kernel=k, stride=s, padding=p, dilation=d, length=source.shape[dim])
    return mark


def pooled(
    back: Back, source: Value, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any, **kwargs: Any
) -> Marks:
    """Max and average pooling: each output reads its window of its own channel."""
    dilation = kwargs.get("dilation", rest[0] if back.node.op.startswith("aten.max_pool") and rest else 1)
    axes = int(back.node.op.split("pool")[1][0])  # max_pool2d: the kernel may be one number for two axes
    kernel = as_tuple(kernel) if len(as_tuple(kernel)) == axes else as_tuple(kernel) * axes
    first = len(source.shape) - axes
    covered = zip(range(first, first + axes), kernel, strict=True)
    whole = [d for d, k in covered if back.mark.shape[d] == 1 and k >= source.shape[d] > 1]
    mark = back.uncut(back.mark, source, whole) if whole else back.mark
    yield source, _windows(mark, source, kernel, as_tuple(stride) or kernel, padding, dilation)


def unfolded(back: Back, source: Value, *_: Any) -> Marks:
    """im2col, whose adjoint col2im counts how often each element is read."""
    count = torch.ops.aten.col2im(back.mark.double(), list(source.shape[2:]), *back.node.args[1:])
    yield source, box.tighten(count > 0)


def folded(back: Back, source: Value, size: Any, *settings: Any) -> Marks:
    """col2im, whose adjoint is im2col."""
    yield source, box.tighten(torch.ops.aten.im2col(back.mark.double(), *settings) > 0)


# --- bins and taps, axis by axis --------------------------------------------------------------------------------------------


def _by_axis(
    mark: Tensor, source: Value, sizes: Sequence[int], run: Callable[[int, Tensor, list[int]], Tensor]
) -> Tensor:
    """The mark where each image axis is resampled for itself to its size: o reads i where the coefficient is not zero.

    `run(axis, x, size)` applies the operation to x with the settings of that axis alone.
    """
    axes = len(sizes)
    for axis, out in enumerate(sizes):
        dim = mark.dim() - axes + axis
        matrix = along_axis(axes, axis, source.shape[dim], out, partial(run, axis))
        mark = marks.mapped(mark, dim, matrix.abs() > 1e-9)
    return mark


def resampled(flags: int = 0) -> Callable[..., Marks]:
    """Interpolation of every kind; `flags` is the number of arguments (align_corners) between size and scales."""

    def rule(back: Back, source: Value, size: Sequence[int], *rest: Any, **kwargs: Any) -> Marks:
        given = [s for scale in rest[flags:] for s in (scale if isinstance(scale, (list, tuple)) else [scale])]
        scales = [*given, *[None] * len(size)][: len(size)]

        def run(axis: int, lines: Tensor, sizes: list[int]) -> Tensor:
            alone = [s if a == axis else None for a, s in enumerate(scales)]
            return back.replay(lines, sizes, *rest[:flags], *alone, **kwargs)[0]

        yield source, _by_axis(back.mark, source, size, run)

    return rule


def binned(back: Back, source: Value, size: Any, *_: Any) -> Marks:
    """Adaptive pooling: the bins of the mean, which maximum and mean share."""
    sizes = as_tuple(size)
    axes = len(sizes)
    whole = [len(source.shape) - axes + a for a, n in enumerate(sizes) if n == 1]
    pools = {1: torch.nn.functional.adaptive_avg_pool1d, 2: torch.nn.functional.adaptive_avg_pool2d}
    pool: Any = pools.get(axes, torch.nn.functional.adaptive_avg_pool3d)

    def run(axis: int, lines: Tensor, out: list[int]) -> Tensor:
        answer: Tensor = pool(lines, tuple(out))
        return answer

    mark = back.uncut(back.mark, source, whole) if whole else back.mark
    yield source, _by_axis(mark, source, sizes, run)
