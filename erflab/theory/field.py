"""The theoretical receptive field of a layer's units: boxes, sets, stride, padding, alignment, centres, causes, halo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from erflab.errors import TargetError, TheoryError, closest
from erflab.target import Layout
from erflab.theory.center import Center, center_of, central_unit, grid_cell
from erflab.theory.graph import Graph
from erflab.theory.halo import halo_of, total_stride
from erflab.theory.pattern import Pattern
from erflab.theory.support import Support, as_support, read_support, unclipped_support
from erflab.theory.units import UnitBoxes

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
    path: how the boxes of the units' own paths repeat (`erflab.theory.center`); None if that is not known.
    """

    layer: str
    call: int
    input_size: tuple[int, ...]
    layout: Layout
    clipped: UnitBoxes
    pattern: Pattern | None
    path: Pattern | None = None
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
        return self.pattern.size

    @property
    def stride(self) -> tuple[int | None, ...]:
        """Px between the fields of neighbouring units per axis; None too where units see nothing (behind a cut)."""
        return (None,) * len(self.grid) if self.pattern is None else self.pattern.stride

    @property
    def padding(self) -> tuple[int | None, ...]:
        """Px by which unit 0's field begins before the image, per axis."""
        return (None,) * len(self.grid) if self.pattern is None else self.pattern.padding

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
        return self._without_pattern(index) if self.pattern is None else self.pattern.box(index)

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
        assert self.graph is not None
        if clipped:
            value = self.graph.layers[self.layer, self.call]
            return as_support(read_support(self.graph, value, self.layout, index, local=self.is_local))
        whole = self.box(index)
        if self.pattern is None or self.interior is None or whole is None or math.inf in map(abs, whole):
            raise TheoryError(
                f"layer {self.layer!r} has no unclipped set: {self._why_unbounded()}. Ask for the clipped one, or for .local."
            )
        value = self.interior.layers[self.layer, self.call]
        return unclipped_support(self.interior, value, self.layout, self.pattern, index, local=self.is_local)

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
        return self._center(self.resolve(unit)).place

    @property
    def center_rule(self) -> str:
        """What `center` is the centre of: "full box", "local box", "own path", or "grid cell".

        The own path is what is left of the field without attention between positions and without what is global: the
        convolutions and pools that lead to the unit's own place. Its box is the full one, or that of `local`, where the
        field holds nothing else. The grid cell stands for a unit without such a path, or of which none is known.
        """
        return self._center(self.resolve()).rule

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
        return central_unit(lambda unit: self._center(unit).place, self.grid, self.input_size)

    def _center(self, index: Sequence[int]) -> Center:
        own = None if self.path is None else self.path.box(index)
        cell = grid_cell(index, self.grid, self.input_size)
        return center_of(own, self.box(index), self.local.box(index), cell)

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
