"""The input size at which a field is seen whole."""

from __future__ import annotations

import math

from torch import nn

from erflab.config import TargetConfig
from erflab.theory.field import TheoreticalField, Traces, input_channels, theoretical_field
from erflab.theory.reading import read_boxes
from erflab.theory.units import detect_layout, find_pattern, unit_boxes


def smallest_unclipped_size(
    model: nn.Module,
    layer: str | None,
    *,
    fallback: tuple[int, int],
    limit: int,
    channels: int | None = None,
    target: TargetConfig | None = None,
) -> tuple[int, int] | None:
    """The smallest square input, a multiple of the total stride, in which the centre unit's field lies unclipped.

    None if there is none up to `limit` px, or if the field is global or unknown. `fallback` is a size the model takes.
    """
    spec = target or TargetConfig()

    def at(size: tuple[int, int]) -> TheoreticalField:
        return theoretical_field(model, layer, size, channels=channels, layout=spec.layout, grid=spec.grid)

    field = at(fallback)
    sides = [s for s in field.size if s is not None and math.isfinite(s)]
    if len(sides) < len(field.size) or field.is_global:
        return None
    stride = total_stride(model, field, channels)
    for side in range(math.ceil(max(sides) / stride) * stride, limit + 1, stride):
        if at((side, side)).is_clipped() is False:
            return side, side
    return None


def total_stride(model: nn.Module, field: TheoreticalField, channels: int | None = None) -> int:
    """The least common multiple of the strides of all layers up to the field's own (a decoder's inner stride counts)."""
    traces = Traces(model, (1, channels or input_channels(model), *field.input_size))
    graph = next(traces.virtual())
    keys = list(graph.layers)
    keys = keys[: keys.index((field.layer, field.call)) + 1]
    boxes = read_boxes(graph, [graph.layers[k] for k in keys])
    strides = {1}
    for key in keys:
        found = boxes[graph.layers[key]]
        layout = detect_layout(found, graph.input_size)
        pattern = find_pattern(unit_boxes(found, layout), graph.input_size) if layout and not found.causes else None
        if pattern is not None:
            strides.update(int(s) for s, p in zip(pattern.shift, pattern.period, strict=True) if p == 1 and s > 0)
    return math.lcm(*strides)
