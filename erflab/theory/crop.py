"""The part of an image that is enough to compute a unit exactly, as the model itself would at that size.

A crop that begins at a multiple of the total stride, and is as long as the image modulo it, is met by every layer in the
phase in which the image is met. It holds what the unit sees, or ends where the image does; so the model's own padding falls
where it fell. That this is enough is not taken for granted: the model is traced at the crop's size, and the computation of
the unit compared with that in the whole image, call by call (`erflab.theory.cones`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from erflab.errors import TheoryError
from erflab.models import frozen
from erflab.target import Layout
from erflab.theory.cones import Cone, input_offset
from erflab.theory.field import TheoreticalField
from erflab.theory.runs import Traces
from erflab.theory.support import unit_mark
from erflab.theory.trace import Graph

Units = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Crop:
    """A part of an image: its first row and column, and its height and width, all in px, of an image of `input_size`."""

    origin: tuple[int, ...]
    size: tuple[int, ...]
    input_size: tuple[int, ...]

    @property
    def share(self) -> float:
        """The share of the image's pixels."""
        return math.prod(self.size) / math.prod(self.input_size)

    def of(self, images: Tensor) -> Tensor:
        """Images [B, K, *image axes] cut to the crop, without copying."""
        for axis, (start, length) in enumerate(zip(self.origin, self.size, strict=True), 2):
            images = images.narrow(axis, start, length)
        return images

    def layout(self, field: TheoreticalField) -> Layout:
        """How the layer's output holds its grid in the crop. Raises TheoryError where the grid does not move along."""
        left = [n - m for n, m in zip(self.input_size, self.size, strict=True)]
        units = [n - k for n, k in zip(field.grid, _steps(field, left), strict=True)]
        return Layout(field.layout.kind, tuple(units), field.layout.prefix)

    def units(self, field: TheoreticalField, units: Units) -> tuple[tuple[int, ...], ...]:
        """The indices that units of the whole image have in the crop. Raises TheoryError as `layout` does."""
        before = _steps(field, self.origin)
        return tuple(tuple(u - k for u, k in zip(unit, before, strict=True)) for unit in units)


def _steps(field: TheoreticalField, lengths: Sequence[int]) -> list[int]:
    """How many units these lengths of px are, per axis."""
    if field.pattern is None:
        raise TheoryError(f"the units of layer {field.layer!r} do not repeat over the image")
    steps = []
    for length, shift, period in zip(lengths, field.pattern.shift, field.pattern.period, strict=True):
        if length and (shift <= 0 or length % shift):
            raise TheoryError(
                f"the units of layer {field.layer!r} move by {shift:g} px, of which {length} px is no multiple"
            )
        steps.append(int(length // shift) * period if length else 0)
    return steps


def find_crop(model: nn.Module, targets: Sequence[tuple[TheoreticalField, Units]], channels: int) -> Crop:
    """The smallest crop aligned to the total stride on which units of some layers are what they are on the whole image.

    Exact, for every image: the units' outputs, and the gradients with respect to the crop's pixels; those of all others are
    zero.

    Args:
        model: the module that the fields were read from; it is traced at the crop's size and left as it was.
        targets: fields at one input size, each with units as indices on its grid.
        channels: those of the images.

    Raises:
        TheoryError: there is no such crop, and why: the field is global or unknown, dependence was lost, the model does not
            run at that size, or an operation does something else there (position embeddings, rolls, resizing).
    """
    for field, _ in targets:
        _refuse_unbounded(field)
    crop = _aligned(targets)
    if crop.size == crop.input_size:
        raise TheoryError(f"what is seen takes up the whole image of {crop.input_size} px")
    with frozen(model):
        run = Traces(model, (1, channels, *crop.size)).real
    for field, units in targets:
        _refuse_changed(run, crop, field, units)
    return crop


def _refuse_unbounded(field: TheoreticalField) -> None:
    if field.is_global:
        raise TheoryError(f"the field of layer {field.layer!r} is global, by {', '.join(field.causes[:4])}")
    if field.untracked:
        raise TheoryError(f"the dependence of layer {field.layer!r} was lost in {', '.join(field.untracked[:4])}")
    if field.pattern is None:
        raise TheoryError(f"the field of layer {field.layer!r} is not known: {field.reason}")


def _aligned(targets: Sequence[tuple[TheoreticalField, Units]]) -> Crop:
    """The smallest crop on the grid of the total stride that holds what all units see, in the image and by its pattern."""
    fields = [field for field, _ in targets]
    boxes = [b for field, units in targets for unit in units for b in (field.box(unit), field.clipped_box(unit)) if b]
    if not boxes:
        raise TheoryError(f"the units of layer {fields[0].layer!r} see nothing")
    layers = {(field.layer, field.call): field for field in fields}.values()
    strides = [field.total_stride for field in layers]
    origin, size = [], []
    for axis, length in enumerate(fields[0].input_size):
        step = math.lcm(*(stride[axis] for stride in strides))
        start = max(0, int(min(b[2 * axis] for b in boxes))) // step * step
        stop = min(length, int(max(b[2 * axis + 1] for b in boxes)) + 1)
        origin.append(start)
        size.append(length - start - (length - stop) // step * step)
    return Crop(tuple(origin), tuple(size), fields[0].input_size)


def _refuse_changed(run: Graph, crop: Crop, field: TheoreticalField, units: Units) -> None:
    """Raise TheoryError unless the units are the same function of the crop in the `run` at its size."""
    assert field.graph is not None
    where = f"at {' x '.join(map(str, crop.size))} px, unlike at {' x '.join(map(str, crop.input_size))} px,"
    key = (field.layer, field.call)
    if key not in run.layers:
        raise TheoryError(f"{where} layer {field.layer!r} is not reached: {run.failure}")
    try:
        whole = _cone(field.graph, field, field.layout, units)
        offset = input_offset(whole, _cone(run, field, crop.layout(field), crop.units(field, units)))
    except TheoryError as error:
        raise TheoryError(f"{where} {error}") from error
    if offset is None or offset[2:] != crop.origin:
        raise TheoryError(f"{where} layer {field.layer!r} sees pixels that lie elsewhere")


def _cone(graph: Graph, field: TheoreticalField, layout: Layout, units: Units) -> Cone:
    value = graph.layers[field.layer, field.call]
    return graph, {value: unit_mark(value, layout, units)}
