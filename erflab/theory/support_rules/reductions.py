"""Support rules of reductions over whole dimensions: statistics, softmax, normalisation, recurrences, matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from erflab.theory import box
from erflab.theory.box_rules.call import as_tuple
from erflab.theory.graph import Value
from erflab.theory.support_rules import marks
from erflab.theory.support_rules.back import Back, Marks
from erflab.theory.support_rules.moves import joined

# --- statistics -----------------------------------------------------------------------------------------------------------


def _dims(source: Value, dim: Any) -> list[int]:
    rank = len(source.shape)
    if dim is None or isinstance(dim, bool) or dim == []:  # bool: aten.var(x, unbiased)
        return list(range(rank))
    return [d % rank for d in as_tuple(dim)]


def _lines(back: Back, source: Value, mark: Tensor, dims: Sequence[int]) -> Tensor:
    """The mark on a source of which `dims` were reduced, whether they were kept with length 1 or dropped."""
    kept = [1 if d in dims else n for d, n in enumerate(source.shape)]
    return box.spread(box.core(back.uncut(marks.view(mark, kept), source, dims)), source.shape)


def reduced(back: Back, source: Value, dim: Any = None, *_: Any, **__: Any) -> Marks:
    """mean, sum, amax, var and their kin read whole lines."""
    for mark in back.marks:
        yield source, _lines(back, source, mark, _dims(source, dim))


def extreme(back: Back, source: Value, *arguments: Any, **named: Any) -> Marks:
    """min, max: of two tensors, or over dimensions."""
    if arguments and isinstance(arguments[0], (Value, Tensor)):
        yield from joined(back)
    else:
        yield from reduced(back, source, *arguments, **named)


def normed(back: Back, source: Value, power: Any = 2, dim: Any = None, *_: Any, **__: Any) -> Marks:
    """Vector norms."""
    yield from reduced(back, source, dim)


def softmaxed(back: Back, source: Value, dim: int, *_: Any, **__: Any) -> Marks:
    """Every output reads every input of its line; those masked by -inf are zero, and read nothing."""
    mark, masked = back.mark, back.known(source, -math.inf)
    if masked is not None:
        mark = box.spread(box.core(mark) & ~box.core(masked), mark.shape)
    yield source, marks.over(mark, [dim % mark.dim()])


def cumulated(back: Back, source: Value, dim: int, *_: Any, **__: Any) -> Marks:
    """Cumsum and its kin: everything up to each place."""
    for mark in back.marks:
        yield source, _up_to(mark, dim % mark.dim())


def _up_to(mark: Tensor, dim: int) -> Tensor:
    """All places up to the last marked one along `dim`."""
    values = marks.filled(mark, dim)
    return marks.resized(mark, values.flip(dim).cumsum(dim).flip(dim) > 0, dim)


def transformed(back: Back, source: Value, dims: Any, *_: Any) -> Marks:
    """A Fourier transform: every frequency reads every position."""
    values = box.core(marks.over(back.mark, [d % back.mark.dim() for d in as_tuple(dims)]))
    yield source, box.spread(values, source.shape)


def recurrent(back: Back, source: Value, *arguments: Any) -> Marks:
    """lstm, gru, rnn: every step reads all features of all steps before it, or of all, if run both ways."""
    state, weights, *_, both, batch_first = arguments
    rank = len(source.shape)
    time = rank - 2 if batch_first or rank == 2 else rank - 3
    steps = marks.over(box.spread(box.core(back.mark).any(-1, keepdim=True), source.shape), [rank - 1])
    yield source, marks.over(steps, [time]) if both else _up_to(steps, time)
    ends = torch.stack([box.core(mark).any() for mark in back.marks[1:]]).any()
    yield source, box.spread(ends.reshape((1,) * rank), source.shape)
    started = ends | box.core(back.mark).any()
    for given in tree_leaves((state, weights)):
        if isinstance(given, Value):
            yield given, box.spread(started.reshape((1,) * len(given.shape)), given.shape)


# --- normalisation ----------------------------------------------------------------------------------------------------------


def _normalised(back: Back, source: Value, dims: Sequence[int]) -> Marks:
    """Each output reads its own element and, by the statistics, all of its line."""
    yield source, back.mark
    line = box.core(marks.over(back.mark, dims))
    kept = [1 if d in dims else n for d, n in enumerate(source.shape)]
    yield source, box.spread(box.core(back.uncut(box.spread(line, kept), source, dims)), source.shape)
    for statistic in back.marks[1:]:
        if statistic.numel() and bool(box.core(statistic).any()):
            yield source, _lines(back, source, statistic, dims)


def batch_normed(back: Back, source: Value, *arguments: Any) -> Marks:
    """Pointwise in eval mode; in train mode (the one bool among the arguments) the statistics join batch and image."""
    if any(a is True for a in arguments):
        yield from _normalised(back, source, [0, *range(2, back.mark.dim())])
    else:
        yield source, back.mark


def batch_normed_eval(back: Back, source: Value, *_: Any) -> Marks:
    """The eval-only form."""
    yield source, back.mark


def layer_normed(back: Back, source: Value, normalized_shape: Sequence[int], *_: Any, **__: Any) -> Marks:
    """Statistics over the last dimensions."""
    rank = len(source.shape)
    yield from _normalised(back, source, range(rank - len(normalized_shape), rank))


def group_normed(
    back: Back, source: Value, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, *_: Any
) -> Marks:
    """Statistics over each group's channels and the whole image."""
    yield source, back.mark
    dims = range(2, len(source.shape))
    grouped = marks.view(back.mark, (n, groups, c // groups, *source.shape[2:]))
    line = box.core(marks.over(grouped, range(2, grouped.dim())))[:, :, 0]  # [n, groups, 1, ...]
    channels = line if line.shape[1] == 1 else line.repeat_interleave(c // groups, 1)
    kept = back.uncut(box.spread(channels, [n, c, *[1 for _ in dims]]), source, dims)
    yield source, box.spread(box.core(kept), source.shape)


# --- matrix products --------------------------------------------------------------------------------------------------------


def multiplied(back: Back, left: Any, right: Any, *_: Any, **__: Any) -> Marks:
    """mm, bmm, mv, dot: row m and column n read everything along the contracted dimension.

    In the local field nothing is left of a pooling of all positions by one query. Entries of a factor that are zero by a
    mask read nothing of the other.
    """
    yield from _factors(back, back.mark, left, right)


def added_product(back: Back, added: Any, left: Any, right: Any, *_: Any, **__: Any) -> Marks:
    """addmm, baddbmm, addmv."""
    if isinstance(added, Value):
        yield added, marks.fold(back.mark, added.shape)
    yield from _factors(back, back.mark, left, right)


def batch_added_product(back: Back, added: Any, left: Any, right: Any, *_: Any, **__: Any) -> Marks:
    """addbmm: the products of a batch, summed."""
    if isinstance(added, Value):
        yield added, marks.fold(back.mark, added.shape)
    yield from _factors(back, back.mark.expand(left.shape[0], *back.mark.shape), left, right)


def _factors(back: Back, mark: Tensor, left: Any, right: Any) -> Marks:
    vector, row = len(right.shape) == 1, len(left.shape) == 1
    whole = mark.unsqueeze(-1) if vector else mark  # [.., M, N], with N = 1 for a vector on the right
    whole = whole.unsqueeze(-2) if row else whole
    if _pools_by_one_query(back, whole, left, right):
        return
    if isinstance(left, Value):
        zeros = back.known(right, 0.0)
        read = _through(whole, zeros.transpose(-1, -2)) if zeros is not None else box.core(whole).any(-1, keepdim=True)
        yield left, box.spread(read.squeeze(-2) if row else read, left.shape)
    if isinstance(right, Value):
        zeros = back.known(left, 0.0)
        turned = whole.transpose(-1, -2)
        read = _through(turned, zeros) if zeros is not None else box.core(turned).any(-1, keepdim=True)
        read = read.transpose(-1, -2)
        yield right, box.spread(read.squeeze(-1) if vector else read, right.shape)


def _through(mark: Tensor, zeros: Tensor) -> Tensor:
    """What is read of a factor [.., M, K], from outputs [.., M, N], where the other factor, as [.., N, K], is not zero."""
    return torch.matmul(mark.float(), (~zeros).float()) > 0.5


def _pools_by_one_query(back: Back, mark: Tensor, left: Any, right: Any) -> bool:
    """Whether the field is the local one and all positions are contracted into one row or column."""
    if back.local and back.cut:
        return True
    if not back.local or len(left.shape) < 2 or len(right.shape) < 2 or 1 not in mark.shape[-2:]:
        return False
    for factor, dim in ((left, len(left.shape) - 1), (right, len(right.shape) - 2)):
        for edge in back.boxes[factor].edges if isinstance(factor, Value) and factor in back.boxes else ():
            if box.spans_image(edge, box.reduce(edge, [dim]), max(back.input_size)):
                return True
    return False


def projected(back: Back, source: Any, weight: Any, bias: Any = None) -> Marks:
    """linear, where it is one call: every output reads its row."""
    if isinstance(source, Value):
        yield source, box.spread(box.core(back.mark).any(-1, keepdim=True), source.shape)
    outputs = back.mark.reshape(-1, back.mark.shape[-1]).any(0)
    for operand in (weight, bias):
        if isinstance(operand, Value):
            yield operand, outputs.reshape(-1, *[1] * (len(operand.shape) - 1)).expand(operand.shape)


def distanced(back: Back, left: Any, right: Any, *_: Any) -> Marks:
    """cdist: between all rows of two matrices."""
    for factor, other in ((left, -1), (right, -2)):
        if isinstance(factor, Value):
            rows = box.core(back.mark).any(other).unsqueeze(-1)
            yield factor, box.spread(rows, factor.shape)
