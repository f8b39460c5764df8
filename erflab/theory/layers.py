"""The theoretical fields of all layers of a model at once, as a table; on request with the predicted sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from torch import nn
from tqdm import tqdm

from erflab.errors import MeasurementError, TargetError, TheoryError
from erflab.models import frozen
from erflab.target import OUTPUT
from erflab.theory.box import TooLargeError, core
from erflab.theory.field import TheoreticalField
from erflab.theory.layer import read_layer
from erflab.theory.layer_table import NO_GRID, Finding, LayerRow, LayerTable, lost
from erflab.theory.predicted import Predictor
from erflab.theory.runs import LayerKey, Traces, image_shape
from erflab.theory.trace import Value


def theoretical_fields(
    model: nn.Module,
    input_size: Sequence[int] = (224, 224),
    *,
    channels: int | None = None,
    predicted: bool = False,
    progress: bool = False,
) -> LayerTable:
    """The theoretical fields of every layer, in the order in which the modules finish; the model runs on shapes alone.

    Args:
        model: any module on images [B, channels, *input_size]; left as it was.
        input_size: px per image axis.
        channels: input channels; None takes those of the model's first convolution.
        predicted: also predict the field of every layer's centre unit, as `with_predictions` does.
        progress: show a bar while predicting.

    Raises:
        UnknownOperationError: an operation that the table has no rule for.
        TheoryError: the model does not run at this size.
    """
    shape = image_shape(model, input_size, channels)
    with frozen(model):
        traces = Traces(model, shape, all_layers=True)
        traces.refuse_if_cut_short()
        rows = list(_rows(traces, {name or OUTPUT: type(part).__name__ for name, part in model.named_modules()}))
    table = LayerTable(rows, shape[2:])
    return with_predictions(table, model, channels=channels, progress=progress) if predicted else table


def with_predictions(
    table: LayerTable, model: nn.Module, *, channels: int | None = None, progress: bool = False
) -> LayerTable:
    """The table of a model, or a part of it, with the sigma that the weights predict for each layer's centre unit.

    The mean field's variant is "data_free". A forward pass serves all layers; then each takes a backward pass, about as long
    as a gradient of that layer. A layer that cannot be predicted keeps the reason in `prediction`.
    """
    predictor = Predictor(model, table.input_size, channels=channels)
    found: dict[Value | None, Finding] = {None: Finding(reason=NO_GRID)}
    for row in tqdm(table, desc="predicted fields", unit="layer", leave=False, disable=None if progress else True):
        if row.field is not None and _value(row) not in found:
            found[_value(row)] = _predict(predictor, row.field)
    return LayerTable([replace(row, prediction=found[_value(row)]) for row in table], table.input_size)


def _value(row: LayerRow) -> Value | None:
    """What the row's units are, which a container shares with the last module in it; None without a grid."""
    if row.field is None or row.field.graph is None:
        return None
    return row.field.graph.layers[row.layer, row.call]


def _predict(predictor: Predictor, field: TheoreticalField) -> Finding:
    if field.untracked:
        return Finding(reason=lost(field))
    try:
        return Finding(predictor.predict(field).sigma)
    except (TheoryError, MeasurementError) as error:
        return Finding(reason=str(error))


def _rows(traces: Traces, kinds: dict[str, str]) -> Iterator[LayerRow]:
    """A row a layer. A container shares its value, and so its field, with the last module in it."""
    fields: dict[Value, TheoreticalField | None] = {}
    for key, value in traces.real.layers.items():
        if value not in fields:
            fields[value] = _field(traces, key)
        found = fields[value]
        if found is not None:
            found = replace(found, layer=key[0], call=key[1])
        yield LayerRow(*key, kinds[key[0]], value.shape, found, *_reach(traces, key))


def _field(traces: Traces, key: LayerKey) -> TheoreticalField | None:
    try:
        return read_layer(traces, key)
    except TargetError:
        return None


def _reach(traces: Traces, key: LayerKey) -> tuple[tuple[bool, ...], tuple[str, ...]]:
    """Per axis, whether some output sees the whole of any image, and the modules that make it so.

    Told at the first virtual size, where a field that merely covers the real image shows its bounds. For a layer that takes
    the real size only (a fully connected one), that image is any image.
    """
    virtual = next(traces.virtual())
    if key in virtual.layers:
        with suppress(TooLargeError):
            found = traces.boxes(virtual, key)
            endless = [bool((core(edge) == -math.inf).any()) for edge in found.edges[::2]]
            return tuple(endless), tuple(sorted(found.causes))
    found = traces.boxes(traces.real, key)
    sides = [float(core(edge).amin()) for edge in found.edges]
    axes = zip(sides[::2], sides[1::2], traces.input_size, strict=True)
    whole = [
        -math.inf in (first, last) or (key not in virtual.layers and first <= 0 and last <= 1 - n)
        for first, last, n in axes
    ]
    return tuple(whole), tuple(sorted(found.causes))
