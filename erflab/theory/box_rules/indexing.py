"""Box rules of indexing: by constants, which move elements, and by input-dependent tensors, which may read any of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.errors import UnknownOperationError
from erflab.theory import box
from erflab.theory.box_rules.call import Call
from erflab.theory.graph import Value
from erflab.theory.grid_taps import taps


def index(call: Call, source: Any, indices: Sequence[Any]) -> Tensor:
    """x[i, :, j]: advanced indexing."""
    moving = [d for d, i in enumerate(indices) if isinstance(i, Value)]
    if moving:
        dims = [d for d, i in enumerate(indices) if i is not None]
        return _anywhere(call, source, dims, [i for i in indices if isinstance(i, Value)])
    known = _known(call, indices)
    values = _stored(call.edge(source), [d for d, i in enumerate(known) if i is not None])
    picked = torch.ops.aten.index(values, known)
    return box.core(box.tighten(picked.expand(call.shape)))


def index_select(call: Call, source: Any, dim: int, positions: Any) -> Tensor:
    """Whole slices, by number."""
    if isinstance(positions, Value):
        return _anywhere(call, source, [dim], [])
    values = box.core(call.edge(source))
    dim %= values.dim()
    if values.shape[dim] == 1:
        return values
    return values.index_select(dim, _known(call, [positions])[0])


def embedding(call: Call, table: Any, positions: Any, *_: Any) -> Tensor:
    """Rows of a table of parameters, chosen by the input."""
    if not isinstance(positions, Value):
        return index(call, table, [positions])
    return box.core(call.edge(positions).unsqueeze(-1).expand(call.shape))


def gather(call: Call, source: Any, dim: int, positions: Any, **_: Any) -> Tensor:
    """gather: along one dimension, a position for every output element."""
    edge = call.edge(source)
    dim %= edge.dim()
    if isinstance(positions, Value):
        chosen = call.across(edge, [dim], statistic=False)
        cut = [slice(0, n) if c > 1 else slice(None) for n, c in zip(call.shape, chosen.shape, strict=True)]
        return box.core(box.hull([chosen[tuple(cut)].expand(call.shape), call.edge(positions)], call.shape))
    if dim not in box.varies(edge):
        cut = [slice(0, n) for n in call.shape]
        return box.core(edge[tuple(cut)].expand(call.shape))
    (places,) = _known(call, [positions])
    box.room_for(call.shape)
    return box.core(box.tighten(edge.gather(dim, places)))


def put(call: Call, target: Any, indices: Sequence[Any], source: Any, accumulate: bool = False, *_: Any) -> Tensor:
    """x[i, :, j] = y."""
    operands = [i for i in indices if isinstance(i, Value)]
    if operands:
        dims = [d for d, i in enumerate(indices) if i is not None]
        return _anywhere_into(call, target, dims, [source, *operands])
    known = _known(call, indices)
    values = _stored(call.edge(target), [d for d, i in enumerate(known) if i is not None])
    values = _broadcastable(values, call.edge(source), call.shape)
    places = torch.ops.aten.index(values, known)
    written = box.core(call.edge(source)).expand(places.shape)
    written = torch.minimum(places, written) if accumulate else written
    return box.core(box.tighten(torch.ops.aten.index_put(values, known, written)))


def slice_scatter(
    call: Call, target: Any, source: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """x[.., start:end:step, ..] = y."""
    return _written(call, target, source, dim, torch.arange(call.shape[dim])[start:end:step], keep=True)


def select_scatter(call: Call, target: Any, source: Any, dim: int, position: int) -> Tensor:
    """x[.., i, ..] = y."""
    return _written(call, target, source, dim, torch.arange(call.shape[dim])[position].reshape(1), keep=False)


def index_copy(call: Call, target: Any, dim: int, positions: Any, source: Any, *_: Any, **__: Any) -> Tensor:
    """index_copy: whole slices written, by number."""
    if isinstance(positions, Value):
        return _anywhere_into(call, target, [dim], [source, positions])
    (places,) = _known(call, [positions])
    return _written(call, target, source, dim, places.flatten(), keep=True)


def index_add(call: Call, target: Any, dim: int, positions: Any, source: Any, *_: Any, **__: Any) -> Tensor:
    """index_add: whole slices added to, by number."""
    result = index_copy(call, target, dim, positions, source)
    return box.core(box.hull([call.edge(target), box.spread(result, call.shape)], call.shape))


def _written(call: Call, target: Any, source: Any, dim: int, places: Tensor, *, keep: bool) -> Tensor:
    dim %= len(call.shape)
    written = call.edge(source)
    written = box.core(written if keep else written.unsqueeze(dim))
    values = box.core(call.edge(target))
    common = list(
        torch.broadcast_shapes(*([1 if d == dim else n for d, n in enumerate(v.shape)] for v in (values, written)))
    )
    box.room_for([call.shape[dim] if d == dim else n for d, n in enumerate(common)])
    common[dim] = call.shape[dim]
    result = values.expand(common).clone()
    common[dim] = len(places)
    result.index_copy_(dim, places, written.expand(common))
    return box.core(box.tighten(result))


def scatter(call: Call, target: Any, dim: int, positions: Any, source: Any = None, *_: Any, **__: Any) -> Tensor:
    """scatter, scatter_add, scatter_reduce: along one dimension, a position for every source element."""
    dim %= len(call.shape)
    if isinstance(positions, Value):
        return _anywhere_into(call, target, [dim], [source, positions])
    (places,) = _known(call, [positions])
    box.room_for(call.shape)
    values = call.edge(target).expand(call.shape).clone()
    written = call.edge(source) if isinstance(source, Value) else box.constant(box.NOTHING, places.shape)
    written = written[tuple(slice(0, n) for n in places.shape)].expand(places.shape)
    if call.operation == "scatter":
        return box.core(box.tighten(values.scatter(dim, places, written)))
    return box.core(box.tighten(values.scatter_reduce(dim, places, written, "amin")))


def ordered(call: Call, source: Value, *args: Any, dim: int = -1, **_: Any) -> list[Tensor]:
    """sort, argsort, topk, median: every output along the dimension may come from any input along it."""
    numbers = [a for a in args if not isinstance(a, bool)]
    if call.operation == "topk":
        numbers = numbers[1:]
    return [call.across(call.edge(source), [numbers[0] if numbers else dim], statistic=False)] * len(call.node.outputs)


def _anywhere(call: Call, source: Any, dims: Sequence[int], positions: Sequence[Value]) -> Tensor:
    """Any element along the indexed dimensions may be read."""
    edge = call.edge(source)
    others = [d for d in range(edge.dim()) if d not in dims]
    if box.varies(edge).intersection(others):  # where those dimensions go depends on the index; the hull is safe
        dims = list(range(edge.dim()))
    read = call.across(edge, dims, statistic=False).amin()
    indexed = [call.across(call.edge(p), range(len(p.shape)), statistic=False).amin() for p in positions]
    return torch.stack([read, *indexed]).amin().reshape((1,) * len(call.shape))


def _anywhere_into(call: Call, target: Any, dims: Sequence[int], operands: Sequence[Any]) -> Tensor:
    """Any element along the indexed dimensions may be written."""
    read = [
        call.across(call.edge(o), range(len(o.shape)), statistic=False).amin() for o in operands if isinstance(o, Value)
    ]
    return torch.minimum(box.core(call.edge(target)), torch.stack(read).amin())


def _known(call: Call, indices: Sequence[Any]) -> list[Any]:
    """Index tensors with their data (masks as the numbers of their set elements)."""
    known: list[Any] = []
    for positions in _constants(call, indices):
        if positions is None:
            known.append(None)
        else:
            known += positions.nonzero(as_tuple=True) if positions.dtype == torch.bool else [positions.long()]
    return known


def _constants(call: Call, positions: Sequence[Any]) -> Sequence[Any]:
    """Positions, which must have their data."""
    for constant in positions:
        if constant is not None and constant.is_meta:
            raise box.TooLargeError(
                f"{call.node.op} in module {call.node.module!r} indexes by a constant of shape {tuple(constant.shape)}, too "
                "large to be computed beside the run"
            )
    return positions


def _stored(edge: Tensor, dims: Sequence[int]) -> Tensor:
    """The edge with the given dimensions at full length, the others as they are stored."""
    values = box.core(edge)
    shape = [edge.shape[d] if d in dims else n for d, n in enumerate(values.shape)]
    box.room_for(shape)
    return values.expand(shape)


def _broadcastable(values: Tensor, written: Tensor, shape: Sequence[int]) -> Tensor:
    """Values at full length along all dimensions if what is written varies along one that is stored once."""
    if not box.varies(written) or math.prod(values.shape) == math.prod(shape):
        return values.clone()
    box.room_for(shape)
    return values.expand(tuple(shape)).clone()


def affine_grid(call: Call, matrices: Value, *_: Any) -> Tensor:
    """affine_grid: the coordinates [B, *out, axes] of every position read their own row of a matrix [B, axes, axes + 1]."""
    rows = box.reduce(call.edge(matrices), [2])
    return rows.reshape(rows.shape[0], *[1] * (len(call.shape) - 2), rows.shape[1])


def grid_sampled(call: Call, source: Any, grid: Any, interpolation: int, padding: int, align_corners: bool) -> Tensor:
    """grid_sample: a few taps of each known position; at positions that the input decides, anywhere.

    A grid of another size than the image's is taken to be fixed: it then scales the image.
    """
    if isinstance(grid, Value):
        return sampled(call, source, grid)
    (known,) = _constants(call, [grid])
    if call.shape[2:] != source.shape[2:]:
        call.fixed_grids.append(call.node.module)
    found = taps(known, source.shape[2:], interpolation, padding, align_corners)
    values = _stored(call.edge(source), range(2, len(source.shape))).flatten(2)
    box.room_for((values.shape[1], *found.places.shape))
    read = found.gather(values, box.NOTHING).amin(-1)
    return read.reshape(*read.shape[:2], *call.shape[2:])


def sampled(call: Call, source: Any, grid: Any, *_: Any, **__: Any) -> Tensor:
    """Deformable convolution, RoI align: positions that the input decides may lie anywhere in the image."""
    if not any(isinstance(v, Value) for v in (grid, *_)):
        raise UnknownOperationError(
            f"{call.node.op} in module {call.node.module!r} samples at constant positions, which has no rule"
        )
    edges = []
    for value in call.node.operands:
        edge = call.edge(value)
        edges.append(call.across(edge, range(edge.dim()), statistic=False).amin())
    return torch.stack(edges).amin().reshape((1,) * len(call.shape))
