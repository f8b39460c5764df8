"""Box rules of calls that combine elements at one place, or move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.errors import UnknownOperationError
from erflab.theory import box
from erflab.theory.box_rules.call import Call, as_tuple
from erflab.theory.graph import Value


def pointwise(call: Call, *_: Any, **__: Any) -> list[Tensor]:
    """Each output element reads the elements of all operands at its own (broadcast) place."""
    edge = box.core(box.hull([call.edge(v) for v in call.node.operands], call.shape))
    return [edge for _ in call.node.outputs]


def same(call: Call, source: Value, *_: Any, **__: Any) -> list[Tensor]:
    """A copy: elements that are known stay known."""
    call.blank = call.blanks[source]
    return pointwise(call)


def add(call: Call, left: Any, right: Any, *_: Any, **__: Any) -> list[Tensor]:
    """A sum. A constant of -inf (an attention mask that really blocks; -100 does not) leaves nothing of the other operand."""
    for mask in (left, right):
        if isinstance(mask, Tensor) and not mask.is_meta and mask.is_floating_point():
            blocked = torch.isneginf(mask)
            if bool(blocked.any()):
                source = right if mask is left else left
                return [_blanked(call, source, blocked, -math.inf)]
    operands = [o for o in (left, right) if isinstance(o, Value)]
    if len(operands) == 1 and call.blanks[operands[0]] == -math.inf:
        call.blank = -math.inf
    return pointwise(call)


def masked_fill(call: Call, source: Any, mask: Any, value: Any, *_: Any) -> list[Tensor]:
    """Where a known mask is set, the fill stands instead of the source."""
    if isinstance(mask, Value) or mask.is_meta or not isinstance(source, Value):
        return pointwise(call)
    if isinstance(value, Value):
        edge = torch.where(_aligned(mask, call.shape), box.core(call.edge(value)), box.core(call.edge(source)))
        return [box.core(box.tighten(box.spread(edge, call.shape)))]
    fill = float(value) if not (isinstance(value, Tensor) and value.is_meta) else None
    return [_blanked(call, source, mask, fill)]


def where(call: Call, condition: Any, left: Any, right: Any) -> list[Tensor]:
    """A choice; by a known condition, each element reads one side only."""
    if isinstance(condition, Value) or condition.is_meta:
        return pointwise(call)
    for source, fill, mask in ((left, right, ~condition.bool()), (right, left, condition.bool())):
        if isinstance(source, Value) and isinstance(fill, Tensor) and fill.numel() == 1 and not fill.is_meta:
            return [_blanked(call, source, mask, float(fill))]
    left_edge, right_edge = (box.core(call.edge(o)) for o in (left, right))
    dims = len(call.shape)
    left_edge, right_edge = (e.reshape((1,) * (dims - e.dim()) + tuple(e.shape)) for e in (left_edge, right_edge))
    chosen = torch.where(_aligned(condition.bool(), call.shape), left_edge, right_edge)
    return [box.core(box.tighten(box.spread(chosen, call.shape)))]


def triangle(call: Call, source: Value, diagonal: int = 0) -> Tensor:
    """tril, triu: zeros on the other side of the diagonal."""
    kept = getattr(torch, call.operation)(torch.ones(source.shape[-2:], dtype=torch.bool), diagonal)
    return _blanked(call, source, ~kept, 0.0)


def _blanked(call: Call, source: Any, mask: Tensor, fill: float | None) -> Tensor:
    """The source's edge with nothing where the mask is set, and note what stands there."""
    before = call.blanks.get(source) if isinstance(source, Value) else None
    clean = before == fill or not isinstance(source, Value) or not bool(call.sees_nothing(source).any())
    call.blank = fill if clean and fill in (0.0, -math.inf) else None
    edge = call.edge(source)
    values = box.core(edge).reshape((1,) * (len(call.shape) - edge.dim()) + tuple(box.core(edge).shape))
    aligned = _aligned(mask, call.shape)
    box.room_for(torch.broadcast_shapes(values.shape, aligned.shape))
    return box.core(box.tighten(box.spread(torch.where(aligned, box.NOTHING, values), call.shape)))


def _aligned(mask: Tensor, shape: Sequence[int]) -> Tensor:
    return mask.reshape((1,) * (len(shape) - mask.dim()) + tuple(mask.shape)).cpu()


def replay(call: Call, source: Value, *args: Any, **kwargs: Any) -> list[Tensor]:
    """A view that neither merges nor splits dimensions moves the edge as it moves the tensor."""
    call.blank = call.blanks[source]
    namespace, name = call.node.op.split(".")
    moved = getattr(getattr(torch.ops, namespace), name)(call.edge(source), *args, **kwargs)
    return [box.core(m) for m in (moved if isinstance(moved, (list, tuple)) else [moved])]


def reshape(call: Call, source: Value, *_: Any, **__: Any) -> Tensor:
    """A view that merges or splits dimensions."""
    call.blank = call.blanks[source]
    return box.core(box.view(call.edge(source), call.shape))


def as_strided(call: Call, source: Value, size: Sequence[int], *_: Any) -> Tensor:
    """Only the form that changes strides, not the shape, is a view of every element onto itself."""
    if tuple(size) != source.shape:
        raise UnknownOperationError(
            f"as_strided from {source.shape} to {tuple(size)} in module {call.node.module!r} has no rule; "
            "use slices, unfold or reshape"
        )
    return box.core(call.edge(source))


def overwrite(call: Call, target: Any, source: Any = 0, *_: Any, **__: Any) -> Tensor:
    """copy_, fill_, zero_: the target's old content no longer matters."""
    edge = call.edge(source) if isinstance(source, Value) else box.constant(box.NOTHING, ())
    return box.core(box.hull([edge], call.shape))


def concatenate(call: Call, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """cat: constants among the operands read nothing."""
    dim %= len(call.shape)
    edges = [call.edge(t) for t in tensors if math.prod(t.shape) > 0]
    cores = [box.core(e) for e in edges]
    common = [max(c.shape[d] for c in cores) for d in range(len(call.shape))]
    pieces = []
    for values, edge in zip(cores, edges, strict=True):
        common[dim] = edge.shape[dim]
        box.room_for(common)
        pieces.append(values.expand(common))
    return box.core(box.tighten(torch.cat(pieces, dim)))


def stack(call: Call, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """stack: a concatenation along a new dimension."""
    dim %= len(call.shape)
    cores = [box.core(call.edge(t)) for t in tensors]
    common = [max(c.shape[d] for c in cores) for d in range(len(call.shape) - 1)]
    return torch.stack([c.expand(common) for c in cores], dim)


def roll(call: Call, source: Value, shifts: Any, dims: Any = ()) -> Tensor:
    """roll: shifts that wrap round."""
    values = box.core(call.edge(source))
    moved = [(s, d) for s, d in zip(as_tuple(shifts), as_tuple(dims), strict=True) if values.shape[d] > 1]
    return torch.roll(values, *zip(*moved, strict=True)) if moved else values


def flip(call: Call, source: Value, dims: Sequence[int]) -> Tensor:
    """flip: order reversed."""
    return box.core(call.edge(source)).flip(tuple(dims))


def repeat(call: Call, source: Value, repeats: Sequence[int]) -> Tensor:
    """repeat: tiles."""
    values = box.core(call.edge(source))
    values = values.reshape((1,) * (len(repeats) - values.dim()) + values.shape)
    return values.repeat([r if values.shape[d] > 1 else 1 for d, r in enumerate(repeats)])


def pixel_shuffle(call: Call, source: Value, factor: int) -> Tensor:
    """[.., C r r, H, W] -> [.., C, H r, W r]."""
    *lead, channels, height, width = source.shape
    split = box.view(call.edge(source), (*lead, channels // factor**2, factor, factor, height, width))
    n = split.dim()
    return box.core(box.view(split.permute(*range(n - 4), n - 2, n - 4, n - 1, n - 3), call.shape))


def pixel_unshuffle(call: Call, source: Value, factor: int) -> Tensor:
    """[.., C, H r, W r] -> [.., C r r, H, W]: space to depth."""
    *lead, height, width = source.shape
    split = box.view(call.edge(source), (*lead, height // factor, factor, width // factor, factor))
    n = split.dim()
    return box.core(box.view(split.permute(*range(n - 4), n - 3, n - 1, n - 4, n - 2), call.shape))


def channel_shuffle(call: Call, source: Value, groups: int) -> Tensor:
    """[B, (g c), ...] -> [B, (c g), ...]."""
    batch, channels, *rest = source.shape
    split = box.view(call.edge(source), (batch, groups, channels // groups, *rest))
    return box.core(box.view(split.transpose(1, 2), call.shape))


def gated_halves(call: Call, source: Value, dim: int = -1) -> Tensor:
    """glu: one half of the channels times a gate of the other."""
    halves = call.edge(source).chunk(2, dim)
    return box.core(box.hull(halves, call.shape))


def as_pairs(call: Call, source: Value) -> Tensor:
    """view_as_real: a last dimension of two."""
    return box.core(call.edge(source).unsqueeze(-1).expand(call.shape))


def from_pairs(call: Call, source: Value) -> Tensor:
    """view_as_complex: the last dimension of two joined."""
    return box.reduce(call.edge(source), [len(source.shape) - 1]).squeeze(-1)
