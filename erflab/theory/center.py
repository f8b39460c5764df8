"""A unit's geometric centre, the origin of all offsets, and which unit is the central one.

What a unit sees by its own path (`erflab.theory.boxes.Boxes.own`) lies about it. What it sees by attention does not: all
units of a window, or of the image, see the same pixels. So the centre is that of the own path's box, which is the whole
field's where no attention and nothing global is met.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

Box = tuple[float, ...]


class Center(NamedTuple):
    """A place in px, and which box it is the centre of (`TheoreticalField.center_rule`)."""

    place: tuple[float, ...]
    rule: str


def center_of(own: Box | None, full: Box | None, local: Box | None, cell: Box) -> Center:
    """The centre of the first of the boxes that is known and bounded, under the most telling of its names."""
    names = {"full box": full, "local box": local, "own path": own, "grid cell": cell}
    box = next(b for b in (own, full, local, cell) if b is not None and not any(map(math.isinf, b)))
    rule = next(name for name, candidate in names.items() if candidate == box)
    return Center(tuple((first + last) / 2 for first, last in zip(box[::2], box[1::2], strict=True)), rule)


def grid_cell(unit: Sequence[int], grid: Sequence[int], input_size: Sequence[int]) -> Box:
    """The unit's share of the image, were it divided evenly: (y0, y1, x0, x1) in px, the outer pixels' middles."""
    sides = zip(unit, grid, input_size, strict=True)
    return tuple(edge for i, g, n in sides for edge in (i * n / g, (i + 1) * n / g - 1))


def central_unit(
    center: Callable[[Sequence[int]], Sequence[float]], grid: Sequence[int], input_size: Sequence[int]
) -> tuple[int, ...]:
    """The unit whose centre lies nearest the image's; ties go to the lower index.

    Axis by axis, which is enough where centres form a product of rows and columns, as for all but exotic nets.
    """
    unit = [n // 2 for n in grid]
    for axis, n in enumerate(grid):
        middle = (input_size[axis] - 1) / 2
        line = ([i if a == axis else u for a, u in enumerate(unit)] for i in range(n))
        distances = [abs(center(index)[axis] - middle) for index in line]
        unit[axis] = distances.index(min(distances))
    return tuple(unit)
