"""Whether a unit and its twin in a run at another input size are the same function of what they see.

Both cones of dependence are walked back side by side, node by node. They are the same computation if every node is the same
call with the same constants, and reads the same pattern of elements, only elsewhere. A position that is padding in one run
and holds a value in the other shows as a missing element; so does what a sum over all positions adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from erflab.errors import TheoryError
from erflab.theory import box
from erflab.theory.graph import Graph, Node, Value
from erflab.theory.support import walk_back

Offset = tuple[int, ...]
Cone = tuple[Graph, Mapping[Value, Tensor]]
"""A run, and the marks on those of its values that are wanted."""

_PLACING = frozenset(
    f"aten.{name}"
    for name in (
        "view _unsafe_view reshape _reshape_alias flatten unflatten expand slice select narrow split split_with_sizes chunk "
        "unsafe_split unsafe_split_with_sizes unsafe_chunk as_strided repeat tile col2im slice_scatter select_scatter"
    ).split()
)
"""Calls whose numbers say where elements go and nothing else, so that what is read tells whether they do the same."""


def input_offset(cone: Cone, other: Cone) -> Offset | None:
    """How much further into its input the one cone ends than the other, for each dimension of [B, K, *image axes].

    None if they see nothing. Both runs are of one model, with the same weights. Raises TheoryError, naming the module, where
    the two are not the same computation, and UnknownOperationError for an operation without a support rule.
    """
    offsets: dict[Value, Offset] = {}
    twins = dict(zip(cone[1], other[1], strict=True))
    for step, twin_step in zip_longest(walk_back(*cone), walk_back(*other)):
        if step is None or twin_step is None:
            raise _other((step or twin_step)[0], "is met in one of the runs only")
        (node, reads), (twin_node, twin_reads) = step, twin_step
        if (difference := _difference(node, twin_node)) is not None:
            raise _other(node, difference)
        for (operand, mark), (twin, twin_mark) in zip(reads, twin_reads, strict=True):
            hull, twin_hull = _hulls(mark, twin_mark)
            if twins.setdefault(operand, twin) is not twin or not torch.equal(hull.pattern, twin_hull.pattern):
                raise _other(node, "reads other elements")
            offset = tuple(a - b for a, b in zip(hull.first, twin_hull.first, strict=True))
            if hull.pattern.numel() and offsets.setdefault(operand, offset) != offset:
                raise _other(node, "reads elements that lie elsewhere")
    return offsets.get(cone[0].input)


def _other(node: Node, what: str) -> TheoryError:
    return TheoryError(f"{node.op} in module {node.module!r} {what}")


def _difference(node: Node, twin: Node) -> str | None:
    """What makes two nodes other calls, operands and their places aside."""
    if (node.op, node.module) != (twin.op, twin.module):
        return f"is {twin.op} in module {twin.module!r} there"
    if "upsample" in node.op:
        return None if _same_resampling(node, twin) else "resamples by another factor"
    settings, others = (tree_leaves((call.args, call.kwargs)) for call in (node, twin))
    if node.op in _PLACING:
        return None
    if len(settings) != len(others):
        return "has other settings"
    return next((found for pair in zip(settings, others, strict=True) if (found := _differ(*pair))), None)


def _differ(setting: Any, other: Any) -> str | None:
    """What makes two arguments of twin calls differ; operands do not."""
    if isinstance(setting, Value) and isinstance(other, Value):
        return None
    if isinstance(setting, Tensor) and isinstance(other, Tensor):
        return None if _same_constant(setting, other) else "uses a constant that depends on the position"
    return None if setting == other else f"has another setting ({setting!r} and {other!r})"


def _same_resampling(node: Node, twin: Node) -> bool:
    """Whether every axis is resampled by the same factor; with aligned corners it is one of lengths less one."""
    less = int(len(node.args) > 2 and node.args[2] is True)
    (before, after), (twin_before, twin_after) = (
        [[n - less for n in value.shape[2:]] for value in (call.operands[0], call.outputs[0])] for call in (node, twin)
    )
    crossed = zip(before, twin_after, twin_before, after, strict=True)
    return node.args[2:] == twin.args[2:] and all(a * b == c * d for a, b, c, d in crossed)


def _same_constant(one: Tensor, other: Tensor) -> bool:
    """Whether two constants agree; along a dimension in which their lengths differ neither may vary."""
    if one is other:
        return True
    if one.dim() != other.dim() or one.dtype != other.dtype:
        return False
    for dim, (n, m) in enumerate(zip(one.shape, other.shape, strict=True)):
        if n != m:
            if any(t.is_meta or not bool((t == t.narrow(dim, 0, 1)).all()) for t in (one, other)):
                return False
            one, other = one.narrow(dim, 0, 1), other.narrow(dim, 0, 1)
    return one.is_meta or other.is_meta or torch.equal(one, other)


@dataclass(frozen=True)
class _Hull:
    """The marked elements, cut to the smallest box that holds them, and where that begins along each dimension."""

    first: Offset
    pattern: Tensor


def _hulls(mark: Tensor, twin: Tensor) -> tuple[_Hull, _Hull]:
    """The hulls of two marks, stored alike: a dimension is left out (of length 1) where both are constant and as long."""
    if mark.dim() != twin.dim():
        return _hull(mark), _hull(twin)
    unequal = {d for d in range(mark.dim()) if mark.shape[d] != twin.shape[d]}
    stored = box.varies(mark) | box.varies(twin) | unequal
    shapes = ([n if d in stored else 1 for d, n in enumerate(m.shape)] for m in (mark, twin))
    first, second = (_hull(box.core(m).expand(shape)) for m, shape in zip((mark, twin), shapes, strict=True))
    return first, second


def _hull(mark: Tensor) -> _Hull:
    first = []
    for dim in range(mark.dim()):
        hit = mark.movedim(dim, 0).flatten(1).any(1) if mark.dim() > 1 else mark
        places = hit.nonzero().flatten().tolist() or [0, -1]
        mark = mark.narrow(dim, places[0], places[-1] - places[0] + 1)
        first.append(places[0])
    return _Hull(tuple(first), mark)
