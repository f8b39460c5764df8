"""Support rules of indexing: by constants, which move elements, and by input-dependent tensors, which may read any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.theory import box
from erflab.theory.graph import Value
from erflab.theory.grid_taps import taps
from erflab.theory.support_rules import marks
from erflab.theory.support_rules.back import Back, Marks
from erflab.theory.support_rules.moves import renumbered

_move = renumbered()


def anywhere(back: Back, *_: Any, **__: Any) -> Marks:
    """Positions that the input decides may lie anywhere: every output reads everything."""
    for operand in back.node.operands:
        everything = torch.stack([box.core(mark).any() for mark in back.marks]).any()
        yield operand, box.spread(everything.reshape((1,) * len(operand.shape)), operand.shape)


def indexed(back: Back, source: Any, *args: Any, **kwargs: Any) -> Marks:
    """index, index_select, take_along_dim: elements by number."""
    if [v for v in back.node.operands if v is not source]:
        yield from anywhere(back)
    else:
        yield from _move(back, source, *args, **kwargs)


def embedded(back: Back, table: Any, positions: Any, *args: Any) -> Marks:
    """Rows of a table of parameters, chosen by the input."""
    if isinstance(positions, Value) and not isinstance(table, Value):
        yield positions, box.spread(box.core(back.mark).any(-1), positions.shape)
    else:
        yield from indexed(back, table, positions, *args)


def gathered(back: Back, source: Any, dim: int, positions: Any, **kwargs: Any) -> Marks:
    """gather: along one dimension, a position for every output element."""
    if not isinstance(positions, Value):
        yield from _move(back, source, dim, positions, **kwargs)
        return
    yield positions, back.mark
    if isinstance(source, Value):  # a leading part of it along the other dimensions
        read = torch.zeros(source.shape, dtype=torch.bool)
        dim %= read.dim()
        line = box.core(back.mark).any(dim, keepdim=True)
        read[tuple(slice(None) if d == dim else slice(0, n) for d, n in enumerate(back.mark.shape))] = line
        yield source, box.tighten(read)


def put(back: Back, target: Any, indices: Sequence[Any], source: Any, accumulate: bool = False, *rest: Any) -> Marks:
    """x[i, :, j] = y, or += y."""
    if any(isinstance(i, Value) for i in indices):
        yield from anywhere(back)
    elif not accumulate:
        yield from _move(back, target, indices, source, accumulate, *rest)
    else:
        if isinstance(target, Value):
            yield target, back.mark
        if isinstance(source, Value):
            yield source, marks.fold(torch.ops.aten.index(back.mark, list(indices)), source.shape)


def slices_copied(back: Back, target: Any, dim: int, positions: Any, source: Any) -> Marks:
    """index_copy: whole slices written, by number."""
    if isinstance(positions, Value):
        yield from anywhere(back)
    else:
        yield from _move(back, target, dim, positions, source)


def slices_added(back: Back, target: Any, dim: int, positions: Any, source: Any, **_: Any) -> Marks:
    """index_add: whole slices added to, by number."""
    if isinstance(positions, Value):
        yield from anywhere(back)
        return
    if isinstance(target, Value):
        yield target, back.mark
    if isinstance(source, Value):
        yield source, box.tighten(back.mark.index_select(dim, positions))


def scattered(
    back: Back, target: Any, dim: int, positions: Any, source: Any = None, *args: Any, **kwargs: Any
) -> Marks:
    """Scatter (and, with sums, scatter_add and scatter_reduce): along one dimension, a place for every source element."""
    if isinstance(positions, Value):
        yield from anywhere(back)
    elif back.node.op.rstrip("_") == "aten.scatter":
        content = source if isinstance(source, (Value, Tensor)) else 0.0  # a number would pass for an element's
        yield from _move(back, target, dim, positions, content, *args, **kwargs)
    else:
        if isinstance(target, Value):
            yield target, back.mark
        if isinstance(source, Value):
            read = torch.zeros(source.shape, dtype=torch.bool)
            read[tuple(slice(0, n) for n in positions.shape)] = back.mark.gather(dim, positions)
            yield source, read


def _whole_image(mark: Tensor) -> Tensor:
    """The stored values, with all positions."""
    values = box.core(mark)
    return values.expand(*values.shape[:2], *mark.shape[2:])


def ordered(back: Back, source: Value, *args: Any, dim: int = -1, **_: Any) -> Marks:
    """sort, argsort, topk, median: every output along the dimension may come from any input along it."""
    numbers = [a for a in args if not isinstance(a, bool)]
    if back.node.op == "aten.topk":
        numbers = numbers[1:]
    along = (numbers[0] if numbers else dim) % len(source.shape)
    for mark in back.marks:
        kept = mark if mark.dim() == len(source.shape) else mark.unsqueeze(along)
        yield source, box.spread(box.core(kept).any(along, keepdim=True), source.shape)


def affine_grid(back: Back, matrices: Value, *_: Any) -> Marks:
    """affine_grid: every position's coordinate reads its own row of a matrix."""
    rows = box.core(back.mark).flatten(1, -2).any(1)
    yield matrices, box.spread(rows.unsqueeze(-1), matrices.shape)


def grid_sampled(back: Back, source: Any, grid: Any, interpolation: int, padding: int, align_corners: bool) -> Marks:
    """grid_sample: the taps of known positions; at positions that the input decides any element of the own channel, and
    the own entry of the grid.
    """
    if not isinstance(grid, Value):
        found = taps(grid, source.shape[2:], interpolation, padding, align_corners)
        values = _whole_image(back.mark).flatten(2).float().expand(len(found.places), -1, -1)
        read = found.scatter(values, (found.weights != 0).float()).unflatten(2, source.shape[2:]) > 0
        yield source, box.tighten(box.spread(read, source.shape))
        return
    if isinstance(source, Value):
        values = marks.over(back.mark, range(2, back.mark.dim()))
        yield source, box.spread(box.core(values), source.shape)
    if isinstance(grid, Value):
        yield grid, box.spread(box.core(back.mark).any(1).unsqueeze(-1), grid.shape)
