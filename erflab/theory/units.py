"""From the boxes of a tensor's elements to the boxes of a layer's units, and to the pattern they repeat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erflab.target import Layout, token_layout
from erflab.theory import box
from erflab.theory.boxes import Boxes

LONGEST_PERIOD = 64

MOST_SKEWED = 1.2
"""By how many octaves the steps of a grid's axes may differ, for a shape alone to be taken for a grid of the image."""

TIE = 0.05
"""Octaves by which the better reading of a shape must be better; channels come first in a tie."""


def detect_layout(
    boxes: Boxes, input_size: tuple[int, ...], kind: str = "auto", grid: tuple[int, ...] | None = None
) -> Layout | None:
    """How the tensor holds its grid: told by the dimensions along which its boxes move over the image, else by its shape.

    None if it has no grid of more than one unit.
    """
    shape, axes = boxes.shape, len(input_size)
    if kind == "auto" and any(0 in box.varies(term) for side in boxes.terms for term in side):
        return None  # positions are folded into the batch, windows say: its other dimensions are no grid of the image
    if kind == "auto":
        kind = _kind_by_boxes(boxes, input_size) or _kind_by_shape(shape, input_size) or "none"
    if kind == "tokens":
        return token_layout(shape[1], input_size, grid) if len(shape) == 3 else None
    if kind not in ("nchw", "nhwc") or len(shape) != axes + 2:
        return None
    found = shape[2:] if kind == "nchw" else shape[1:-1]
    return Layout(kind, tuple(found)) if math.prod(found) > 1 else None


def _kind_by_boxes(boxes: Boxes, input_size: tuple[int, ...]) -> str | None:
    axes = len(input_size)
    moving = [_moving_dim(boxes.edges[2 * a], input_size[a]) for a in range(axes)]
    if (
        set(moving) == {2 + a for a in range(axes)} and len(boxes.shape) == axes + 2
    ):  # in any order: maps are transposed
        return "nchw"
    if set(moving) == {1 + a for a in range(axes)} and len(boxes.shape) == axes + 2:
        return "nhwc"
    if set(moving) == {1} and len(boxes.shape) == 3:
        return "tokens"
    return None


def _moving_dim(edge: Tensor, extent: int) -> int | None:
    """The dimension along which the edge ranges over at least half of the image axis, on most lines.

    (Channels of differing field may differ as much at a border, where one of them wraps round, not everywhere.)
    """
    values = box.core(edge)
    for dim in range(values.dim()):
        if values.shape[dim] > 1:
            spread = (values.amax(dim) - values.amin(dim)).flatten()
            spread = spread[torch.isfinite(spread)]
            if spread.numel() and float(spread.median()) >= extent / 2:
                return dim
    return None


def _kind_by_shape(shape: tuple[int, ...], input_size: tuple[int, ...]) -> str | None:
    if len(shape) == 3 and len(input_size) == 2:
        return "tokens"
    if len(shape) != len(input_size) + 2:
        return None

    def skew(grid: tuple[int, ...]) -> float:
        steps = [math.log2(n / g) for n, g in zip(input_size, grid, strict=True)]
        return max(steps) - min(steps)

    last, middle = skew(shape[1:-1]), skew(shape[2:])
    if min(last, middle) > MOST_SKEWED:
        return None  # heads, tokens and channels of an attention, say
    return "nhwc" if last + TIE < middle else "nchw"


@dataclass(frozen=True)
class UnitBoxes:
    """The edges of every unit of a grid: per image axis the first pixel and minus the last, each a tensor [*grid]."""

    edges: tuple[Tensor, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Units per image axis."""
        return tuple(self.edges[0].shape)

    def box(self, unit: Sequence[int]) -> tuple[float, ...] | None:
        """Inclusive (y0, y1, x0, x1) of one unit in px; None if it sees nothing."""
        values = [float(e[tuple(unit)]) for e in self.edges]
        return as_box(values)


def as_box(edges: Sequence[float]) -> tuple[float, ...] | None:
    """Edges (first, minus last per axis) as an inclusive box; None if empty."""
    if math.inf in edges:
        return None
    signed = (-e if side % 2 else e for side, e in enumerate(edges))
    return tuple(s if math.isinf(s) else int(s) for s in signed)


def unit_boxes(boxes: Boxes, layout: Layout) -> UnitBoxes:
    """The boxes of units: the hull over batch and channels, on the layout's grid."""
    folded = [layout.fold(edge) for edge in boxes.edges]
    return UnitBoxes(tuple(box.spread(box.core(f).amin((0, 1)), layout.grid) for f in folded))


@dataclass(frozen=True)
class Pattern:
    """How the boxes of units far from any border repeat: every `period[d]` units along axis d, by `shift[d]` px."""

    interior: UnitBoxes
    origin: tuple[int, ...]  # a unit from which one full period is free of borders
    period: tuple[int, ...]
    shift: tuple[float, ...]

    def edges(self, unit: Sequence[int]) -> list[float]:
        """Unclipped edges of any unit, also of one on the border or off the grid."""
        index, moved = self.twin(unit)
        return [float(edge[index]) + (-1) ** side * moved[side // 2] for side, edge in enumerate(self.interior.edges)]

    def twin(self, unit: Sequence[int]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The interior unit whose field, moved by the second result (px per axis), is that of `unit`."""
        moved = [divmod(u - o, p) for u, o, p in zip(unit, self.origin, self.period, strict=True)]
        index = tuple(o + rest for o, (_, rest) in zip(self.origin, moved, strict=True))
        return index, tuple(n * shift for (n, _), shift in zip(moved, self.shift, strict=True))

    def phases(self) -> list[list[float]]:
        """The edges of each unit of one period."""
        offsets = torch.cartesian_prod(*(torch.arange(p) for p in self.period)).reshape(-1, len(self.period))
        return [self.edges([o + int(d) for o, d in zip(self.origin, offset, strict=True)]) for offset in offsets]


def find_pattern(units: UnitBoxes, input_size: tuple[int, ...]) -> Pattern | None:
    """The repeating pattern of the units whose boxes lie strictly inside the image, around the middle unit.

    None if the middle has too few such units (the field is too large for this input size).
    """
    middle = tuple(n // 2 for n in units.grid)
    origin, period, shift = [], [], []
    for axis, n in enumerate(units.grid):
        line = [e[tuple(slice(None) if d == axis else m for d, m in enumerate(middle))] for e in units.edges]
        run = _inside(line, axis, middle[axis], input_size)
        found = _period(line, axis, run, n)
        if found is None:
            return None
        origin.append(found[0])
        period.append(found[1])
        shift.append(found[2])
    return Pattern(units, tuple(origin), tuple(period), tuple(shift))


def _inside(line: list[Tensor], axis: int, middle: int, input_size: tuple[int, ...]) -> range:
    """The run of units around the middle whose box along `axis` touches neither border (or is unbounded, or empty).

    Its outer quarters are left out: an unpadded layer may drop the last rows of the image, and then a unit that overhangs
    the border (`ceil_mode`) has a box that ends short of the border.
    """
    first, last = line[2 * axis], -line[2 * axis + 1]
    endless = torch.isinf(first)
    alike = endless == endless[middle]  # windows that wrap round the image are endless at its borders only
    free = alike & (endless | ((first > 0) & (last < input_size[axis] - 1)))
    blocked = torch.nonzero(~free).flatten()
    below, above = blocked[blocked <= middle], blocked[blocked > middle]
    if below.numel() and int(below[-1]) == middle:
        return range(0)
    start = int(below[-1]) + 1 if below.numel() else 0
    stop = int(above[0]) if above.numel() else len(first)
    margin = (stop - start) // 4
    return range(start + margin, stop - margin)


def _period(line: list[Tensor], axis: int, run: range, n: int) -> tuple[int, int, float] | None:
    """(origin, period, shift) of the shortest period that the run shows at least twice; a grid of one unit has none."""
    if n == 1 and len(run) == 1:
        return 0, 1, 0.0
    for period in range(1, min(LONGEST_PERIOD, len(run) // 2) + 1):
        shift = _common_shift(line[2 * axis : 2 * axis + 2], run, period)
        others = {_steady(edge[run.start : run.stop], period) for side, edge in enumerate(line) if side // 2 != axis}
        if shift is not None and others <= {0.0}:
            origin = run.start + len(run) // 2 - period
            return max(origin, run.start), period, shift
    return None


def _common_shift(sides: list[Tensor], run: range, period: int) -> float | None:
    """By how much both sides move over one period, or None; a side that is unbounded throughout moves with the other."""
    low, high = (edge[run.start : run.stop] for edge in sides)
    first, last = _steady(low, period), _steady(high, period)
    if first is None or last is None:
        return None
    if bool(torch.isinf(low).all()):
        return -last
    return first if first == -last or bool(torch.isinf(high).all()) else None


def _steady(edge: Tensor, period: int) -> float | None:
    """The constant difference of the edge over one period, or None."""
    steps = edge[period:] - edge[:-period]
    infinite = torch.isinf(edge[period:]) & (edge[period:] == edge[:-period])
    steps = steps[~infinite]
    if steps.numel() == 0:
        return 0.0
    return float(steps[0]) if bool((steps == steps[0]).all()) else None
