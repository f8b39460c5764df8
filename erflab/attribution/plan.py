"""Which occluders to run and which units to read, so that each offset of the map gets its readings at least cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from erflab.attribution.occlusion import AxisPlan, OcclusionPlan
from erflab.config import OcclusionConfig
from erflab.errors import ConfigError, MeasurementError, UnknownOperationError
from erflab.theory.field import TheoreticalField


def plan_occlusion(config: OcclusionConfig, field: TheoreticalField) -> OcclusionPlan:
    """The pairs of units and patches of `occlusion.units` all, unclipped or one.

    Raises ConfigError for a step that neither divides the stride nor is a multiple of it; MeasurementError where many units
    cannot be read together (their centres are not evenly spaced) or none is unclipped.
    """
    strides = [_spacing(field, axis) for axis in range(2)]
    nominal = min((round(s) for s in strides if s), default=max(1, min(field.input_size) // 32))
    patch = max(1, nominal // 2) if config.patch == "auto" else int(config.patch)
    step = max(1, nominal // 4) if config.step == "auto" else int(config.step)
    if patch > min(field.input_size):
        raise ConfigError(f"attribution.occlusion.patch is {patch} px, larger than the {field.input_size} px input.")
    if config.units == "one":
        y, x = (_one(field, axis, patch, step) for axis in range(2))
        return _without_holes(OcclusionPlan(y, x, patch), field)
    for axis, stride in enumerate(strides):
        _check_step(field, axis, stride, step)
    make = _all if config.units == "all" else _unclipped
    y, x = (make(field, axis, int(stride or 1), patch, step) for axis, stride in enumerate(strides))
    return OcclusionPlan(y, x, patch)


def clipped_share(plan: OcclusionPlan, field: TheoreticalField) -> float:
    """Share of the readings that come from units whose field the image border cuts (unknown fields count as cut)."""
    bins = plan.bins()
    readings = (bins >= 0).sum(1).reshape(len(plan.y.units), len(plan.x.units))
    cut = [[field.is_clipped((i, j)) is not False for j in plan.x.units] for i in plan.y.units]
    total = int(readings.sum())
    clipped = sum(int(readings[i, j]) for i, row in enumerate(cut) for j, c in enumerate(row) if c)
    return clipped / total if total else 1.0


def _centers(field: TheoreticalField, axis: int) -> list[float]:
    """Centres along one axis, in the row or column of the measured unit."""
    return [
        field.center([i if a == axis else u for a, u in enumerate(field.unit)])[axis] for i in range(field.grid[axis])
    ]


def _spacing(field: TheoreticalField, axis: int) -> float | None:
    """Px between neighbouring units' centres; None where that is not one whole number, or the units' fields differ."""
    local = field.local
    if local.pattern is not None and not local.is_global and not local.aligned:
        return None
    centers = _centers(field, axis)
    steps = {b - a for a, b in pairwise(centers)} or {float(field.input_size[axis])}
    step = steps.pop()
    return step if not steps and step == int(step) and step > 0 else None


def _check_step(field: TheoreticalField, axis: int, stride: float | None, step: int) -> None:
    if stride is None:
        raise MeasurementError(
            f"the units of layer {field.layer!r} are not evenly spaced along axis {'yx'[axis]}, or their fields differ, so "
            "they cannot be read together; use attribution.occlusion.units=one."
        )
    if stride % step and step % stride:
        raise ConfigError(
            f"attribution.occlusion.step is {step} px, which neither divides the stride of {int(stride)} px nor is a multiple "
            f"of it; try {math.gcd(int(stride), step)}."
        )


def _half_support(field: TheoreticalField, axis: int, patch: int) -> float:
    """Half the extent of TRF + (patch - 1) positions, infinite for a global or unknown field."""
    size = field.size[axis]
    return math.inf if size is None else (size + patch - 2) / 2


def _nearest_position(center: float, patch: int) -> float:
    """The patch centre at or just above `center`: an integer for an odd side, a half-integer for an even one."""
    shift = 0.0 if patch % 2 else 0.5
    return math.ceil(center - shift) + shift


def _axis(
    field: TheoreticalField, axis: int, positions: Sequence[float], units: Sequence[int], patch: int, step: int
) -> AxisPlan:
    """The plan with every offset, a multiple of the step from the first pair's, that lies in the support and is read.

    Positions that no unit sees are left out.
    """
    along = _centers(field, axis)
    centers = [along[u] for u in units]
    reach = _half_support(field, axis, patch)
    offsets = sorted({p - c for p in positions for c in centers if abs(p - c) <= reach})
    first = offsets[0]
    offsets = [o for o in offsets if (o - first) % step == 0]
    seen = [p for p in positions if not {p - c for c in centers}.isdisjoint(offsets)]
    return AxisPlan(tuple(seen), tuple(units), tuple(centers), tuple(offsets))


def _all(field: TheoreticalField, axis: int, stride: int, patch: int, step: int) -> AxisPlan:
    """Occluders at all phases of one stride cell in the middle; every unit reads them, at offsets a step apart."""
    phases = max(1, stride // step)
    middle = field.resolve("center")[axis]
    start = _nearest_position(_centers(field, axis)[middle], patch)
    positions = [start + (k - phases // 2) * step for k in range(phases)]
    every = max(1, step // stride)
    units = [i for i in range(field.grid[axis]) if (i - middle) % every == 0]
    return _axis(field, axis, positions, units, patch, step)


def _unclipped(field: TheoreticalField, axis: int, stride: int, patch: int, step: int) -> AxisPlan:
    """Only units whose field lies inside the image; occluders sweep the cells that these do not cover between them."""
    size, n = field.size[axis], field.grid[axis]
    centers = _centers(field, axis)
    half = math.inf if size is None else (size - 1) / 2
    units = [i for i in range(n) if centers[i] - half >= 0 and centers[i] + half <= field.input_size[axis] - 1]
    if not units or size is None:
        raise MeasurementError(
            f"no unit of layer {field.layer!r} has its field of {size} px inside the {field.input_size[axis]} px input; "
            "enlarge images.size, or use attribution.occlusion.units=all."
        )
    cells = max(1, math.ceil((size + patch - 1) / stride) - len(units) + 1)
    every = max(1, step // stride)
    count = max(1, cells * stride // step) if every == 1 else math.ceil(cells / every) + 1
    middle = (centers[units[0]] + centers[units[-1]]) / 2
    start = _nearest_position(middle, patch) - (count // 2) * step
    return _axis(field, axis, [start + k * step for k in range(count)], units, patch, step)


def _one(field: TheoreticalField, axis: int, patch: int, step: int) -> AxisPlan:
    """The measured unit alone, an occluder at every position of its support that touches the image."""
    unit, n = field.unit[axis], field.input_size[axis]
    center = _centers(field, axis)[unit]
    start, half = _nearest_position(center, patch), (patch - 1) / 2
    reach = min(_half_support(field, axis, patch), n + patch)
    steps = range(-math.ceil(reach / step) - 1, math.ceil(reach / step) + 2)
    positions = [start + k * step for k in steps]
    kept = [p for p in positions if abs(p - center) <= reach and p + half >= 0 and p - half <= n - 1]
    return _axis(field, axis, kept, [unit], patch, step)


def _without_holes(plan: OcclusionPlan, field: TheoreticalField) -> OcclusionPlan:
    """The plan without the patches of which the unit sees no pixel; all of them where its exact set is not known."""
    if field.untracked:
        return plan
    try:
        seen = field.support(field.unit).pixels.values
    except UnknownOperationError:
        return plan
    unseen = [
        place
        for place, (y0, y1, x0, x1) in enumerate(plan.patches)
        if not seen[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)].any()
    ]
    return replace(plan, unseen=tuple(unseen))
