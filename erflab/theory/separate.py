"""Units whose fields do not overlap: one backward pass measures all of them exactly, each in its own window."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from erflab.errors import MeasurementError
from erflab.theory.field import TheoreticalField


def separate_units(field: TheoreticalField) -> list[tuple[int, ...]]:
    """As many units as there is room for whose fields lie inside the image and share no pixel, on a regular grid.

    Raises MeasurementError where units have no bounded field, the same for all, or none lies inside the image.
    """
    if field.is_global or field.untracked or not field.aligned:
        why = "global" if field.is_global else "not known" if field.untracked else "not the same for all units"
        raise MeasurementError(
            f"target.unit=grid: the field of layer {field.layer!r} is {why}; use target.unit=center."
        )
    return list(product(*(_along(field, axis) for axis in range(len(field.grid)))))


def _along(field: TheoreticalField, axis: int) -> Sequence[int]:
    """Units of one axis, as far apart as their fields are long, in the middle of those that the border does not cut."""
    stride, size, padding = field.stride[axis], field.size[axis], field.padding[axis]
    assert stride is not None  # the field is aligned and bounded
    assert size is not None
    assert padding is not None
    first = [unit * stride - padding for unit in range(field.grid[axis])]
    whole = [u for u, start in enumerate(first) if start >= 0 and start + size <= field.input_size[axis]]
    if not whole:
        raise MeasurementError(
            f"target.unit=grid: no unit of layer {field.layer!r} has its field of {size:g} px inside the "
            f"{field.input_size[axis]} px input; enlarge images.size."
        )
    apart = -(-int(size) // stride) if stride else len(field.grid)
    spare = (whole[-1] - whole[0]) % apart
    return range(whole[0] + spare // 2, whole[-1] + 1, apart)
