"""Boxes of dependence, carried forward for all units of a tensor at once.

The box of a unit is kept as its *edges*, two per image axis: the first pixel it can see, and minus the last one. With that
sign every rule of the theory is one and the same operation, a minimum over what the unit reads: a convolution takes the
minimum over its window, a sum of branches the minimum of the branches, a view moves the values. An edge of +inf sees
nothing (a constant, zero padding); -inf is unbounded (a reduction over the whole image).

An edge is a float32 tensor of its value's full shape, expanded (stride 0) along every dimension on which it is constant, so
a feature map [B, C, H, W] carries H numbers for a y edge and W for an x edge, unless views or rolls mix the axes.
An edge that varies on dimensions in a separable way is held as several such tensors, its terms, of which it is the minimum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from erflab.errors import TheoryError

NOTHING = math.inf
UNBOUNDED = -math.inf
# Elements an edge may hold. Beyond it (attention between all pairs of positions of a huge virtual image) the reading gives up.
LARGEST = 2**24


class TooLargeError(TheoryError):
    """An edge that would not fit in memory at this input size."""


def core(edge: Tensor) -> Tensor:
    """The edge with one element along every dimension on which it is constant."""
    index = tuple(
        slice(0, 1) if stride == 0 or n == 1 else slice(None)
        for n, stride in zip(edge.shape, edge.stride(), strict=True)
    )
    return edge[index]


def spread(values: Tensor, shape: Sequence[int]) -> Tensor:
    """`values`, of one element where constant, expanded (not copied) to `shape`."""
    return values.expand(tuple(shape))


def varies(edge: Tensor) -> set[int]:
    """The dimensions along which the edge is stored as varying."""
    return {d for d, (n, s) in enumerate(zip(edge.shape, edge.stride(), strict=True)) if n > 1 and s != 0}


def tighten(edge: Tensor) -> Tensor:
    """The same edge, with dimensions found constant stored as such (after views, concatenations and gathers)."""
    values = core(edge)
    for dim in range(values.dim()):
        n = values.shape[dim]
        if n > 1:
            first = values.narrow(dim, 0, 1)
            probes = {1, n // 2, n - 1}  # nearly all dimensions that vary show it here
            if all(torch.equal(values.narrow(dim, k, 1), first) for k in probes) and bool((values == first).all()):
                values = first
    return spread(values, edge.shape)


def room_for(shape: Sequence[int]) -> None:
    """Raise TooLargeError if an edge of this many stored elements would not fit."""
    if math.prod(shape) > LARGEST:
        raise TooLargeError(f"the boxes of a tensor of shape {tuple(shape)} do not fit in memory at this input size")


def constant(value: float, shape: Sequence[int]) -> Tensor:
    """An edge that is the same for every element."""
    return spread(torch.full((1,) * len(shape), value), shape)


def hull(edges: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """The box that holds the boxes of all operands, broadcast to `shape`: what a pointwise call of several tensors reads."""
    padded = [core(e).reshape((1,) * (len(shape) - e.dim()) + core(e).shape) for e in edges]
    room_for(torch.broadcast_shapes(*(p.shape for p in padded)))
    result = padded[0]
    for other in padded[1:]:
        result = torch.minimum(result, other)
    return spread(result, shape)


def window(edge: Tensor, dim: int, *, kernel: int, stride: int, padding: int, dilation: int, out: int) -> Tensor:
    """Minimum over a sliding window along `dim`; positions outside read nothing. The core's other dimensions are kept."""
    values = core(edge)
    if values.shape[dim] == 1:
        return values
    span = (kernel - 1) * dilation + 1
    after = (out - 1) * stride + span - values.shape[dim] - padding
    values = pad(values, dim, padding, after, NOTHING)
    return values.unfold(dim, span, stride)[..., ::dilation].amin(-1)


def transposed_window(
    edge: Tensor, dim: int, *, kernel: int, stride: int, padding: int, dilation: int, out: int
) -> Tensor:
    """What a transposed convolution's output reads: the window over the input with stride - 1 blanks between positions."""
    values = core(edge)
    if values.shape[dim] == 1:
        return values
    shape = list(values.shape)
    shape[dim] = (shape[dim] - 1) * stride + 1
    blanks = torch.full(shape, NOTHING)
    blanks.index_copy_(dim, torch.arange(0, shape[dim], stride), values)
    before = dilation * (kernel - 1) - padding
    return window(spread(blanks, shape), dim, kernel=kernel, stride=1, padding=before, dilation=dilation, out=out)


def pad(values: Tensor, dim: int, before: int, after: int, fill: float) -> Tensor:
    """`values` with `before` and `after` more entries along `dim`; negative numbers cut."""
    widths = [0, 0] * (values.dim() - 1 - dim) + [before, after]
    return torch.nn.functional.pad(values, widths, value=fill)


def gather(edge: Tensor, dim: int, taps: Tensor) -> Tensor:
    """Minimum over the listed positions along `dim`: taps [out, t] of indices, negative ones read nothing."""
    values = core(edge)
    if values.shape[dim] == 1:
        return values
    extended = pad(values, dim, 0, 1, NOTHING)
    picked = extended.index_select(dim, torch.where(taps < 0, values.shape[dim], taps).flatten())
    unfolded: Tensor = picked.unflatten(dim, tuple(taps.shape))
    return unfolded.amin(dim + 1)


def mix_channels(edge: Tensor, groups: int, channels: int, join: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Each of a group's `channels` / `groups` channels as the join (a minimum, or any) of all channels of the group."""
    values = core(edge)
    if values.shape[1] > 1:
        values = join(values.unflatten(1, (groups, -1)), 2)
        if groups > 1:
            values = values.repeat_interleave(channels // groups, 1)
    return spread(values, (edge.shape[0], channels, *edge.shape[2:]))


def reduce(edge: Tensor, dims: Sequence[int]) -> Tensor:
    """Minimum over whole dimensions, kept with one element."""
    values = core(edge)
    return values.amin(tuple(dims), keepdim=True) if dims else values


def spans_image(edge: Tensor, reduced: Tensor, extent: int) -> bool:
    """Whether a reduction of `edge` to `reduced` joined positions across the whole image axis, for some output."""
    return bool(spanning(edge, reduced, extent).any())


def spanning(edge: Tensor, reduced: Tensor, extent: float) -> Tensor:
    """For which outputs a reduction of `edge` to `reduced` joined positions across the image axis of `extent` px.

    Those whose inputs range over at least half of the axis: all of the image, or a grid of positions spread over it. (A
    window, a slice or a channel-wise reduction does not.)
    """
    return distance(edge, reduced) >= extent / 2


def distance(edge: Tensor, reduced: Tensor) -> Tensor:
    """How far apart in px the edges lie that a reduction of `edge` to `reduced` joined; 0 where one of them is unbounded."""
    values = core(edge)
    dims = [d for d in range(values.dim()) if values.shape[d] > 1 and reduced.shape[d] == 1]
    if not dims:
        return torch.zeros_like(reduced)
    highest = torch.where(values == NOTHING, UNBOUNDED, values).amax(dims, keepdim=True)
    return torch.where(torch.isfinite(reduced), highest - reduced, 0.0)


Terms = tuple[Tensor, ...]


def simplify(terms: Sequence[Tensor]) -> Terms:
    """The same minimum in as few terms as can be held without joining dimensions that no single term varies on.

    An attention between N positions has an edge per row and one per column: as two terms 2 N numbers, as one N x N.
    """
    found: list[Tensor] = []
    for term in sorted(terms, key=lambda t: len(varies(t)), reverse=True):
        for k, other in enumerate(found):
            if varies(term) <= varies(other):
                found[k] = spread(torch.minimum(core(term), core(other)), other.shape)
                break
        else:
            found.append(term)
    unbounded = [t for t in found if core(t).numel() == 1 and float(core(t)) == UNBOUNDED]
    return (unbounded[0],) if unbounded else tuple(found)


def joined(terms: Terms) -> Tensor:
    """The edge itself: the minimum of its terms."""
    return terms[0] if len(terms) == 1 else hull(terms, terms[0].shape)


def view(edge: Tensor, shape: Sequence[int]) -> Tensor:
    """The edge under a reshape: dimensions merge and split in blocks, and a block that is constant stays unstored."""
    values, old = core(edge), list(edge.shape)
    result_shape: list[int] = []
    source = 0
    pieces = values
    for olds, news in _blocks(old, list(shape)):
        dims = range(source, source + len(olds))
        if all(values.shape[d] == 1 for d in dims):
            result_shape += [1] * len(news)
        else:
            room_for([*pieces.shape[:source], *olds])
            grown = list(pieces.shape)
            grown[source : source + len(olds)] = olds
            pieces = pieces.expand(grown)
            result_shape += news
        source += len(olds)
    room_for(result_shape)
    return tighten(spread(pieces.reshape(result_shape), shape))


def _blocks(old: list[int], new: list[int]) -> list[tuple[list[int], list[int]]]:
    """The finest pairing of runs of dimensions with equal products: [2, 6, 5] -> [12, 5] gives ([2, 6], [12]), ([5], [5])."""
    blocks = []
    i = j = 0
    while i < len(old) or j < len(new):
        olds, news = old[i : i + 1], new[j : j + 1]
        while math.prod(olds) != math.prod(news):
            if math.prod(olds) < math.prod(news):
                olds = old[i : i + len(olds) + 1]
            else:
                news = new[j : j + len(news) + 1]
        i, j = i + len(olds), j + len(news)
        blocks.append((olds, news))
    return blocks
