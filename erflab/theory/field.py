"""The theoretical receptive field of a layer's units: boxes, stride, padding, alignment, causes.

Two runs of the model are read. One at the real input size gives every unit's *clipped* box exactly, reflections at the
borders and all. One at a much larger virtual size, congruent to the real one modulo the strides, has an interior that no
border reaches: there the boxes repeat, and the pattern gives the *unclipped* box of any unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from erflab.errors import TargetError, TheoryError, closest
from erflab.models import frozen
from erflab.target import OUTPUT, Layout, resolve_layer
from erflab.theory.box import TooLargeError
from erflab.theory.reading import read_boxes
from erflab.theory.trace import Graph, Value, trace
from erflab.theory.units import Pattern, UnitBoxes, as_box, detect_layout, find_pattern, unit_boxes

# The virtual size is the real one plus a multiple of this: 2^8 * 3 * 5 keeps it congruent modulo every usual total stride.
VIRTUAL_STEP = 3840
VIRTUAL_STEPS = (1, 2, 4)

Unit = str | Sequence[int]


@dataclass(frozen=True)
class TheoreticalField:
    """What the units of one layer can see. All boxes are inclusive (y0, y1, x0, x1) in px of the input.

    size: (y, x) side of a unit's unclipped box, the largest over units where they differ; `math.inf` for a global axis;
        None per axis where no unclipped box is known (`reason` says why).
    stride, padding: unit i's box begins at i * stride - padding; None per axis where that is not so.
    aligned: whether stride and size are the same for all units on both axes.
    causes: the modules that make the field global. untracked: modules in which the dependence was lost.
    local: the field with reductions over a whole image axis cut; the same object where there is none.
    """

    layer: str
    call: int
    input_size: tuple[int, ...]
    layout: Layout
    clipped: UnitBoxes
    pattern: Pattern | None
    reason: str | None = None
    causes: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()
    cut: TheoreticalField | None = field(default=None, repr=False)
    unit: tuple[int, ...] = ()

    @property
    def grid(self) -> tuple[int, ...]:
        """Units per image axis, (rows, columns)."""
        return self.layout.grid

    @property
    def local(self) -> TheoreticalField:
        """The field without its global side paths."""
        return self.cut or self

    @property
    def size(self) -> tuple[float | None, ...]:
        """Side of a unit's unclipped box per axis, in px."""
        if self.pattern is None:
            return tuple(math.inf if self._unbounded(axis) else None for axis in range(len(self.grid)))
        boxes = [b for b in map(as_box, self.pattern.phases()) if b is not None]
        return tuple(max((b[2 * a + 1] - b[2 * a] + 1 for b in boxes), default=0) for a in range(len(self.grid)))

    @property
    def stride(self) -> tuple[int | None, ...]:
        """Px between the fields of neighbouring units per axis."""
        if self.pattern is None:
            return (None,) * len(self.grid)
        found = zip(self.pattern.period, self.pattern.shift, self.size, strict=True)
        return tuple(int(shift) if period == 1 and size != math.inf else None for period, shift, size in found)

    @property
    def padding(self) -> tuple[int | None, ...]:
        """Px by which unit 0's field begins before the image, per axis."""
        if self.pattern is None:
            return (None,) * len(self.grid)
        edges = self.pattern.edges((0,) * len(self.grid))
        return tuple(None if s is None else int(-edges[2 * axis]) for axis, s in enumerate(self.stride))

    @property
    def aligned(self) -> bool:
        """Whether every unit has the same field, moved by a constant stride."""
        return None not in self.stride

    @property
    def is_global(self) -> bool:
        """Whether some axis is unbounded. (A field that merely covers the image at this input size is not.)"""
        return math.inf in self.size

    def box(self, unit: Unit | None = None) -> tuple[float, ...] | None:
        """Unclipped box of a unit; it may reach outside the image. None if unknown (see `reason`) or if it sees nothing."""
        index = self.resolve(unit)
        if self.pattern is None:
            return self._without_pattern(index)
        return as_box(self.pattern.edges(index))

    def clipped_box(self, unit: Unit | None = None) -> tuple[float, ...] | None:
        """The part of the field inside the image."""
        found = self.clipped.box(self.resolve(unit))
        if found is None:
            return None
        limits = [limit for n in self.input_size for limit in (0, n - 1)]
        return tuple(
            max(b, m) if side % 2 == 0 else min(b, m) for side, (b, m) in enumerate(zip(found, limits, strict=True))
        )

    def is_clipped(self, unit: Unit | None = None) -> bool | None:
        """Whether the image border cuts the unit's field; None if the unclipped box is unknown."""
        whole = self.box(unit)
        if whole is None:
            return None
        return any(whole[2 * a] < 0 or whole[2 * a + 1] > n - 1 for a, n in enumerate(self.input_size))

    def center(self, unit: Unit | None = None) -> tuple[float, ...]:
        """The unit's geometric centre in px, the origin of all offsets (`center_rule` says what it is the centre of)."""
        index = self.resolve(unit)
        if (whole := self._centre_box(index)) is not None:
            return tuple((whole[2 * a] + whole[2 * a + 1]) / 2 for a in range(len(self.grid)))
        return tuple((i + 0.5) * n / g - 0.5 for i, n, g in zip(index, self.input_size, self.grid, strict=True))

    @property
    def center_rule(self) -> str:
        """Which box `center` is the centre of: "full box", "local box" (the full field is global), or "grid cell"."""
        if self._centre_box(self.unit) is None:
            return "grid cell"
        return "local box" if self.is_global else "full box"

    def resolve(self, unit: Unit | None = None) -> tuple[int, ...]:
        """A unit as grid indices. "center" has its centre nearest the image's (ties: the lower index); "corner" is the first.

        Raises TargetError for an index outside the grid.
        """
        if unit is None:
            return self.unit
        if isinstance(unit, str):
            if unit == "corner":
                return (0,) * len(self.grid)
            if unit != "center":
                raise TargetError(
                    f"unit {unit!r}; give center, corner or indices on the {self.grid} grid.{closest(unit, ('center', 'corner'))}"
                )
            return self._central_unit()
        index = tuple(u + n if u < 0 else u for u, n in zip(unit, self.grid, strict=False))
        if len(unit) != len(self.grid) or any(not 0 <= u < n for u, n in zip(index, self.grid, strict=True)):
            raise TargetError(
                f"unit {list(unit)} is outside the {'x'.join(map(str, self.grid))} grid of layer {self.layer!r}."
            )
        return index

    def _central_unit(self) -> tuple[int, ...]:
        """Axis by axis, which is enough where centres form a product of rows and columns, as for all but exotic nets."""
        unit = [n // 2 for n in self.grid]
        for axis, n in enumerate(self.grid):
            middle = (self.input_size[axis] - 1) / 2

            def distance(i: int, axis: int = axis, middle: float = middle) -> float:
                return abs(self.center([i if a == axis else u for a, u in enumerate(unit)])[axis] - middle)

            unit[axis] = min(range(n), key=distance)
        return tuple(unit)

    def _centre_box(self, index: tuple[int, ...]) -> tuple[float, ...] | None:
        for candidate in (self, self.local):
            found = candidate.box(index)
            if found is not None and not any(map(math.isinf, found)):
                return found
        return None

    def _unbounded(self, axis: int) -> bool:
        found = self.clipped.box([n // 2 for n in self.grid])
        return found is not None and math.inf in found[2 * axis : 2 * axis + 2]

    def _without_pattern(self, index: tuple[int, ...]) -> tuple[float, ...] | None:
        """At the real size alone, an unbounded box is known, and no other."""
        if not all(self._unbounded(a) for a in range(len(self.grid))):
            return None
        return self.clipped.box(index)


@dataclass
class Traces:
    """The runs of one model at its real input size and at virtual ones, made when first asked for."""

    model: nn.Module
    input_shape: tuple[int, ...]
    _runs: dict[int, Graph] = field(default_factory=dict)

    @property
    def input_size(self) -> tuple[int, ...]:
        """The image axes' lengths in px."""
        return self.input_shape[2:]

    @property
    def real(self) -> Graph:
        """The run at the real size, on real data if the model cannot do without. Raises TheoryError if it cannot run."""
        if 0 not in self._runs:
            graph = trace(self.model, self.input_shape)
            if graph.failure is not None:
                graph = trace(self.model, self.input_shape, meta=False)
            if graph.failure is not None and not graph.layers:
                self._refuse(graph)
            self._runs[0] = graph
        return self._runs[0]

    def refuse_if_cut_short(self) -> None:
        """Raise TheoryError if the real run ended early."""
        if self.real.failure is not None:
            self._refuse(self.real)

    def _refuse(self, graph: Graph) -> None:
        text = str(graph.failure).strip().splitlines() or [type(graph.failure).__name__]
        raise TheoryError(f"the model does not run at input size {self.input_size}: {text[0]}") from graph.failure

    def virtual(self) -> Iterator[Graph]:
        """The runs at virtual sizes, smallest first; a run that ended early has only the layers before its end."""
        for steps in VIRTUAL_STEPS:
            if steps not in self._runs:
                grown = (*self.input_shape[:2], *(n + steps * VIRTUAL_STEP for n in self.input_size))
                self._runs[steps] = trace(self.model, grown)
            yield self._runs[steps]


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
    shape = (1, channels or input_channels(model), *(int(n) for n in input_size))
    with frozen(model):
        traces = Traces(model, shape)
        key = _resolve(traces, layer)
        found = _read_layer(traces, key, layout, tuple(grid) if grid else None)
    return replace(found, unit=found.resolve(unit))


def input_channels(model: nn.Module) -> int:
    """The channels that the model's first convolution takes (3 if it has none)."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return module.in_channels
    return 3


def _resolve(traces: Traces, layer: str | None) -> tuple[str, int]:
    if layer is None:
        return last_spatial_layer(traces)
    try:
        return resolve_layer(layer, traces.real.calls)
    except TargetError:
        traces.refuse_if_cut_short()  # then the size is to blame, not the name
        raise


def last_spatial_layer(traces: Traces) -> tuple[str, int]:
    """The model's own output when it is spatial, else the last module with more than one position.

    Fixed-grid adaptive pools are passed over, which takes the virtual size to tell.
    """
    virtual = next(traces.virtual())
    graph = virtual if any(_has_positions(v, virtual) for v in virtual.layers.values()) else traces.real
    boxes = read_boxes(graph, graph.layers.values())
    keys = [key for key in graph.layers if key[0] == OUTPUT] + list(graph.layers)[::-1]
    for key in keys:
        found = boxes[graph.layers[key]]
        if not found.fixed_grids and detect_layout(found, graph.input_size) is not None:
            return key
    raise TargetError("the model has no layer with more than one position; it has no receptive field over an image.")


def _has_positions(value: Value, graph: Graph) -> bool:
    return len(value.shape) == len(graph.input.shape) and math.prod(value.shape[2:]) > 1


@dataclass(frozen=True)
class _Pattern:
    """What the virtual runs told of a layer: the pattern, or why there is none."""

    pattern: Pattern | None = None
    reason: str | None = None
    causes: frozenset[str] | None = None
    kind: str = "auto"


def _read_layer(
    traces: Traces, key: tuple[str, int], kind: str, grid: tuple[int, ...] | None, *, local: bool = False
) -> TheoreticalField:
    """One reading of one layer: clipped boxes from the real run, the pattern from a virtual one."""
    value = traces.real.layers[key]
    boxes = read_boxes(traces.real, [value], local=local)[value]
    virtual = _virtual_pattern(traces, key, kind, local)
    layout = detect_layout(boxes, traces.input_size, virtual.kind, grid)
    if layout is None:
        raise TargetError(
            f"layer {key[0]!r} has output shape {boxes.shape}, which has no grid of more than one unit; choose an earlier "
            "layer, or set target.layout (and target.grid for tokens) if it has one."
        )
    clipped = unit_boxes(boxes, layout)
    pattern, reason = virtual.pattern, virtual.reason
    if pattern is None and not boxes.fixed_grids:
        pattern = find_pattern(clipped, traces.input_size)
    elif pattern is not None and not _agree(pattern, clipped, traces.input_size):
        pattern, reason = None, "the field depends on the input size beyond its borders"
    causes = boxes.causes if virtual.causes is None else virtual.causes
    untracked = tuple(dict.fromkeys(traces.real.untracked))
    found = TheoreticalField(
        *key, traces.input_size, layout, clipped, pattern, None if pattern else reason, tuple(sorted(causes)), untracked
    )
    return replace(found, cut=_read_layer(traces, key, kind, grid, local=True)) if causes and not local else found


def _virtual_pattern(traces: Traces, key: tuple[str, int], kind: str, local: bool) -> _Pattern:
    """The layer's pattern at the smallest virtual size whose interior is free of borders."""
    reason = None
    for graph in traces.virtual():
        if key not in graph.layers:
            return _Pattern(
                reason=f"the model refuses a virtual input of {graph.input_size} px: {graph.failure}", kind=kind
            )
        try:
            value = graph.layers[key]
            boxes = read_boxes(graph, [value], local=local)[value]
        except TooLargeError as error:
            return _Pattern(reason=str(error), kind=kind)
        layout = detect_layout(boxes, graph.input_size, kind)
        if boxes.fixed_grids or layout is None:
            pools = ", ".join(sorted(boxes.fixed_grids)) or "a layer"
            return _Pattern(
                reason=f"{pools} gives a fixed number of positions, so the field scales with the image", kind=kind
            )
        pattern = find_pattern(unit_boxes(boxes, layout), graph.input_size)
        if pattern is not None:
            return _Pattern(pattern, None, boxes.causes, layout.kind)
        reason = f"the field is larger than {graph.input_size} px, or does not repeat within 64 units"
    return _Pattern(reason=reason, kind=kind)


def _agree(pattern: Pattern, clipped: UnitBoxes, input_size: tuple[int, ...]) -> bool:
    """Whether the middle unit's box, where it lies inside the real image, is the one that the pattern tells."""
    unit = tuple(n // 2 for n in clipped.grid)
    seen = clipped.box(unit)
    if seen is None or any(math.isinf(s) for s in seen):
        return True
    inside = all(seen[2 * a] > 0 and seen[2 * a + 1] < n - 1 for a, n in enumerate(input_size))
    return not inside or seen == as_box(pattern.edges(unit))
