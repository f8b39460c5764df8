"""The one table of the theory: ATen operation -> rule, with a column for each reading.

A rule of the box column gets a `Call` (the node, and the edges of its operands on one side of one image axis) and the
node's own arguments, in which input-dependent tensors stand as `Value`s. It returns the core of the output's edge (one
element along constant dimensions), or a list of cores for several outputs. An operation that is not in the table is an
error, never an identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from erflab.errors import UnknownOperationError
from erflab.theory import box
from erflab.theory.trace import Node, Value


@dataclass
class Call:
    """One node, seen from one side of one image axis."""

    node: Node
    edges: dict[Value, Tensor]
    image_dims: frozenset[int]  # dimensions of the first operand along which any of its edges varies
    extent: int  # length of the image axis in px
    local: bool  # whether reductions over the whole axis are cut
    causes: list[str] = field(default_factory=list)  # modules that made the output unbounded, here
    fixed_grids: list[str] = field(default_factory=list)  # modules that pool to a fixed number of bins, here

    def edge(self, value: Value) -> Tensor:
        """The edge of one operand, of the operand's shape."""
        return self.edges[value]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the (first) output."""
        return self.node.outputs[0].shape

    def across(self, edge: Tensor, dims: Sequence[int], *, statistic: bool = True) -> Tensor:
        """Reduce over whole dimensions; unbounded where that joins the whole image axis (nothing, if cut)."""
        reduced = box.reduce(edge, [d % edge.dim() for d in dims])
        if not box.spans_image(edge, reduced, self.extent):
            return reduced
        if self.local and statistic:
            return torch.full_like(reduced, box.NOTHING)
        self.causes.append(self.node.module)
        return torch.full_like(reduced, box.UNBOUNDED)


BoxRule = Callable[..., Any]


@dataclass(frozen=True)
class Rule:
    """What is known of one operation."""

    box: BoxRule


# --- pointwise and moves ------------------------------------------------------------------------------------------------


def pointwise(call: Call, *_: Any, **__: Any) -> Tensor:
    """Each output element reads the elements of all operands at its own (broadcast) place."""
    return box.core(box.hull([call.edge(v) for v in call.node.operands], call.shape))


def replay(call: Call, source: Value, *args: Any, **kwargs: Any) -> list[Tensor]:
    """A view that neither merges nor splits dimensions moves the edge as it moves the tensor."""
    namespace, name = call.node.op.split(".")
    moved = getattr(getattr(torch.ops, namespace), name)(call.edge(source), *args, **kwargs)
    return [box.core(m) for m in (moved if isinstance(moved, (list, tuple)) else [moved])]


def reshape(call: Call, source: Value, *_: Any, **__: Any) -> Tensor:
    """A view that merges or splits dimensions."""
    return box.core(box.view(call.edge(source), call.shape))


def as_strided(call: Call, source: Value, size: Sequence[int], *_: Any) -> Tensor:
    """Only the form that changes strides, not the shape, is a view of every element onto itself."""
    if tuple(size) != source.shape:
        raise UnknownOperationError(
            f"as_strided from {source.shape} to {tuple(size)} in module {call.node.module!r} has no rule"
        )
    return box.core(call.edge(source))


def overwrite(call: Call, target: Any, source: Any, *_: Any, **__: Any) -> Tensor:
    """copy_: the target's old content no longer matters."""
    sources = [call.edge(source)] if isinstance(source, Value) else [box.constant(box.NOTHING, call.shape)]
    return box.core(box.hull(sources, call.shape))


def concatenate(call: Call, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """cat: constants among the operands read nothing."""
    dim %= len(call.shape)
    tensors = [t for t in tensors if math.prod(t.shape) > 0]
    edges = [call.edge(t) if isinstance(t, Value) else box.constant(box.NOTHING, t.shape) for t in tensors]
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
    shape = list(call.shape)
    del shape[dim]
    edges = [call.edge(t) if isinstance(t, Value) else box.constant(box.NOTHING, shape) for t in tensors]
    cores = [box.core(e) for e in edges]
    common = [max(c.shape[d] for c in cores) for d in range(len(shape))]
    return torch.stack([c.expand(common) for c in cores], dim)


def pad_constant(call: Call, source: Value, widths: Sequence[int], *_: Any) -> Tensor:
    """Zero padding reads nothing. (Along dimensions no edge varies on, channels say, that must be stored.)"""
    edge, values = call.edge(source), box.core(call.edge(source))
    for position in range(len(widths) // 2):
        dim = edge.dim() - 1 - position
        before, after = widths[2 * position], widths[2 * position + 1]
        if (before, after) == (0, 0) or (values.shape[dim] == 1 and dim in call.image_dims):
            continue
        grown = list(values.shape)
        grown[dim] = edge.shape[dim]
        values = box.pad(values.expand(grown), dim, before, after, box.NOTHING)
    return values


def roll(call: Call, source: Value, shifts: Any, dims: Any = ()) -> Tensor:
    """roll: shifts that wrap round."""
    values = box.core(call.edge(source))
    moved = [(s, d) for s, d in zip(_tuple(shifts), _tuple(dims), strict=True) if values.shape[d] > 1]
    return torch.roll(values, *zip(*moved, strict=True)) if moved else values


def flip(call: Call, source: Value, dims: Sequence[int]) -> Tensor:
    """flip: order reversed."""
    return box.core(call.edge(source)).flip(tuple(dims))


def repeat(call: Call, source: Value, repeats: Sequence[int]) -> Tensor:
    """repeat: tiles."""
    values = box.core(call.edge(source))
    values = values.reshape((1,) * (len(repeats) - values.dim()) + values.shape)
    return values.repeat([r if values.shape[d] > 1 else 1 for d, r in enumerate(repeats)])


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


# --- windows --------------------------------------------------------------------------------------------------------------


def _spatial(value: Sequence[int], count: int) -> list[int]:
    """A per-axis setting, one number standing for all axes."""
    return list(value) * count if len(value) == 1 else list(value)


def _windows(
    edge: Tensor, shape: Sequence[int], kernel: Any, stride: Any, padding: Any, dilation: Any, move: Any = box.window
) -> Tensor:
    count = len(shape) - (edge.dim() - len(_spatial(kernel, edge.dim() - 2)))
    settings = [_spatial(_tuple(s), count) for s in (kernel, stride, padding, dilation)]
    for axis, (k, s, p, d) in enumerate(zip(*settings, strict=True)):
        dim = edge.dim() - count + axis
        values = move(edge, dim, kernel=k, stride=s, padding=p, dilation=d, out=shape[dim])
        grown = list(edge.shape)
        grown[dim] = shape[dim]
        edge = box.spread(values, grown)
    return edge


def convolution(
    call: Call,
    source: Value,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    _: Any,
    groups: int,
) -> Tensor:
    """A window along each image axis, and a mix of the channels of each group."""
    kernel = weight.shape[2:]
    mixed = _mix_channels(call.edge(source), groups, call.shape[1])
    move = box.transposed_window if transposed else box.window
    result = _windows(mixed, call.shape, kernel, stride, padding, dilation, move)
    dynamic = [call.across(call.edge(w), range(len(w.shape))) for w in (weight, bias) if isinstance(w, Value)]
    reduced = [box.spread(d.reshape((1,) * len(call.shape)), call.shape) for d in dynamic]
    return box.core(box.hull([result, *reduced], call.shape))


def _mix_channels(edge: Tensor, groups: int, channels: int) -> Tensor:
    """Each group's output channels read all of the group's input channels."""
    values = box.core(edge)
    if values.shape[1] > 1:
        values = values.unflatten(1, (groups, -1)).amin(2)
        if groups > 1:
            values = values.repeat_interleave(channels // groups, 1)
    return box.spread(values, (edge.shape[0], channels, *edge.shape[2:]))


def pool(
    call: Call, source: Value, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any, **kwargs: Any
) -> list[Tensor]:
    """Max and average pooling: windows that mix no channels. Padding and ceil_mode overhang read nothing."""
    dilation = rest[0] if call.node.op.startswith("aten.max_pool") and rest else 1
    dilation = kwargs.get("dilation", dilation)
    result = _windows(
        call.edge(source),
        call.shape,
        _tuple(kernel),
        _tuple(stride) or _tuple(kernel),
        _tuple(padding),
        _tuple(dilation),
    )
    return [box.core(result)] * len(call.node.outputs)


def adaptive_pool(call: Call, source: Value, size: Any) -> list[Tensor]:
    """Bins from floor(i n / m) to ceil((i + 1) n / m); one bin is a global reduction."""
    edge = call.edge(source)
    for axis, out in enumerate(_tuple(size)):
        dim = edge.dim() - len(_tuple(size)) + axis
        n = edge.shape[dim]
        if out == 1:
            values = call.across(edge, [dim])
        else:
            if out != n:
                call.fixed_grids.append(call.node.module)
            starts = [(i * n) // out for i in range(out)]
            ends = [-((-(i + 1) * n) // out) for i in range(out)]
            values = box.gather(edge, dim, _ranges(starts, ends))
        grown = list(edge.shape)
        grown[dim] = out
        edge = box.spread(values, grown)
    return [box.core(edge)] * len(call.node.outputs)


def _ranges(starts: Sequence[int], ends: Sequence[int]) -> Tensor:
    """Taps [out, t]: start .. end - 1 of each output, -1 beyond."""
    longest = max(e - s for s, e in zip(starts, ends, strict=True))
    taps = torch.tensor(starts)[:, None] + torch.arange(longest)
    return torch.where(taps < torch.tensor(ends)[:, None], taps, -1)


# --- reductions and products --------------------------------------------------------------------------------------------


def _dims(call: Call, source: Value, dim: Any) -> list[int]:
    if dim is None or dim == []:
        return list(range(len(source.shape)))
    return [d % len(source.shape) for d in _tuple(dim)]


def reduction(call: Call, source: Value, dim: Any = None, *_: Any, **__: Any) -> list[Tensor]:
    """mean, sum, amax, var and their kin over whole dimensions."""
    if isinstance(dim, bool):  # aten.var(x, unbiased)
        dim = None
    dims = _dims(call, source, dim)
    reduced = call.across(call.edge(source), dims)
    kept = [1 if d in dims else n for d, n in enumerate(source.shape)]
    return [box.core(box.view(box.spread(reduced, kept), o.shape)) for o in call.node.outputs]


def softmax(call: Call, source: Value, dim: int, *_: Any) -> Tensor:
    """Every output along `dim` reads every input along it; attention between positions is never cut."""
    return call.across(call.edge(source), [dim], statistic=False)


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
    own = box.core(box.hull([edge, box.spread(reduced, edge.shape)], edge.shape))
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


def product(call: Call, *operands: Any, **__: Any) -> Tensor:
    """mm, bmm, addmm, baddbmm: row m and column n read everything along the contracted dimension."""
    *added, left, right = [o for o in operands if isinstance(o, (Value, Tensor))][:3]
    terms = [call.edge(a) for a in added if isinstance(a, Value)]
    for factor, dim in ((left, -1), (right, -2)):
        if isinstance(factor, Value):
            edge = call.edge(factor)
            terms.append(
                box.spread(
                    call.across(edge, [dim], statistic=False),
                    [1 if d == (dim % edge.dim()) else s for d, s in enumerate(edge.shape)],
                )
            )
    return box.core(box.hull(terms, call.shape))


# --- resampling -----------------------------------------------------------------------------------------------------------


def _scales(source: Value, shape: Sequence[int], align_corners: bool, scales: Sequence[float | None]) -> list[float]:
    """Input px per output px, as ATen computes them."""
    axes = range(2, len(shape))
    ratios = []
    for axis, scale in zip(axes, scales, strict=True):
        if align_corners:
            ratios.append((source.shape[axis] - 1) / (shape[axis] - 1) if shape[axis] > 1 else 0.0)
        else:
            ratios.append(1.0 / scale if scale else source.shape[axis] / shape[axis])
    return ratios


def nearest(call: Call, source: Value, size: Any, *scales: Any) -> Tensor:
    """upsample_nearest: one tap."""
    edge = call.edge(source)
    ratios = _scales(source, call.shape, False, _given(scales, edge.dim() - 2))
    for dim, ratio in enumerate(ratios, 2):
        taps = (torch.arange(call.shape[dim]) * ratio).floor().long().clamp(max=edge.shape[dim] - 1)[:, None]
        edge = _gathered(edge, dim, taps, call.shape[dim])
    return box.core(edge)


def linear_interpolation(call: Call, source: Value, size: Any, align_corners: bool, *scales: Any) -> Tensor:
    """upsample_linear, bilinear, trilinear: two taps, one where the output falls on an input."""
    edge = call.edge(source)
    ratios = _scales(source, call.shape, align_corners, _given(scales, edge.dim() - 2))
    for dim, ratio in enumerate(ratios, 2):
        at = torch.arange(call.shape[dim], dtype=torch.float64)
        at = at * ratio if align_corners else ((at + 0.5) * ratio - 0.5).clamp(min=0)
        low = at.floor().long().clamp(max=edge.shape[dim] - 1)
        high = torch.where((at - low).abs() < 1e-9, low, (low + 1).clamp(max=edge.shape[dim] - 1))
        edge = _gathered(edge, dim, torch.stack([low, high], 1), call.shape[dim])
    return box.core(edge)


def _given(scales: Sequence[Any], count: int) -> list[float | None]:
    flat = [s for scale in scales for s in (scale if isinstance(scale, (list, tuple)) else [scale])]
    return [*flat, *[None] * count][:count]


def _gathered(edge: Tensor, dim: int, taps: Tensor, out: int) -> Tensor:
    grown = list(edge.shape)
    grown[dim] = out
    return box.spread(box.gather(edge, dim, taps), grown)


# --- the table ------------------------------------------------------------------------------------------------------------


def _rows(rule: BoxRule, names: str) -> dict[str, Rule]:
    return {f"aten.{name}": Rule(box=rule) for name in names.split()}


RULES: dict[str, Rule] = {
    **_rows(
        pointwise,
        "add add_ sub sub_ mul mul_ div div_ rsub neg pow abs sqrt rsqrt exp log log1p square reciprocal sin cos erf "
        "relu relu_ relu6 hardtanh hardtanh_ leaky_relu leaky_relu_ elu elu_ gelu silu silu_ mish mish_ sigmoid sigmoid_ tanh "
        "tanh_ hardsigmoid hardsigmoid_ hardswish hardswish_ softplus threshold clamp clamp_ clamp_min clamp_min_ clamp_max "
        "clamp_max_ maximum minimum where eq ne lt le gt ge logical_not logical_and logical_or bitwise_not floor ceil round "
        "sign fill_ masked_fill masked_fill_ addcmul addcdiv lerp _prelu_kernel clone _to_copy contiguous lift_fresh_copy "
        "detach alias dropout native_dropout",
    ),
    **_rows(
        replay,
        "permute transpose t unsqueeze squeeze select slice expand split split_with_sizes chunk unbind narrow "
        "transpose_ unsqueeze_ squeeze_ t_",
    ),
    **_rows(reshape, "view _unsafe_view reshape _reshape_alias flatten unflatten"),
    **_rows(as_strided, "as_strided as_strided_"),
    **_rows(overwrite, "copy_ copy"),
    **_rows(concatenate, "cat"),
    **_rows(stack, "stack"),
    **_rows(pad_constant, "constant_pad_nd"),
    **_rows(roll, "roll"),
    **_rows(flip, "flip"),
    **_rows(repeat, "repeat"),
    **_rows(convolution, "convolution"),
    **_rows(pool, "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d"),
    **_rows(adaptive_pool, "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d"),
    **_rows(reduction, "mean sum amax amin var std max min prod norm linalg_vector_norm var_mean std_mean logsumexp"),
    **_rows(softmax, "_softmax _log_softmax _safe_softmax"),
    **_rows(batch_norm, "native_batch_norm"),
    **_rows(batch_norm_no_training, "_native_batch_norm_legit_no_training"),
    **_rows(layer_norm, "native_layer_norm"),
    **_rows(group_norm, "native_group_norm"),
    **_rows(product, "mm bmm addmm baddbmm"),
    **_rows(nearest, "upsample_nearest1d upsample_nearest2d upsample_nearest3d"),
    **_rows(linear_interpolation, "upsample_linear1d upsample_bilinear2d upsample_trilinear3d"),
}
