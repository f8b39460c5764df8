"""How much overlap tiled inference needs: the halo of a layer, and the stride to which tiles must be aligned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from erflab.errors import TheoryError
from erflab.theory.pattern import Pattern, find_pattern
from erflab.theory.reading import read_boxes
from erflab.theory.trace import Graph, Value
from erflab.theory.units import detect_layout, unit_boxes


def halo_of(pattern: Pattern, steps: Sequence[int]) -> tuple[int, ...]:
    """(before, after) in px per axis, as `TheoreticalField.halo` defines them, rounded up to multiples of `steps`.

    One period of units owns the cell [0, shift) of the axis; the halo is what their boxes see outside it.
    """
    result: list[int] = []
    units = [pattern.edges(unit) for unit in itertools.product(*map(range, pattern.period))]
    for axis, step in enumerate(steps):
        before = max(-edges[2 * axis] for edges in units if edges[2 * axis] != math.inf)
        last = max(-edges[2 * axis + 1] for edges in units if edges[2 * axis + 1] != math.inf)
        after = last - (pattern.shift[axis] - 1)
        result += [step * max(0, math.ceil(overhang / step)) for overhang in (before, after)]
    return tuple(result)


def total_stride(graph: Graph, value: Value) -> tuple[int, ...]:
    """Px per axis by which the image must move for every value on the way to `value` to move by whole positions.

    The least common multiple of all strides passed (a decoder's inner strides count). Needs a run whose interior is free of
    borders. Raises TheoryError if some value on the way repeats in no such pattern.
    """
    steps = [1] * len(graph.input_size)
    found = read_boxes(graph, _one_per_shape(graph, value))
    for boxes in found.values():
        layout = detect_layout(boxes, graph.input_size)
        pattern = None if layout is None else find_pattern(unit_boxes(boxes, layout), graph.input_size)
        if pattern is not None:
            steps = [math.lcm(step, max(1, int(shift))) for step, shift in zip(steps, pattern.shift, strict=True)]
    if value not in found:
        raise TheoryError("the stride of a layer that does not depend on the input is not defined")
    return tuple(steps)


def _one_per_shape(graph: Graph, value: Value) -> list[Value]:
    """The value and, of the image-shaped values it depends on, one of each spatial shape: enough to see every stride."""
    chosen = {value.shape[2:]: value}
    for node in reversed(graph.needed([value])):
        for operand in node.operands:
            if len(operand.shape) == len(graph.input.shape):
                chosen.setdefault(operand.shape[2:], operand)
    return list(chosen.values())
