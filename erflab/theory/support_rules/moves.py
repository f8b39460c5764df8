"""Support rules of operations that move values or combine them element by element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.errors import TheoryError
from erflab.theory import box
from erflab.theory.box_rules.call import as_tuple
from erflab.theory.graph import Value
from erflab.theory.support_rules import marks
from erflab.theory.support_rules.back import Back, Marks, SupportRule

# --- pointwise, and choices by a mask -------------------------------------------------------------------------------------


def joined(back: Back, *_: Any, **__: Any) -> Marks:
    """Each output element reads the elements of all operands at its own (broadcast) place."""
    for mark in back.marks:
        for operand in back.node.operands:
            yield operand, marks.fold(mark, operand.shape)


def added(back: Back, left: Any, right: Any, *_: Any, **__: Any) -> Marks:
    """A sum; where a constant is -inf (a mask that really blocks) nothing is left of the other operand."""
    for constant, operand in ((left, right), (right, left)):
        if isinstance(operand, Value):
            mark = back.mark
            if isinstance(constant, Tensor) and not constant.is_meta and constant.is_floating_point():
                mark = _where(mark, ~torch.isneginf(constant))
            yield operand, marks.fold(mark, operand.shape)


def mask_filled(back: Back, source: Any, mask: Any, value: Any, *_: Any) -> Marks:
    """masked_fill: by a known mask, either the source or the fill."""
    if isinstance(mask, Value) or mask.is_meta:
        yield from joined(back)
        return
    for operand, chosen in ((source, ~mask.bool()), (value, mask.bool())):
        if isinstance(operand, Value):
            yield operand, marks.fold(_where(back.mark, chosen), operand.shape)


def chosen(back: Back, condition: Any, left: Any, right: Any) -> Marks:
    """where: by a known condition, one side."""
    yield from mask_filled(back, right, condition, left)


def triangular(back: Back, source: Value, diagonal: int = 0) -> Marks:
    """tril, triu: zeros on the other side of the diagonal."""
    (kept,) = back.replay(torch.ones(source.shape[-2:], dtype=torch.bool), diagonal)
    yield source, _where(back.mark, kept)


def _where(mark: Tensor, condition: Tensor) -> Tensor:
    if bool(condition.all()):
        return mark
    aligned = condition.cpu().reshape((1,) * (mark.dim() - condition.dim()) + tuple(condition.shape))
    return box.spread(box.core(mark) & aligned, mark.shape)


def broadcast(back: Back, source: Value, *_: Any, **__: Any) -> Marks:
    """Expand."""
    yield source, marks.fold(back.mark, source.shape)


def overwritten(back: Back, target: Any, source: Any = None, *_: Any, **__: Any) -> Marks:
    """copy_, fill_, zero_: the target's old content no longer matters."""
    if isinstance(source, Value):
        yield source, marks.fold(back.mark, source.shape)


def gated_halves(back: Back, source: Value, dim: int = -1) -> Marks:
    """glu: both halves of the channels."""
    yield source, box.tighten(torch.cat([back.mark, back.mark], dim))


def as_pairs(back: Back, source: Value) -> Marks:
    """view_as_real."""
    yield source, box.spread(box.core(back.mark).any(-1), source.shape)


def from_pairs(back: Back, source: Value) -> Marks:
    """view_as_complex."""
    yield source, back.mark.unsqueeze(-1).expand(source.shape)


# --- views and moves, undone ------------------------------------------------------------------------------------------------


def reshaped(back: Back, source: Value, *_: Any, **__: Any) -> Marks:
    """A view that merges, splits, adds or drops dimensions."""
    yield source, marks.view(back.mark, source.shape)


def permuted(back: Back, source: Value, dims: Sequence[int]) -> Marks:
    """Permute."""
    order = [d % len(dims) for d in dims]
    yield source, back.mark.permute([order.index(d) for d in range(len(order))])


def swapped(back: Back, source: Value, *args: int) -> Marks:
    """Transpose and t, each its own inverse."""
    yield source, back.mark.t() if not args else back.mark.transpose(*args)


def restrided(back: Back, source: Value, *_: Any) -> Marks:
    """as_strided, in the one form that keeps the shape (the box reading refuses every other)."""
    yield source, back.mark


def sliced(position: int) -> SupportRule:
    """Views along one dimension (argument number `position`): the marks are written through the view itself."""

    def rule(back: Back, source: Value, *args: Any, **kwargs: Any) -> Marks:
        rank = len(source.shape)
        dim = kwargs.get("dim", args[position - 1] if len(args) >= position else 0) % rank
        stored = [list(box.core(mark).shape) for mark in back.marks]
        others = [s if len(s) < rank else s[:dim] + s[dim + 1 :] for s in stored]
        shape = list(torch.broadcast_shapes(*others))
        whole = torch.zeros([*shape[:dim], source.shape[dim], *shape[dim:]], dtype=torch.bool)
        for view, mark in zip(back.replay(whole, *args, **kwargs), back.marks, strict=True):
            view.logical_or_(box.core(mark))
        yield source, box.tighten(box.spread(whole, source.shape))

    return rule


def concatenated(back: Back, tensors: Sequence[Any], dim: int = 0) -> Marks:
    """cat: each operand gets its stretch."""
    start = 0
    for tensor in tensors:
        if math.prod(tensor.shape) > 0:
            length = tensor.shape[dim]
            if isinstance(tensor, Value):
                yield tensor, box.tighten(back.mark.narrow(dim, start, length))
            start += length


def stacked(back: Back, tensors: Sequence[Any], dim: int = 0) -> Marks:
    """stack: each operand gets its slice."""
    for index, tensor in enumerate(tensors):
        if isinstance(tensor, Value):
            yield tensor, box.tighten(back.mark.select(dim, index))


def padded(back: Back, source: Value, widths: Sequence[int], *_: Any) -> Marks:
    """Constant padding (or, negative, cropping)."""
    mark = back.mark
    for position in range(len(widths) // 2):
        before, after = widths[2 * position : 2 * position + 2]
        if (before, after) != (0, 0):
            dim = mark.dim() - 1 - position
            values = box.pad(marks.filled(mark, dim).float(), dim, -before, -after, 0.0)
            mark = marks.resized(mark, values > 0, dim)
    yield source, box.tighten(mark)


def rolled(back: Back, source: Value, shifts: Any, dims: Any = ()) -> Marks:
    """roll; without dimensions, of the flattened tensor."""
    if not as_tuple(dims):
        yield source, torch.roll(back.mark, [-s for s in as_tuple(shifts)])
        return
    values = box.core(back.mark)
    moved = [(-s, d) for s, d in zip(as_tuple(shifts), as_tuple(dims), strict=True) if values.shape[d] > 1]
    yield source, box.spread(torch.roll(values, *zip(*moved, strict=True)) if moved else values, source.shape)


def flipped(back: Back, source: Value, dims: Sequence[int]) -> Marks:
    """flip, its own inverse."""
    yield source, box.spread(box.core(back.mark).flip(tuple(dims)), source.shape)


def renumbered(kept: int = 0) -> SupportRule:
    """Any operation that only moves, repeats, drops and overwrites values, and none across the first `kept` dimensions.

    It is run on the numbers of one operand's elements, with zeros for all else, which tells where each output comes from.
    """

    def rule(back: Back, *args: Any, **kwargs: Any) -> Marks:
        stored = list(box.core(back.mark).shape[:kept])
        mark = back.mark[tuple(slice(0, n) for n in stored)]
        for operand in dict.fromkeys(back.node.operands):
            shape = [*stored, *operand.shape[kept:]]
            numbers = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).reshape(shape)
            origin = back.replay(*_numbered(args, operand, numbers), **_numbered(kwargs, operand, numbers))[0]
            found = torch.zeros(numbers.numel() + 1, dtype=torch.bool)
            found[origin[mark].long()] = True
            yield operand, box.tighten(box.spread(found[1:].reshape(shape), operand.shape))

    return rule


def _numbered(argument: Any, operand: Value, numbers: Tensor) -> Any:
    """The arguments with the operand's numbers in its place, and zeros for other contents (indices and masks stay)."""
    if isinstance(argument, dict):
        return {key: _numbered(value, operand, numbers) for key, value in argument.items()}
    if isinstance(argument, (list, tuple)):
        return [_numbered(value, operand, numbers) for value in argument]
    if argument is operand:
        return numbers
    if isinstance(argument, Value) or (isinstance(argument, Tensor) and argument.is_floating_point()):
        return torch.zeros(tuple(argument.shape), dtype=numbers.dtype)
    if isinstance(argument, Tensor) and argument.is_meta:
        raise TheoryError(
            f"a set cannot be followed through an index of shape {tuple(argument.shape)}: it is too large"
        )
    return argument
