"""The table of all layers of a model: its rows, and how it is shown to pandas and written to files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from erflab.analysis.sizes import mean_side
from erflab.errors import TargetError, TheoryError, closest
from erflab.target import OUTPUT
from erflab.theory.field import TheoreticalField
from erflab.theory.support import AXES

if TYPE_CHECKING:
    import pandas as pd

NO_GRID = "the layer has no grid of more than one unit"


@dataclass(frozen=True)
class Finding:
    """A number, or the reason why there is none."""

    value: float | None = None
    reason: str | None = None


NOT_ASKED = Finding(reason="not asked for")


def lost(field: TheoreticalField) -> str:
    """The reason why nothing is told of a field that may be larger than it seems."""
    return f"the dependence on the image was lost in {', '.join(name or OUTPUT for name in field.untracked)}"


@dataclass(frozen=True)
class LayerRow:
    """One run of one module: what it is, and what the units of its output can see.

    `shape` is that of the output, [B, C, ...]; `field` is None where the output has no grid of more than one unit (a pooled
    vector, class scores), and then `size` is infinite per axis if the output can see the whole of any image, else None.
    `prediction` is the sigma of the centre unit's predicted field, "data_free", in px.
    """

    layer: str
    call: int
    kind: str
    shape: tuple[int, ...]
    field: TheoreticalField | None = field(repr=False)
    unbounded: tuple[bool, ...] = ()
    graph_causes: tuple[str, ...] = ()
    prediction: Finding = NOT_ASKED

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

    @cached_property
    def gaps(self) -> Finding:
        """The share of its box inside the image that the exact set of the centre unit leaves out: 0 for a set without holes.

        It takes a walk through the layers below, so it is found when first asked for.
        """
        if self.field is None or self.field.is_global:
            return Finding(reason=NO_GRID if self.field is None else "the field is global")
        if self.field.untracked:
            return Finding(reason=lost(self.field))
        try:
            found = self.field.support()
        except TheoryError as error:
            return Finding(reason=str(error))
        return Finding(1 - found.density) if found.area else Finding(reason="the unit sees no pixel")

    @property
    def holes(self) -> float | None:
        """The share of the centre unit's box that its set leaves out (see `gaps`), or None."""
        return self.gaps.value

    @property
    def clipped(self) -> bool | None:
        """Whether the image cuts the centre unit's field, so that its sigma holds at this input size; None if unknown."""
        return None if self.field is None else self.field.is_clipped()

    @property
    def predicted_sigma(self) -> float | None:
        """Sigma of the centre unit's predicted field in px, or None (`prediction` says why)."""
        return self.prediction.value

    @property
    def predicted_over_trf(self) -> float | None:
        """Predicted sigma over the geometric mean of the TRF's sides, as `sigma_over_trf` of a measurement; None if global."""
        side = mean_side(self.size)
        return self.predicted_sigma / side if side and self.predicted_sigma is not None else None

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
        row |= {"aligned": self.aligned, "is_global": self.is_global, "causes": " ".join(self.causes)}
        row |= {"clipped": self.clipped, "holes": self.holes, "holes_reason": self.gaps.reason}
        row |= {"predicted_sigma": self.predicted_sigma, "predicted_over_trf": self.predicted_over_trf}
        return row | {"predicted_reason": self.prediction.reason}


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
