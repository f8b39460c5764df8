"""Box rules of padding and of windows that slide: convolution, pooling, unfolding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as pairs
from typing import Any

import torch
from torch import Tensor

from erflab.theory import box
from erflab.theory.box_rules.call import Call, as_tuple, per_axis
from erflab.theory.graph import Value


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


def pad_reflect(call: Call, source: Value, widths: Sequence[int]) -> Tensor:
    """Reflection: a padded place reads its mirror image, the border itself not repeated."""
    return _pad_by(call, source, widths, lambda i, n: n - 1 - (i.abs() - (n - 1)).abs())


def pad_replicate(call: Call, source: Value, widths: Sequence[int]) -> Tensor:
    """Replication: a padded place reads the border."""
    return _pad_by(call, source, widths, lambda i, n: i.clamp(0, n - 1))


def _pad_by(call: Call, source: Value, widths: Sequence[int], read: Callable[[Tensor, int], Tensor]) -> Tensor:
    values = box.core(call.edge(source))
    for axis in range(len(widths) // 2):
        dim = values.dim() - 1 - axis
        if values.shape[dim] > 1:
            places = torch.arange(-widths[2 * axis], values.shape[dim] + widths[2 * axis + 1])
            values = values.index_select(dim, read(places, values.shape[dim]))
    return values


def _windows(
    edge: Tensor, shape: Sequence[int], kernel: Any, stride: Any, padding: Any, dilation: Any, move: Any = box.window
) -> Tensor:
    count = len(per_axis(kernel, edge.dim() - 2))
    settings = [per_axis(s, count) for s in (kernel, stride, padding, dilation)]
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
    mixed = box.mix_channels(call.edge(source), groups, call.shape[1], torch.amin)
    move = box.transposed_window if transposed else box.window
    result = _windows(mixed, call.shape, list(kernel), stride, padding, dilation, move)
    dynamic = [call.across(call.edge(w), range(len(w.shape))) for w in (weight, bias) if isinstance(w, Value)]
    reduced = [box.spread(d.reshape((1,) * len(call.shape)), call.shape) for d in dynamic]
    return box.core(box.hull([result, *reduced], call.shape))


def pool(
    call: Call, source: Value, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any, **kwargs: Any
) -> list[Tensor]:
    """Max and average pooling: windows that mix no channels. Padding and ceil_mode overhang read nothing."""
    dilation = rest[0] if call.operation.startswith("max_pool") and rest else 1
    dilation = kwargs.get("dilation", dilation)
    edge = _whole_axes(call, call.edge(source), kernel)
    result = _windows(edge, call.shape, kernel, as_tuple(stride) or kernel, padding, dilation)
    return [box.core(result)] * len(call.node.outputs)


def _whole_axes(call: Call, edge: Tensor, kernel: Any) -> Tensor:
    """A window as large as the image reduces the whole axis."""
    for axis, k in enumerate(per_axis(kernel, edge.dim() - 2), edge.dim() - len(per_axis(kernel, edge.dim() - 2))):
        if call.shape[axis] == 1 and k >= edge.shape[axis] > 1:
            edge = box.spread(call.across(edge, [axis]), edge.shape)
    return edge


def adaptive_pool(call: Call, source: Value, size: Any) -> list[Tensor]:
    """Bins from floor(i n / m) to ceil((i + 1) n / m); one bin is a global reduction."""
    edge = call.edge(source)
    for axis, out in enumerate(as_tuple(size)):
        dim = edge.dim() - len(as_tuple(size)) + axis
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


def unfold(call: Call, source: Value, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    """im2col: [B, C, H, W] -> [B, C kh kw, L], the windows as columns."""
    values = box.core(call.edge(source))
    batch, channels, *_ = source.shape
    settings = zip(*(per_axis(s, 2) for s in (kernel, dilation, padding, stride)), strict=True)
    columns = []
    for dim, (k, d, p, s) in enumerate(settings, 2):
        n = source.shape[dim]
        span = (k - 1) * d + 1
        columns.append((n + 2 * p - span) // s + 1)
        if values.shape[dim] > 1:
            values = box.pad(values, dim, p, p, box.NOTHING).unfold(dim, span, s)[..., ::d]
        else:
            values = values.unsqueeze(-1)
    ordered = values.permute(0, 1, 4, 5, 2, 3)  # [B, C, kh, kw, rows, columns]
    whole = ordered.expand(batch, channels, *per_axis(kernel, 2), *columns)
    return box.core(box.view(whole, call.shape))


def fold(call: Call, source: Value, size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    """col2im: overlapping windows summed back into an image."""
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (per_axis(s, 2) for s in (kernel, dilation, padding, stride))
    height, width = size
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    batch, channels = source.shape[0], source.shape[1] // (kh * kw)
    values = box.core(box.view(call.edge(source), (batch, channels, kh, kw, rows, columns)))
    values = values.expand(*values.shape[:2], kh, kw, rows, columns)
    image = torch.full((*values.shape[:2], height + 2 * ph, width + 2 * pw), box.NOTHING)
    for i, j in pairs(range(kh), range(kw)):
        place = image[:, :, i * dh : i * dh + sh * (rows - 1) + 1 : sh, j * dw : j * dw + sw * (columns - 1) + 1 : sw]
        place.copy_(torch.minimum(place, values[:, :, i, j]))
    return box.core(box.tighten(image[:, :, ph : ph + height, pw : pw + width]))
