"""From the boxes of a tensor's elements to the boxes of a layer's units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erflab.target import Layout, token_layout
from erflab.theory import box
from erflab.theory.boxes import Boxes

MOST_SKEWED = 1.2
"""By how many octaves the steps of a grid's axes may differ, for a shape alone to be taken for a grid of the image."""

TIE = 0.05
"""Octaves by which the better reading of a shape must be better; channels come first in a tie."""


def detect_layout(
    boxes: Boxes, input_size: tuple[int, ...], kind: str = "auto", grid: tuple[int, ...] | None = None
) -> Layout | None:
    """How the tensor holds its grid: told by the dimensions along which its boxes move over the image, else by its shape.

    None if it has no grid of more than one unit.
    """
    shape, axes = boxes.shape, len(input_size)
    if kind == "auto" and any(0 in box.varies(term) for side in boxes.terms for term in side):
        return None  # positions are folded into the batch, windows say: its other dimensions are no grid of the image
    if kind == "auto":
        kind = _kind_by_boxes(boxes, input_size) or _kind_by_shape(shape, input_size) or "none"
    if kind == "tokens":
        return token_layout(shape[1], input_size, grid) if len(shape) == 3 else None
    if kind not in ("nchw", "nhwc") or len(shape) != axes + 2:
        return None
    found = shape[2:] if kind == "nchw" else shape[1:-1]
    return Layout(kind, tuple(found)) if math.prod(found) > 1 else None


def _kind_by_boxes(boxes: Boxes, input_size: tuple[int, ...]) -> str | None:
    axes = len(input_size)
    moving = [_moving_dim(boxes.edges[2 * a], input_size[a]) for a in range(axes)]
    if (
        set(moving) == {2 + a for a in range(axes)} and len(boxes.shape) == axes + 2
    ):  # in any order: maps are transposed
        return "nchw"
    if set(moving) == {1 + a for a in range(axes)} and len(boxes.shape) == axes + 2:
        return "nhwc"
    if set(moving) == {1} and len(boxes.shape) == 3:
        return "tokens"
    return None


def _moving_dim(edge: Tensor, extent: int) -> int | None:
    """The dimension along which the edge ranges over at least half of the image axis, on most lines.

    (Channels of differing field may differ as much at a border, where one of them wraps round, not everywhere.)
    """
    values = box.core(edge)
    for dim in range(values.dim()):
        if values.shape[dim] > 1:
            spread = (values.amax(dim) - values.amin(dim)).flatten()
            spread = spread[torch.isfinite(spread)]
            if spread.numel() and float(spread.median()) >= extent / 2:
                return dim
    return None


def _kind_by_shape(shape: tuple[int, ...], input_size: tuple[int, ...]) -> str | None:
    if len(shape) == 3 and len(input_size) == 2:
        return "tokens"
    if len(shape) != len(input_size) + 2:
        return None

    def skew(grid: tuple[int, ...]) -> float:
        steps = [math.log2(n / g) for n, g in zip(input_size, grid, strict=True)]
        return max(steps) - min(steps)

    last, middle = skew(shape[1:-1]), skew(shape[2:])
    if min(last, middle) > MOST_SKEWED:
        return None  # heads, tokens and channels of an attention, say
    return "nhwc" if last + TIE < middle else "nchw"


@dataclass(frozen=True)
class UnitBoxes:
    """The edges of every unit of a grid: per image axis the first pixel and minus the last, each a tensor [*grid]."""

    edges: tuple[Tensor, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Units per image axis."""
        return tuple(self.edges[0].shape)

    def box(self, unit: Sequence[int]) -> tuple[float, ...] | None:
        """Inclusive (y0, y1, x0, x1) of one unit in px; None if it sees nothing."""
        values = [float(e[tuple(unit)]) for e in self.edges]
        return as_box(values)


def as_box(edges: Sequence[float]) -> tuple[float, ...] | None:
    """Edges (first, minus last per axis) as an inclusive box; None if empty."""
    if math.inf in edges:
        return None
    signed = (-e if side % 2 else e for side, e in enumerate(edges))
    return tuple(s if math.isinf(s) else int(s) for s in signed)


def unit_boxes(boxes: Boxes, layout: Layout) -> UnitBoxes:
    """The boxes of units: the hull over batch and channels, on the layout's grid."""
    folded = [layout.fold(edge) for edge in boxes.edges]
    return UnitBoxes(tuple(box.spread(box.core(f).amin((0, 1)), layout.grid) for f in folded))
