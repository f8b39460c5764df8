"""The theoretical receptive field of a layer's units: boxes, sets, stride, padding, alignment, causes, halo.

Two runs of the model are read (`erflab.theory.runs`). The one at the real input size gives every unit's *clipped* field
exactly, reflections at the borders and all; the one at a virtual size gives the *unclipped* field of any unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from erflab.errors import TargetError, TheoryError, closest
from erflab.models import frozen
from erflab.target import Layout
from erflab.theory.halo import halo_of, total_stride
from erflab.theory.runs import LayerKey, Traces, image_shape, layer_key, read_pattern
from erflab.theory.support import Support, as_support, read_support
from erflab.theory.trace import Graph
from erflab.theory.units import Pattern, UnitBoxes, as_box, detect_layout, find_pattern, unit_boxes

Unit = str | Sequence[int]


@dataclass(frozen=True)
class TheoreticalField:
    """What the units of one layer can see. All boxes are inclusive (y0, y1, x0, x1) in px of the input.

    size: (y, x) side of a unit's unclipped box, the largest over units where they differ; `math.inf` for a global axis;
        None per axis where no unclipped box is known (`reason` says why).
    stride, padding: unit i's box begins at i * stride - padding; None per axis where that is not so.
    aligned: whether stride and size are the same for all units on both axes.
    causes: all modules on the way that make the field global, in execution order.
    untracked: modules in which dependence was lost (`.item()`, numpy) before the layer's output was made.
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
    is_local: bool = False
    graph: Graph | None = field(default=None, repr=False, compare=False)  # the run at the real size
    interior: Graph | None = field(default=None, repr=False, compare=False)  # the run that shows the pattern

    def __repr__(self) -> str:
        """The numbers that are the same for all units; the boxes of each would fill the screen."""
        return (
            f"TheoreticalField({self.layer!r}, size={self.size}, stride={self.stride}, padding={self.padding}, "
            f"input_size={tuple(self.input_size)}, unit={self.unit})"
        )

    @property
    def grid(self) -> tuple[int, ...]:
        """Units per image axis, (rows, columns)."""
        return self.layout.grid

    @property
    def local(self) -> TheoreticalField:
        """The field without its global side paths."""
        return self if self.cut is None else replace(self.cut, unit=self.unit)

    @property
    def size(self) -> tuple[float | None, ...]:
        """Side of a unit's unclipped box per axis, in px."""
        if self.pattern is None:
            return tuple(math.inf if self._unbounded(axis) else None for axis in range(len(self.grid)))
        boxes = [b for b in map(as_box, self.pattern.phases()) if b is not None]
        return tuple(max((b[2 * a + 1] - b[2 * a] + 1 for b in boxes), default=0) for a in range(len(self.grid)))

    @property
    def stride(self) -> tuple[int | None, ...]:
        """Px between the fields of neighbouring units per axis; None too where units see nothing (behind a cut)."""
        if self.pattern is None:
            return (None,) * len(self.grid)
        found = zip(self.pattern.period, self.pattern.shift, self.size, strict=True)
        return tuple(int(shift) if period == 1 and size not in (0, math.inf) else None for period, shift, size in found)

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
        """Unclipped box of a unit; it may reach outside the image. None if unknown (see `reason`) or if it sees nothing.

        The axes of the image are followed one by one, and the box is the hull of what is seen on each. Where some unit on
        the way sees nothing by one axis alone (its rows lie in the padding, or between the taps of a transposed
        convolution) and is joined with others that do see something, its columns still count: the box may then exceed the
        hull of `support()`, which is exact, and never falls short of it.
        """
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

    def support(self, unit: Unit | None = None, *, clipped: bool = True) -> Support:
        """The exact set of pixels that a unit can see, with its holes.

        Clipped, it lies on the pixels of the image, whatever happens at the borders (reflection, say) included. Unclipped,
        it lies on the unit's unclipped box, which may reach outside the image.

        Raises TheoryError if no unclipped set is known (the field is global, or `reason` says why), and
        UnknownOperationError for an operation that the support table has no rule for.
        """
        index = self.resolve(unit)
        if clipped:
            assert self.graph is not None
            return as_support(self._set(self.graph, self.layout, index))
        whole = self.box(index)
        if self.pattern is None or self.interior is None or whole is None or math.inf in map(abs, whole):
            raise TheoryError(
                f"layer {self.layer!r} has no unclipped set: {self._why_unbounded()}. Ask for the clipped one, or for .local."
            )
        twin, moved = self.pattern.twin(index)
        pixels = self._set(self.interior, replace(self.layout, grid=self.pattern.interior.grid), twin)
        for axis, shift in enumerate(moved):
            first, last = int(whole[2 * axis] - shift), int(whole[2 * axis + 1] - shift)
            pixels = pixels.narrow(axis, first, last - first + 1)
        return as_support(pixels, [int(b) for b in whole[::2]])

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Px per axis to which tiles (or crops) must be aligned for the whole computation up to this layer to move along.

        The least common multiple of all strides passed: a decoder's inner strides count, though its own stride be 1.
        Raises TheoryError if the pattern of units is not known.
        """
        if self.pattern is None or self.interior is None:
            raise TheoryError(f"layer {self.layer!r} has no known stride: {self._why_unbounded()}.")
        return total_stride(self.interior, self.interior.layers[self.layer, self.call])

    def halo(self) -> tuple[int, ...]:
        """(top, bottom, left, right): px of overlap that tiled inference needs for exact results at this layer.

        Cut the image into tiles whose borders lie at multiples of `total_stride` (or at the image's own borders). Run the
        network on each tile of rows [a, b) extended to [a - top, b + bottom), clipped to the image, and columns likewise;
        keep the units whose cells lie in the tile: with `stride` s those numbered a / s to b / s - 1 in the whole map. They
        are then what inference on the whole image gives. The halo is what the boxes of these units see outside the tile,
        rounded up to the total stride, so that the extended tile starts on the network's own grid.

        Raises TheoryError if the field is global (no overlap is enough) or cannot be known.
        """
        if self.is_global or self.pattern is None or self.untracked:
            raise TheoryError(f"no overlap makes tiles exact at layer {self.layer!r}: {self._why_unbounded()}.")
        return halo_of(self.pattern, self.total_stride)

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
        if self._centre_box(self.resolve()) is None:
            return "grid cell"
        return "local box" if self.is_global else "full box"

    def resolve(self, unit: Unit | None = None) -> tuple[int, ...]:
        """A unit as grid indices. "center" has its centre nearest the image's (ties: the lower index); "corner" is the first.

        Raises TargetError for an index outside the grid.
        """
        if unit is None:
            return self.unit or self._central_unit()
        if isinstance(unit, str):
            if unit == "corner":
                return (0,) * len(self.grid)
            if unit != "center":
                raise TargetError(
                    f"unit {unit!r}; give center, corner or indices on the {self.grid} grid."
                    f"{closest(unit, ('center', 'corner'))}"
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

    def _set(self, graph: Graph, layout: Layout, unit: Sequence[int]) -> Tensor:
        return read_support(graph, graph.layers[self.layer, self.call], layout, unit, local=self.is_local)

    def _why_unbounded(self) -> str:
        if self.is_global:
            return f"its field is global, by {', '.join(self.causes)}"
        if self.untracked:
            return f"the dependence was lost in {', '.join(self.untracked)}"
        return self.reason or "its units see nothing"

    def _unbounded(self, axis: int) -> bool:
        found = self.clipped.box([n // 2 for n in self.grid])
        return found is not None and math.inf in found[2 * axis : 2 * axis + 2]

    def _without_pattern(self, index: tuple[int, ...]) -> tuple[float, ...] | None:
        """At the real size alone, an unbounded box is known, and no other."""
        if not all(self._unbounded(a) for a in range(len(self.grid))):
            return None
        return self.clipped.box(index)


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
    pattern, reason, interior = virtual.pattern, virtual.reason, virtual.graph
    if pattern is None and not boxes.fixed_grids:
        pattern, interior = find_pattern(clipped, traces.input_size), traces.real
    elif pattern is not None and not _agree(pattern, clipped, traces.input_size):
        pattern, reason = None, "the field depends on the input size beyond its borders"
    causes = boxes.causes if virtual.causes is None else virtual.causes
    if pattern is not None and not any(-math.inf in edges for edges in pattern.phases()):
        causes = frozenset()  # windows that wrap round the image are global at its borders only
    return TheoreticalField(
        *key,
        traces.input_size,
        layout,
        clipped,
        pattern,
        reason=None if pattern else reason,
        causes=traces.real.in_order(causes),
        untracked=traces.real.untracked(traces.real.layers[key]),
        cut=read_layer(traces, key, kind, grid, local=True) if causes and not local else None,
        is_local=local,
        graph=traces.real,
        interior=interior,
    )


def _agree(pattern: Pattern, clipped: UnitBoxes, input_size: tuple[int, ...]) -> bool:
    """Whether the middle unit's box, where it lies inside the real image, is the one that the pattern tells."""
    unit = tuple(n // 2 for n in clipped.grid)
    seen = clipped.box(unit)
    if seen is None or any(math.isinf(s) for s in seen):
        return True
    inside = all(seen[2 * a] > 0 and seen[2 * a + 1] < n - 1 for a, n in enumerate(input_size))
    return not inside or seen == as_box(pattern.edges(unit))
