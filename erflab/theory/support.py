"""The exact set of pixels that a unit can see, with its holes.

Dependence composes, so the set is found by walking the recorded graph backward from the unit, one rule an operation, all in
boolean arithmetic (the support column of `erflab.theory.rules`). Channels are followed where they matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from erflab.errors import UnknownOperationError, closest
from erflab.target import Layout
from erflab.theory import box
from erflab.theory.boxes import Boxes
from erflab.theory.fuse import fuse_linear
from erflab.theory.graph import Graph, Node, Value
from erflab.theory.pattern import Pattern
from erflab.theory.reading import read_boxes
from erflab.theory.rules import RULES
from erflab.theory.support_rules import marks, moves, reductions, windows
from erflab.theory.support_rules.back import Back, SupportRule

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
    mark = trace_back(graph, {value: unit_mark(value, layout, [unit])}, local=local)
    return mark.any(0).any(0)


def unclipped_support(
    graph: Graph, value: Value, layout: Layout, pattern: Pattern, unit: Sequence[int], *, local: bool = False
) -> Support:
    """The set of one unit on its unclipped box, read from its twin in the `graph` whose layer shows the pattern.

    The box must be known and bounded. Raises UnknownOperationError as `read_support` does.
    """
    twin, moved = pattern.twin(unit)
    pixels = read_support(graph, value, replace(layout, grid=pattern.interior.grid), twin, local=local)
    whole = pattern.box(unit)
    assert whole is not None
    for axis, shift in enumerate(moved):
        first, last = int(whole[2 * axis] - shift), int(whole[2 * axis + 1] - shift)
        pixels = pixels.narrow(axis, first, last - first + 1)
    return as_support(pixels, [int(edge) for edge in whole[::2]])


def trace_back(graph: Graph, wanted: Mapping[Value, Tensor], *, local: bool = False) -> Tensor:
    """The mark on the input [B, K, *image axes] of all that the `wanted` marks read."""
    mark = wanted.get(graph.input, marks.nothing(graph.input.shape))
    for _, reads in walk_back(graph, wanted, local=local):
        for operand, read in reads:
            mark = marks.union(mark, read) if operand is graph.input else mark
    return mark


def walk_back(
    graph: Graph, wanted: Mapping[Value, Tensor], *, local: bool = False
) -> Iterator[tuple[Node, list[tuple[Value, Tensor]]]]:
    """The cone of dependence of the `wanted` marks, last node first: every node in it, and the marks on what it reads.

    Raises UnknownOperationError for an operation without a rule.
    """
    alive: dict[Value, Tensor] = dict(wanted)
    boxes = _boxes(graph, alive, local)
    for node in reversed(fuse_linear(graph.needed(wanted), wanted.keys())):
        found = [alive.pop(output, None) for output in node.outputs]
        if all(mark is None for mark in found):
            continue
        outputs = zip(found, node.outputs, strict=True)
        reached = tuple(marks.nothing(v.shape) if m is None else m for m, v in outputs)
        cut = any((node, axis) in graph.cut for axis in range(len(graph.input_size)))
        reads = list(
            rule_for(node)(Back(node, reached, graph.input_size, boxes, local, cut), *node.args, **node.kwargs)
        )
        for operand, mark in reads:
            alive[operand] = marks.union(alive.get(operand), mark)
        yield node, reads


def rule_for(node: Node) -> SupportRule:
    """The rule of a node's operation. Raises UnknownOperationError if it has none."""
    known = RULES.get(node.op)
    if known is not None and known.support is not None:
        return known.support
    shapes = ", ".join(str(list(v.shape)) for v in node.operands)
    raise UnknownOperationError(
        f"no support rule for operation {node.op!r}, met in module {node.module!r} on inputs of shape {shapes}."
        f"{closest(node.op, [op for op, rule in RULES.items() if rule.support])} Say what its outputs read with "
        f"erflab.register_rule({node.op!r}, box=..., support=...)."
    )


def unit_mark(value: Value, layout: Layout, units: Iterable[Sequence[int]]) -> Tensor:
    """The mark on all channels of some units, stored without the channels."""
    grid_dims = {"nchw": range(2, len(value.shape)), "nhwc": range(1, len(value.shape) - 1), "tokens": range(1, 2)}
    stored = [n if d in grid_dims[layout.kind] else 1 for d, n in enumerate(value.shape)]
    values = torch.zeros(stored, dtype=torch.bool)
    for unit in units:
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
