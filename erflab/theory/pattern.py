"""The pattern that the boxes of a layer's units repeat, and what it says of them: size, stride, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erflab.theory.units import UnitBoxes, as_box

LONGEST_PERIOD = 64


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

    def box(self, unit: Sequence[int]) -> tuple[float, ...] | None:
        """Unclipped inclusive box of any unit; None if it sees nothing."""
        return as_box(self.edges(unit))

    @property
    def size(self) -> tuple[float, ...]:
        """Side of a unit's box in px per axis, the largest of one period; 0 where units see nothing."""
        boxes = [b for b in map(as_box, self.phases()) if b is not None]
        return tuple(max((b[2 * a + 1] - b[2 * a] + 1 for b in boxes), default=0) for a in range(len(self.period)))

    @property
    def stride(self) -> tuple[int | None, ...]:
        """Px between the boxes of neighbouring units per axis; None where it is not constant, or there is no bounded box."""
        found = zip(self.period, self.shift, self.size, strict=True)
        return tuple(int(shift) if period == 1 and size not in (0, math.inf) else None for period, shift, size in found)

    @property
    def padding(self) -> tuple[int | None, ...]:
        """Px by which unit 0's box begins before the image per axis; None where there is no stride."""
        edges = self.edges((0,) * len(self.period))
        return tuple(None if s is None else int(-edges[2 * axis]) for axis, s in enumerate(self.stride))

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
    return float(steps[0]) if bool((torch.isfinite(steps) & (steps == steps[0])).all()) else None
