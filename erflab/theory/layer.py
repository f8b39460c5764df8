"""The theoretical field of one layer, read from runs of the model (`erflab.theory.runs`).

The run at the real input size gives every unit's *clipped* field exactly, reflections at the borders and all; the one at a
virtual size gives the *unclipped* field of any unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from erflab.errors import TargetError
from erflab.models import frozen
from erflab.theory.field import TheoreticalField, Unit
from erflab.theory.pattern import Pattern, find_pattern
from erflab.theory.runs import LayerKey, Traces, image_shape, layer_key, read_pattern
from erflab.theory.units import UnitBoxes, detect_layout, unit_boxes


def theoretical_field(
    model: nn.Module,
    layer: str | None = None,
    input_size: Sequence[int] = (224, 224),
    unit: Unit = "center",
    *,
    channels: int | None = None,
    layout: str = "auto",
    grid: Sequence[int] | None = None,
) -> TheoreticalField:
    """The theoretical receptive field of a layer's units.

    Args:
        model: any module on images [B, channels, *input_size]; it is run in eval mode on shapes alone, and left as it was.
        layer: dotted module name, "name:k" for the k-th call of a reused module; None for the model's own output when it
            is spatial, else the last spatial module.
        input_size: px per image axis.
        unit: the unit that `box()`, `center()` and `is_clipped()` mean by default: "center", "corner" or indices.
        channels: input channels; None takes those of the model's first convolution.
        layout: "nchw", "nhwc", "tokens", or "auto".
        grid: rows and columns of a token grid, where they cannot be told from the image's aspect ratio.

    Raises:
        TargetError: no such layer or unit, or the layer has no grid of units.
        UnknownOperationError: an operation that the table has no rule for.
        TheoryError: the model does not run at this size.
    """
    shape = image_shape(model, input_size, channels)
    with frozen(model):
        traces = Traces(model, shape)
        key = layer_key(traces, layer)
        found = read_layer(traces, key, layout, tuple(grid) if grid else None)
    return replace(found, unit=found.resolve(unit))


def read_layer(
    traces: Traces, key: LayerKey, kind: str = "auto", grid: tuple[int, ...] | None = None, *, local: bool = False
) -> TheoreticalField:
    """One reading of one layer: clipped boxes from the real run, the pattern from a virtual one.

    Raises TargetError if the layer has no grid of units.
    """
    boxes = traces.boxes(traces.real, key, local=local)
    virtual = read_pattern(traces, key, kind, local=local)
    layout = detect_layout(boxes, traces.input_size, virtual.kind, grid)
    if layout is None:
        raise TargetError(
            f"layer {key[0]!r} has output shape {boxes.shape}, which has no grid of more than one unit; choose an earlier "
            "layer, or set target.layout (and target.grid for tokens) if it has one."
        )
    clipped = unit_boxes(boxes, layout)
    pattern, path = (
        None if boxes.fixed_grids else _settled(found, units, traces.input_size)
        for found, units in ((virtual.pattern, clipped), (virtual.path, unit_boxes(boxes.path, layout)))
    )
    reason = "the field depends on the input size beyond its borders" if virtual.pattern else virtual.reason
    causes = boxes.causes if virtual.causes is None else virtual.causes
    if pattern is not None and not any(-math.inf in edges for edges in pattern.phases()):
        causes = frozenset()  # windows that wrap round the image are global at its borders only
    return TheoreticalField(
        *key,
        traces.input_size,
        layout,
        clipped,
        pattern,
        path,
        reason=None if pattern else reason,
        causes=traces.real.in_order(causes),
        untracked=traces.real.untracked(traces.real.layers[key]),
        cut=read_layer(traces, key, kind, grid, local=True) if causes and not local else None,
        is_local=local,
        graph=traces.real,
        interior=virtual.graph or traces.real,
    )


def _settled(found: Pattern | None, units: UnitBoxes, input_size: tuple[int, ...]) -> Pattern | None:
    """The pattern that the virtual run shows where the real run agrees, or, if it shows none, that of the real run."""
    if found is None:
        return find_pattern(units, input_size)
    return found if _agree(found, units, input_size) else None


def _agree(pattern: Pattern, clipped: UnitBoxes, input_size: tuple[int, ...]) -> bool:
    """Whether the middle unit's box, where it lies inside the real image, is the one that the pattern tells."""
    unit = tuple(n // 2 for n in clipped.grid)
    seen = clipped.box(unit)
    if seen is None or any(math.isinf(s) for s in seen):
        return True
    inside = all(seen[2 * a] > 0 and seen[2 * a + 1] < n - 1 for a, n in enumerate(input_size))
    return not inside or seen == pattern.box(unit)
