"""Box rules of reductions over whole dimensions: statistics, softmax, normalisation, recurrences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from erflab.theory import box
from erflab.theory.box_rules.call import Call, as_tuple
from erflab.theory.box_rules.moves import pointwise
from erflab.theory.graph import Value


def _dims(call: Call, source: Value, dim: Any) -> list[int]:
    if dim is None or dim == []:
        return list(range(len(source.shape)))
    return [d % len(source.shape) for d in as_tuple(dim)]


def reduction(call: Call, source: Value, dim: Any = None, *_: Any, **__: Any) -> list[Tensor]:
    """mean, sum, amax, var and their kin over whole dimensions."""
    if isinstance(dim, bool):  # aten.var(x, unbiased)
        dim = None
    dims = _dims(call, source, dim)
    reduced = call.across(call.edge(source), dims)
    kept = [1 if d in dims else n for d, n in enumerate(source.shape)]
    return [box.core(box.view(box.spread(reduced, kept), o.shape)) for o in call.node.outputs]


def extreme(call: Call, source: Value, *arguments: Any, **named: Any) -> list[Tensor]:
    """min, max: of two tensors, or over dimensions."""
    if arguments and isinstance(arguments[0], (Value, Tensor)):
        return pointwise(call)
    return reduction(call, source, *arguments, **named)


def norm(call: Call, source: Value, power: Any = 2, dim: Any = None, *_: Any, **__: Any) -> list[Tensor]:
    """Vector norms."""
    return reduction(call, source, dim)


def softmax(call: Call, source: Value, dim: int, *_: Any) -> Tensor:
    """Every output along `dim` reads every input along it, but those masked by -inf; never cut between positions."""
    masked, edge = call.blanks[source] == -math.inf, call.edge(source)
    others = {d for term in call.terms[source] for d in box.varies(term)} - {dim % len(source.shape)}
    queries = masked or bool(others - box.varies(edge))  # at several places, to which the same keys are given
    reduced = call.across(edge, [dim], statistic=False, masked=masked, attention=queries)
    if not masked:
        return reduced
    call.blank = 0.0
    return torch.where(box.core(call.sees_nothing(source)), box.NOTHING, reduced)


def cumulative(call: Call, source: Value, dim: int, *_: Any, **__: Any) -> list[Tensor]:
    """Cumsum and its kin: everything up to each place."""
    return [call.prefix(call.edge(source), dim % len(source.shape))] * len(call.node.outputs)


def fourier(call: Call, source: Value, dims: Any, *_: Any) -> Tensor:
    """A Fourier transform: every frequency reads every position."""
    return call.across(call.edge(source), as_tuple(dims), statistic=False)


def recurrence(call: Call, source: Value, *arguments: Any) -> list[Tensor]:
    """lstm, gru, rnn: every step reads all steps before it, or all, if run both ways."""
    state, weights, *_, both, batch_first = arguments
    edge = call.edge(source)
    time = edge.dim() - 2 if batch_first or edge.dim() == 2 else edge.dim() - 3
    features = box.spread(box.reduce(edge, [edge.dim() - 1]), edge.shape)
    steps = call.across(features, [time], statistic=False) if both else call.prefix(features, time)
    last = call.across(features, [time], statistic=False).amin()
    given = [v for v in tree_leaves((state, weights)) if isinstance(v, Value)]
    start = torch.stack([torch.tensor(box.NOTHING), *(call.edge(v).amin() for v in given)]).amin()
    ends = [torch.minimum(last, start).reshape((1,) * len(o.shape)) for o in call.node.outputs[1:]]
    return [torch.minimum(steps, start), *ends]


def batch_norm(
    call: Call, source: Value, weight: Any, bias: Any, mean: Any, var: Any, training: bool = False, *_: Any
) -> list[Tensor]:
    """In eval mode a pointwise map; in train mode its statistics join the whole batch and image."""
    edge = call.edge(source)
    if training:
        statistics = box.spread(call.across(edge, [0, *range(2, edge.dim())]), edge.shape)
        edge = box.hull([edge, statistics], edge.shape)
    return [box.core(edge)] + [box.core(box.constant(box.NOTHING, o.shape)) for o in call.node.outputs[1:]]


def batch_norm_no_training(call: Call, source: Value, *rest: Any) -> list[Tensor]:
    """The eval-only form."""
    return batch_norm(call, source, None, None, None, None, False)


def layer_norm(call: Call, source: Value, normalized_shape: Sequence[int], *_: Any) -> list[Tensor]:
    """Statistics over the last dimensions, joined to each element's own value."""
    edge = call.edge(source)
    return _normalised(call, edge, range(edge.dim() - len(normalized_shape), edge.dim()))


def _normalised(call: Call, edge: Tensor, dims: Any) -> list[Tensor]:
    reduced = call.across(edge, list(dims))
    own = box.core(box.tighten(box.hull([edge, box.spread(reduced, edge.shape)], edge.shape)))
    return [own] + [
        box.core(box.view(box.spread(reduced, [n if d not in dims else 1 for d, n in enumerate(edge.shape)]), o.shape))
        for o in call.node.outputs[1:]
    ]


def group_norm(
    call: Call, source: Value, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, *_: Any
) -> list[Tensor]:
    """Statistics over each group's channels and the whole image."""
    edge = call.edge(source)
    grouped = box.view(edge, (n, groups, c // groups, *edge.shape[2:]))
    statistics = box.spread(call.across(grouped, range(2, grouped.dim())), grouped.shape)
    joined = box.view(box.hull([grouped, statistics], grouped.shape), edge.shape)
    return [box.core(joined)] + [box.core(box.constant(box.NOTHING, o.shape)) for o in call.node.outputs[1:]]
