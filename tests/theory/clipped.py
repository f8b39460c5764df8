"""Clipped boxes at one input size, without the runs at virtual sizes that unclipped ones need."""

from __future__ import annotations

from torch import nn

from erflab.models import frozen
from erflab.target import OUTPUT
from erflab.theory.field import TheoreticalField
from erflab.theory.reading import read_boxes
from erflab.theory.trace import trace
from erflab.theory.units import detect_layout, unit_boxes


def clipped_fields(
    net: nn.Module, size: tuple[int, ...], layers: list[str] | None = None, kind: str = "auto"
) -> list[TheoreticalField]:
    """The fields of the named layers that have a grid (all, if none are named), first calls, with clipped boxes only."""
    with frozen(net):
        graph = trace(net, (1, 3, *size))
    assert graph.failure is None, graph.failure
    found = read_boxes(graph, graph.layers.values())
    fields = []
    for (name, call), value in graph.layers.items():
        layout = detect_layout(found[value], size, kind)
        if layout is not None and call == 0 and (layers is None or name in layers):
            fields.append(TheoreticalField(name, call, size, layout, unit_boxes(found[value], layout), None))
    return fields


def clipped_output(net: nn.Module, size: tuple[int, ...]) -> TheoreticalField:
    """The field of the model's own output [B, C, H, W]."""
    (field,) = clipped_fields(net, size, [OUTPUT], "nchw")
    return field
