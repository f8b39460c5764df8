"""The exact set of pixels that a unit can see, with its holes.

Dependence composes, so the set is found by walking the recorded graph backward from the unit, one rule an operation, all in
boolean arithmetic (`SUPPORT` is the support column of the theory's table). Channels are followed where they matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from erflab.errors import UnknownOperationError, closest
from erflab.target import Layout
from erflab.theory import box, marks
from erflab.theory import support_indexing as indexing
from erflab.theory import support_moves as moves
from erflab.theory import support_reductions as reductions
from erflab.theory import support_windows as windows
from erflab.theory.back import Back, SupportRule
from erflab.theory.graph import Graph, Node, Value
from erflab.theory.reading import Boxes, read_boxes
from erflab.theory.rules import RULES, pointwise
from erflab.theory.table import rows, table

AXES = ("z", "y", "x")  # the last ones name the axes of an image with fewer


@dataclass(frozen=True)
class Support:
    """The pixels that one unit can see.

    pixels: bool on the image axes ("y", "x"), coordinates in px of the input.
    """

    pixels: xr.DataArray

    @cached_property
    def box(self) -> tuple[int, ...] | None:
        """The inclusive hull (y0, y1, x0, x1) in px; None if the set is empty."""
        edges: list[int] = []
        for dim in self.pixels.dims:
            hit = self.pixels.any([d for d in self.pixels.dims if d != dim])
            places = self.pixels[dim].values[hit.values]
            if not len(places):
                return None
            edges += [int(places[0]), int(places[-1])]
        return tuple(edges)

    @property
    def count(self) -> int:
        """How many pixels the unit sees."""
        return int(self.pixels.sum())

    @property
    def area(self) -> int:
        """How many pixels the box holds; 0 if the set is empty."""
        found = self.box
        return 0 if found is None else math.prod(b - a + 1 for a, b in zip(found[::2], found[1::2], strict=True))

    @property
    def density(self) -> float:
        """The share of the box that is seen; NaN if the set is empty."""
        return self.count / self.area if self.area else math.nan

    @property
    def holes(self) -> bool:
        """Whether the box holds pixels that the unit does not see."""
        return self.count < self.area

    @property
    def is_product(self) -> bool:
        """Whether the set is the product of its rows and its columns (a cross is not; the grid of a dilation is)."""
        dims = self.pixels.dims
        lines = [int(self.pixels.any([d for d in dims if d != dim]).sum()) for dim in dims]
        return math.prod(lines) == self.count

    def offsets(self, axis: int) -> tuple[int, ...]:
        """The rows (axis 0) or columns (axis 1) that hold a pixel of the set, in px of the input."""
        dim = self.pixels.dims[axis]
        hit = self.pixels.any([d for d in self.pixels.dims if d != dim])
        return tuple(int(place) for place in self.pixels[dim].values[hit.values])


def read_support(graph: Graph, value: Value, layout: Layout, unit: Sequence[int], *, local: bool = False) -> Tensor:
    """The set of one unit of a layer's output `value`: bool, of the shape of the image axes.

    With `local`, reductions over a whole image axis are cut. Raises UnknownOperationError for an operation without a rule on
    the way from the unit to the input.
    """
    mark = trace_back(graph, {value: _unit_mark(value, layout, unit)}, local=local)
    return mark.any(0).any(0)


def trace_back(graph: Graph, wanted: Mapping[Value, Tensor], *, local: bool = False) -> Tensor:
    """The mark on the input [B, K, *image axes] of all that the `wanted` marks read."""
    alive: dict[Value, Tensor] = dict(wanted)
    boxes = _boxes(graph, alive, local)
    for node in reversed(graph.nodes):
        found = [alive.pop(output, None) for output in node.outputs]
        if all(mark is None for mark in found):
            continue
        outputs = zip(found, node.outputs, strict=True)
        reached = tuple(marks.nothing(v.shape) if m is None else m for m, v in outputs)
        cut = any((node, axis) in graph.cut for axis in range(len(graph.input_size)))
        back = Back(node, reached, graph.input_size, boxes, local, cut)
        for operand, mark in rule_for(node)(back, *node.args, **node.kwargs):
            alive[operand] = marks.union(alive.get(operand), mark)
    return alive.get(graph.input, marks.nothing(graph.input.shape))


def rule_for(node: Node) -> SupportRule:
    """The rule of a node's operation. Raises UnknownOperationError if it has none."""
    known = RULES.get(node.op)
    if known is not None and known.support is not None:
        return known.support
    if node.op in SUPPORT:
        return SUPPORT[node.op]
    if known is not None and known.box is pointwise:
        return moves.joined
    shapes = ", ".join(str(list(v.shape)) for v in node.operands)
    raise UnknownOperationError(
        f"no support rule for operation {node.op!r}, met in module {node.module!r} on inputs of shape {shapes}."
        f"{closest(node.op, SUPPORT)} Say what its outputs read with erflab.register_rule({node.op!r}, box=..., support=...)."
    )


def _unit_mark(value: Value, layout: Layout, unit: Sequence[int]) -> Tensor:
    """The mark on all channels of one unit, stored without the channels."""
    grid_dims = {"nchw": range(2, len(value.shape)), "nhwc": range(1, len(value.shape) - 1), "tokens": range(1, 2)}
    stored = [n if d in grid_dims[layout.kind] else 1 for d, n in enumerate(value.shape)]
    values = torch.zeros(stored, dtype=torch.bool)
    at: Any = (..., *unit)
    layout.fold(values)[at] = True  # folding moves no data: this writes into `values`
    return box.spread(values, value.shape)


def _boxes(graph: Graph, wanted: Iterable[Value], local: bool) -> dict[Value, Boxes]:
    """The boxes of operands on which rules depend: of reductions, which the local field may cut, and behind masks."""
    nodes = graph.needed(wanted)
    asked: set[SupportRule] = set()
    if any(_masks(node) for node in nodes):
        asked |= MASKED
    if local:
        asked |= CUTTABLE
    values = {operand for node in nodes if rule_for(node) in asked for operand in node.operands}
    return read_boxes(graph, values, local=local) if values else {}


def _masks(node: Node) -> bool:
    """Whether a node may put a constant (-inf, 0) in place of what depends on the input."""
    if rule_for(node) is moves.added:
        constants = [a for a in node.args if isinstance(a, Tensor) and not a.is_meta and a.is_floating_point()]
        return any(bool(torch.isneginf(c).any()) for c in constants)
    return rule_for(node) in (moves.mask_filled, moves.chosen, moves.triangular)


def as_support(pixels: Tensor, first: Sequence[int] | None = None) -> Support:
    """A set with coordinates; `first` is the coordinate of the first entry on each axis (0)."""
    starts = first or (0,) * pixels.dim()
    dims = AXES[-pixels.dim() :]
    coordinates = {dim: np.arange(n) + s for dim, n, s in zip(dims, pixels.shape, starts, strict=True)}
    return Support(xr.DataArray(pixels.numpy(), coordinates, dims, attrs={"units": "px"}))


# --- the table ------------------------------------------------------------------------------------------------------------


# Operations whose box rule is `pointwise` are joined without a row of their own.
SUPPORT: dict[str, SupportRule] = table(
    # one place of each operand
    rows(
        moves.joined,
        "clone _to_copy contiguous lift_fresh lift_fresh_copy detach alias dropout positive _neg_view resolve_conj",
    ),
    rows(moves.added, "add", inplace=True),
    rows(moves.mask_filled, "masked_fill", inplace=True),
    rows(moves.chosen, "where"),
    rows(moves.triangular, "tril triu", inplace=True),
    rows(moves.overwritten, "copy fill zero", inplace=True),
    rows(moves.gated_halves, "glu"),
    rows(moves.as_pairs, "view_as_real"),
    rows(moves.from_pairs, "view_as_complex"),
    # moves
    rows(moves.broadcast, "expand"),
    rows(moves.reshaped, "view _unsafe_view reshape _reshape_alias flatten unflatten"),
    rows(moves.reshaped, "unsqueeze squeeze", inplace=True),
    rows(moves.permuted, "permute"),
    rows(moves.swapped, "transpose t", inplace=True),
    rows(moves.swapped, "swapaxes"),
    rows(moves.restrided, "as_strided", inplace=True),
    rows(moves.sliced(1), "slice select narrow unbind"),
    rows(moves.sliced(2), "split split_with_sizes chunk unsafe_split unsafe_split_with_sizes unsafe_chunk"),
    rows(moves.concatenated, "cat concatenate"),
    rows(moves.stacked, "stack"),
    rows(moves.padded, "constant_pad_nd"),
    rows(moves.rolled, "roll"),
    rows(moves.flipped, "flip"),
    rows(moves.renumbered(), "repeat tile diagonal unfold movedim slice_scatter select_scatter"),
    rows(moves.renumbered(1), "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle"),
    rows(moves.renumbered(2), "reflection_pad1d reflection_pad2d reflection_pad3d"),
    rows(moves.renumbered(2), "replication_pad1d replication_pad2d replication_pad3d"),
    # indexing
    rows(indexing.indexed, "index _unsafe_index index_select"),
    rows(indexing.embedded, "embedding"),
    rows(indexing.gathered, "gather"),
    rows(indexing.slices_copied, "index_copy", inplace=True),
    rows(indexing.slices_added, "index_add", inplace=True),
    rows(indexing.put, "index_put _unsafe_index_put _index_put_impl", inplace=True),
    rows(indexing.scattered, "scatter scatter_add scatter_reduce", inplace=True),
    rows(indexing.ordered, "sort argsort topk median nanmedian mode kthvalue"),
    rows(indexing.grid_sampled, "grid_sampler_2d grid_sampler_3d"),
    dict.fromkeys(
        ("torchvision.deform_conv2d", "torchvision.roi_align", "torchvision.roi_pool", "torchvision.ps_roi_align"),
        indexing.anywhere,
    ),
    # windows and resampling
    rows(windows.convolution, "convolution"),
    rows(windows.pooled, "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices"),
    rows(windows.pooled, "avg_pool1d avg_pool2d avg_pool3d"),
    rows(
        windows.binned,
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d",
    ),
    rows(windows.unfolded, "im2col"),
    rows(windows.folded, "col2im"),
    rows(windows.resampled(), "upsample_nearest1d upsample_nearest2d upsample_nearest3d"),
    rows(windows.resampled(), "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d"),
    rows(windows.resampled(1), "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d"),
    rows(windows.resampled(1), "_upsample_bilinear2d_aa _upsample_bicubic2d_aa"),
    # reductions and products
    rows(
        reductions.reduced,
        "mean sum nansum amax amin aminmax var std prod var_mean std_mean logsumexp argmax argmin any all count_nonzero",
    ),
    rows(reductions.extreme, "max min"),
    rows(reductions.normed, "norm linalg_vector_norm"),
    rows(reductions.softmaxed, "_softmax _log_softmax _safe_softmax"),
    rows(reductions.cumulated, "cumsum cumprod cummax cummin _cummax_helper logcumsumexp", inplace=True),
    rows(reductions.transformed, "_fft_r2c _fft_c2r _fft_c2c"),
    rows(reductions.recurrent, "lstm gru rnn_tanh rnn_relu"),
    rows(reductions.batch_normed, "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional"),
    rows(reductions.batch_normed_eval, "_native_batch_norm_legit_no_training _batch_norm_no_update"),
    rows(reductions.layer_normed, "native_layer_norm _fused_rms_norm rms_norm"),
    rows(reductions.group_normed, "native_group_norm"),
    rows(reductions.multiplied, "mm bmm mv dot vdot"),
    rows(reductions.projected, "linear"),
    rows(reductions.added_product, "addmm baddbmm addmv", inplace=True),
    rows(reductions.batch_added_product, "addbmm", inplace=True),
    rows(reductions.distanced, "_cdist_forward _euclidean_dist"),
)
# Rules that look at the boxes of their operands: where something was masked, and where the local field may be cut.
MASKED: frozenset[SupportRule] = frozenset({reductions.softmaxed, reductions.multiplied, reductions.added_product})
CUTTABLE: frozenset[SupportRule] = frozenset(
    {
        reductions.reduced,
        reductions.extreme,
        reductions.normed,
        reductions.batch_normed,
        reductions.layer_normed,
        reductions.group_normed,
        reductions.multiplied,
        reductions.added_product,
        windows.binned,
        windows.pooled,
        windows.convolution,
    }
)
