"""Marks: which elements of a tensor matter, as a boolean tensor that is carried *back* through the operations.

Like an edge (`erflab.theory.box`), a mark has its value's full shape and is expanded (stride 0) along every dimension on
which it is constant: the channels of a dense network cost nothing. Everything here is boolean, hence exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from erflab.theory import box
from erflab.theory.box import core, spread

# Bytes that a mark may take where a view must store it whole.
LARGEST = 2**30


def nothing(shape: Sequence[int]) -> Tensor:
    """A mark on no element."""
    return spread(torch.zeros((1,) * len(shape), dtype=torch.bool), shape)


def union(first: Tensor | None, second: Tensor) -> Tensor:
    """The elements in either mark."""
    return second if first is None else spread(core(first) | core(second), second.shape)


def over(mark: Tensor, dims: Sequence[int]) -> Tensor:
    """Mark a whole line along `dims` where any of its elements is marked."""
    values = core(mark)
    for dim in dims:
        values = values.any(dim, keepdim=True)
    return spread(values, mark.shape)


def fold(mark: Tensor, shape: Sequence[int]) -> Tensor:
    """The mark on an operand of `shape` that was broadcast to the mark's shape."""
    values = core(mark)
    for _ in range(mark.dim() - len(shape)):
        values = values.any(0)
    for dim, n in enumerate(shape):
        if n == 1:
            values = values.any(dim, keepdim=True)
    return spread(values, shape)


def view(mark: Tensor, shape: Sequence[int]) -> Tensor:
    """The mark under a reshape. A mark takes a byte where an edge takes four or more: it may be stored whole far longer."""
    try:
        return box.view(mark, shape)
    except box.TooLargeError:
        if mark.numel() > LARGEST:
            raise
        return box.tighten(mark.reshape(tuple(shape)))


def filled(mark: Tensor, dim: int) -> Tensor:
    """The stored values, with all entries along `dim`."""
    values = core(mark)
    return values.expand([mark.shape[d] if d == dim else n for d, n in enumerate(values.shape)])


def resized(mark: Tensor, values: Tensor, dim: int) -> Tensor:
    """`values`, stored for other dimensions as `mark` is, as a mark whose length along `dim` is that of `values`."""
    return spread(values, [values.shape[d] if d == dim else n for d, n in enumerate(mark.shape)])


def window(mark: Tensor, dim: int, *, kernel: int, stride: int, padding: int, dilation: int, length: int) -> Tensor:
    """What a sliding window reads along `dim` of a tensor of that `length`: position o reads o s - p + t d for every tap t."""
    values = filled(mark, dim)
    reach = (mark.shape[dim] - 1) * stride + 1
    end = max(reach + (kernel - 1) * dilation, padding + length)
    read = torch.zeros([end if d == dim else n for d, n in enumerate(values.shape)], dtype=torch.bool)
    for tap in range(kernel):
        read.narrow(dim, tap * dilation, reach).movedim(dim, 0)[::stride].logical_or_(values.movedim(dim, 0))
    return resized(mark, read.narrow(dim, padding, length), dim)


def transposed_window(
    mark: Tensor, dim: int, *, kernel: int, stride: int, padding: int, dilation: int, length: int
) -> Tensor:
    """The same for a transposed convolution: position i is read by i s - p + t d for every tap t."""
    values = filled(mark, dim)
    reach = (length - 1) * stride + 1
    end = max(reach + (kernel - 1) * dilation, padding + mark.shape[dim])
    written = torch.zeros([end if d == dim else n for d, n in enumerate(values.shape)], dtype=torch.bool)
    written.narrow(dim, padding, mark.shape[dim]).copy_(values)
    taps = [written.narrow(dim, t * dilation, reach).movedim(dim, 0)[::stride].movedim(0, dim) for t in range(kernel)]
    return resized(mark, torch.stack(taps).any(0), dim)


def mapped(mark: Tensor, dim: int, reads: Tensor) -> Tensor:
    """What is read along `dim` if output o reads the inputs marked in row o of `reads` [outputs, inputs]."""
    values = filled(mark, dim).movedim(dim, -1)
    lines = values.flatten(0, -2).any(0) if values.dim() > 1 else values
    product = values[..., lines].float() @ reads[lines].float()  # a count of outputs: 0 means unread
    return resized(mark, (product > 0.5).movedim(-1, dim), dim)
