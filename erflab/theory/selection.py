"""Which layers and units a measurement asks for: names, patterns and lists, read from one tracing of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import nn

from erflab.config import TargetConfig
from erflab.errors import TargetError, closest
from erflab.models import frozen
from erflab.theory.field import TheoreticalField
from erflab.theory.layer import read_layer
from erflab.theory.runs import LayerKey, Traces, image_shape, layer_key

ALL = "all"


def target_fields(
    model: nn.Module, target: TargetConfig, input_size: Sequence[int], channels: int | None = None
) -> list[TheoreticalField]:
    """The theoretical field of every unit of every layer that `target` names, layers in execution order.

    `target.layer` is a name, "all", a pattern whose `*` stands for one part of a dotted name (`layer*`, `blocks.*.conv_pw`),
    or a list of these. A pattern takes the layers whose output is a grid of units and passes over the others.

    Raises:
        TargetError: no such layer or unit; a pattern that fits no layer with a grid.
        UnknownOperationError, TheoryError: as for `theoretical_field`.
    """
    shape = image_shape(model, input_size, channels)
    grid = tuple(target.grid) if target.grid else None
    with frozen(model):
        traces = Traces(model, shape, all_layers=_is_pattern(target.layer))
        fields = [
            field for layer in _as_list(target.layer) for field in _layer_fields(traces, layer, target.layout, grid)
        ]
    unique = {(field.layer, field.call): field for field in fields}
    order = {key: place for place, key in enumerate(traces.real.layers)}
    chosen = [unique[key] for key in sorted(unique, key=lambda key: order[key])]
    return [replace(field, unit=unit) for field in chosen for unit in _units(field, target)]


def _units(field: TheoreticalField, target: TargetConfig) -> Iterable[tuple[int, ...]]:
    """The units asked for, each once, however often and by whichever name it was."""
    return dict.fromkeys(field.resolve(unit) for unit in target.units)


def _as_list(layer: str | Sequence[str] | None) -> Sequence[str | None]:
    return [layer] if layer is None or isinstance(layer, str) else list(layer)


def _is_pattern(layer: str | Sequence[str] | None) -> bool:
    return any(name == ALL or "*" in name or "?" in name for name in _as_list(layer) if name is not None)


def _layer_fields(
    traces: Traces, layer: str | None, layout: str, grid: tuple[int, ...] | None
) -> Iterator[TheoreticalField]:
    if not _is_pattern(layer):
        yield read_layer(traces, layer_key(traces, layer), layout, grid)
        return
    traces.refuse_if_cut_short()
    keys = _distinct(traces) if layer == ALL else _matching(traces, str(layer))
    found = 0
    for key in keys:
        with suppress(TargetError):  # no grid: a gate, a pooled vector, class scores
            yield read_layer(traces, key, layout, grid)
            found += 1
    if not found:
        names = {name for name, _ in traces.real.layers}
        raise TargetError(f"no layer with a grid of units fits {layer!r}.{closest(str(layer), names)}")


def _distinct(traces: Traces) -> list[LayerKey]:
    """Every call of every module, by its outermost name where a container shares its output with the last module in it."""
    return list({value: key for key, value in traces.real.layers.items()}.values())


def _matching(traces: Traces, pattern: str) -> list[LayerKey]:
    """The last call of every module whose dotted name fits the pattern, part by part."""
    wanted = pattern.split(".")

    def fits(name: str) -> bool:
        parts = name.split(".")
        return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))

    return [(name, count - 1) for name, count in traces.real.calls.items() if fits(name)]
