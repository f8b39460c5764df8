"""The theoretical fields of all layers of a model at once, as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch import nn

from erflab.errors import TargetError, closest
from erflab.models import frozen
from erflab.target import OUTPUT
from erflab.theory.box import TooLargeError, core
from erflab.theory.field import TheoreticalField, read_layer
from erflab.theory.runs import LayerKey, Traces, input_channels
from erflab.theory.support import AXES
from erflab.theory.trace import Value

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LayerRow:
    """One run of one module: what it is, and what the units of its output can see.

    `shape` is that of the output, [B, C, ...]; `field` is None where the output has no grid of more than one unit (a pooled
    vector, class scores), and then `size` is infinite per axis if the output can see the whole of any image, else None.
    """

    layer: str
    call: int
    kind: str
    shape: tuple[int, ...]
    field: TheoreticalField | None = field(repr=False)
    unbounded: tuple[bool, ...] = ()
    graph_causes: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Units per image axis."""
        return None if self.field is None else self.field.grid

    @property
    def size(self) -> tuple[float | None, ...]:
        """Side of a unit's unclipped box in px, per axis (y, x)."""
        if self.field is not None:
            return self.field.size
        return tuple(math.inf if endless else None for endless in self.unbounded)

    @property
    def local_size(self) -> tuple[float | None, ...]:
        """The same of the local field."""
        return self.size if self.field is None else self.field.local.size

    @property
    def stride(self) -> tuple[int | None, ...]:
        """Px between the fields of neighbouring units, of the local field where the full one is global."""
        return self._of_pattern("stride")

    @property
    def padding(self) -> tuple[int | None, ...]:
        """Px by which unit 0's field begins before the image, of the local field where the full one is global."""
        return self._of_pattern("padding")

    @property
    def aligned(self) -> bool | None:
        """Whether all units have the same (local) field, moved by a constant stride; None without a grid."""
        return None if self.field is None else self.field.local.aligned

    @property
    def is_global(self) -> bool:
        """Whether some axis is unbounded."""
        return math.inf in self.size

    @property
    def causes(self) -> tuple[str, ...]:
        """The modules that make the field global."""
        return self.graph_causes if self.field is None else self.field.causes

    def _of_pattern(self, name: str) -> tuple[int | None, ...]:
        if self.field is None:
            return (None,) * len(self.unbounded)
        found: tuple[int | None, ...] = getattr(self.field.local, name)
        return found

    def record(self) -> dict[str, Any]:
        """The row as plain values, one key a column; an infinite size is the word "inf"."""
        axes = AXES[-len(self.unbounded) :]
        row: dict[str, Any] = {"layer": self.layer, "call": self.call, "module": self.kind}
        row["output"] = "x".join(map(str, self.shape[1:]))
        columns = {"grid": self.grid or (None,) * len(axes), "stride": self.stride, "trf": self.size}
        columns |= {"local_trf": self.local_size, "padding": self.padding}
        for name, values in columns.items():
            row |= {f"{name}_{axis}": _plain(value) for axis, value in zip(axes, values, strict=True)}
        return row | {"aligned": self.aligned, "is_global": self.is_global, "causes": " ".join(self.causes)}


def _plain(value: float | None) -> int | str | None:
    if value is None:
        return None
    return "inf" if math.isinf(value) else int(value)


class LayerTable(Sequence[LayerRow]):
    """The rows of `theoretical_fields`, in execution order; a row is also found by its layer's name."""

    def __init__(self, rows: Sequence[LayerRow], input_size: tuple[int, ...]) -> None:
        self.rows = tuple(rows)
        self.input_size = input_size

    @overload
    def __getitem__(self, index: int | str) -> LayerRow: ...
    @overload
    def __getitem__(self, index: slice) -> LayerTable: ...
    def __getitem__(self, index: int | str | slice) -> LayerRow | LayerTable:
        """A row by its number or its layer's name (the last call of a reused module), or a part of the table."""
        if isinstance(index, slice):
            return LayerTable(self.rows[index], self.input_size)
        if isinstance(index, str):
            return next(row for row in reversed(self.rows) if row.layer == self._known(index))
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"LayerTable({len(self)} layers at {'x'.join(map(str, self.input_size))} px)"

    def _known(self, layer: str) -> str:
        names = [row.layer for row in self.rows]
        if layer not in names:
            raise TargetError(f"no layer {layer!r} among the {len(names)} of the table.{closest(layer, names)}")
        return layer

    def records(self) -> list[dict[str, Any]]:
        """The rows as plain values, the same keys in each."""
        return [row.record() for row in self.rows]

    def to_dataframe(self) -> pd.DataFrame:
        """The table for pandas, one column a number and axis (`trf_y`, `trf_x`, ...); whole numbers, "inf", or missing."""
        import pandas as pd

        return pd.DataFrame.from_records(self.records()).convert_dtypes()

    def to_csv(self, path: str | Path) -> None:
        """Write the table, an unknown number as an empty cell."""
        self.to_dataframe().to_csv(path, index=False)

    def to_json(self, path: str | Path) -> None:
        """Write the rows as a list of objects, an unknown number as null."""
        Path(path).write_text(json.dumps(self.records(), indent=1) + "\n", encoding="utf-8")


def theoretical_fields(
    model: nn.Module, input_size: Sequence[int] = (224, 224), *, channels: int | None = None
) -> LayerTable:
    """The theoretical fields of every layer, in the order in which the modules finish; the model runs on shapes alone.

    Args:
        model: any module on images [B, channels, *input_size]; left as it was.
        input_size: px per image axis.
        channels: input channels; None takes those of the model's first convolution.

    Raises:
        UnknownOperationError: an operation that the table has no rule for.
        TheoryError: the model does not run at this size.
    """
    shape = (1, channels or input_channels(model), *(int(n) for n in input_size))
    with frozen(model):
        traces = Traces(model, shape, all_layers=True)
        traces.refuse_if_cut_short()
        rows = list(_rows(traces, {name or OUTPUT: type(part).__name__ for name, part in model.named_modules()}))
    return LayerTable(rows, shape[2:])


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
