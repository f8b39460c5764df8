"""Box rules of matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from erflab.theory import box
from erflab.theory.box_rules.call import Call
from erflab.theory.graph import Value


def product(call: Call, *operands: Any, **_: Any) -> Tensor:
    """mm, bmm, mv, dot: row m and column n read everything along the contracted dimension.

    In an attention this joins the positions; it is never cut but where one query pools them all into a statistic. Entries
    of a factor that are zero by a mask read nothing of the other.
    """
    left, right = (o for o in operands if isinstance(o, (Value, Tensor)))
    if call.local and not call.own and (call.cut or _pools_by_one_query(call, left, right)):
        call.spanning = True
        return box.constant(box.NOTHING, (1,) * len(call.shape))
    terms = [_contracted(call, left, right, -1), _contracted(call, right, left, -2 if len(right.shape) > 1 else -1)]
    return box.core(box.hull([box.spread(t, call.shape) for t in terms if t is not None], call.shape))


def sum_with_product(call: Call, added: Any, left: Any, right: Any, *_: Any, **__: Any) -> Tensor:
    """addmm, baddbmm, addmv."""
    result = product(call, left, right)
    return box.core(box.hull([call.edge(added), box.spread(result, call.shape)], call.shape))


def linear(call: Call, source: Any, weight: Any, bias: Any = None) -> Tensor:
    """A matrix of constants along the last dimension."""
    return call.across(call.edge(source), [-1], statistic=False)


def distances(call: Call, left: Any, right: Any, *_: Any) -> Tensor:
    """cdist: between all rows of two matrices."""
    terms = []
    for factor, place in ((left, -1), (right, -2)):
        if isinstance(factor, Value):
            edge = box.reduce(call.edge(factor), [len(factor.shape) - 1]).squeeze(-1)
            terms.append(edge.unsqueeze(place).expand(call.shape))
    return box.core(box.hull(terms, call.shape))


def _contracted(call: Call, factor: Any, other: Any, dim: int) -> Tensor | None:
    """The factor's edge reduced along the contracted dimension, which is dropped; None for a constant.

    [.., M, K] gives [.., M] and [.., K, N] gives [.., N], to be broadcast to [.., M, N].
    """
    if not isinstance(factor, Value):
        return None
    edge, dims = call.edge(factor), len(factor.shape)
    masked = isinstance(other, Value) and call.blanks.get(other) == 0.0 and dims == len(other.shape) >= 2
    if masked:
        reduced = _masked(call, edge, other, dim)
    else:
        reduced = call.across(edge, [dim], statistic=False, attention=_has_places(call, other, dim))
    if call.own and other.shape[dim] == factor.shape[dim] and (masked or call.left_out):
        return box.core(edge)  # a square matrix of attention: each position keeps its own
    return reduced.squeeze(dim) if dims == 1 or len(other.shape) == 1 else reduced


def _has_places(call: Call, factor: Any, dim: int) -> bool:
    """Whether the rows (or columns) that a factor gives the product lie at different places: they all read the other one.

    (The weights of a neighbourhood that slides along with its unit are one row, and read like a convolution.)
    """
    terms = call.terms[factor] if isinstance(factor, Value) else ()
    return any(len(factor.shape) + dim in box.varies(term) for term in terms)


def _masked(call: Call, edge: Tensor, other: Value, dim: int) -> Tensor:
    """The minimum over the contracted dimension of the places where the other factor is not zero, [.., M, N].

    The other factor's own edge is taken in: against it, what looks back over the whole image does not look ahead too.
    """
    values, weights = box.core(edge), box.core(box.joined(call.terms[other]))
    if dim == -1:  # values [.., M, K], weights [.., K, N]
        values, weights = values.unsqueeze(-1), weights.unsqueeze(-3)
    else:  # values [.., K, N], weights [.., M, K]
        values, weights = values.unsqueeze(-3), weights.unsqueeze(-1)
    box.room_for(torch.broadcast_shapes(values.shape, weights.shape))
    read = torch.where(weights == box.NOTHING, box.NOTHING, torch.minimum(values, weights))
    return call.across(read, [-2], statistic=False, masked=True, attention=True).squeeze(-2)


def _pools_by_one_query(call: Call, left: Any, right: Any) -> bool:
    """Whether all positions are contracted into one row or column."""
    if len(call.shape) < 2 or len(left.shape) < 2 or len(right.shape) < 2 or 1 not in call.shape[-2:]:
        return False
    for factor, dim in ((left, -1), (right, -2)):
        for edge in call.terms.get(factor, ()) if isinstance(factor, Value) else ():
            if box.spans_image(edge, box.reduce(edge, [dim % edge.dim()]), call.extent):
                return True
    return False
