"""A theoretical field held against gradients: no input pixel with a non-zero gradient may lie outside a unit's box."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from erflab.models import frozen
from erflab.target import Trunk
from erflab.theory.field import TheoreticalField


@dataclass(frozen=True)
class GradientCheck:
    """One unit's clipped box beside what its gradient shows, both inclusive (y0, y1, x0, x1) in px.

    box: the theory's, None if the unit sees nothing. seen: the hull of the pixels with a non-zero gradient, None if there
    are none. outside: how many of those lie outside the box; any is a violation.
    """

    layer: str
    unit: tuple[int, ...]
    box: tuple[float, ...] | None
    seen: tuple[int, ...] | None
    outside: int

    @property
    def exact(self) -> bool:
        """Whether the gradient fills the box to its edges."""
        return self.box == self.seen


def check_by_gradient(
    model: nn.Module,
    field: TheoreticalField,
    units: Sequence[Sequence[int]],
    *,
    channels: int = 3,
    seed: int = 0,
    positive: bool = False,
) -> list[GradientCheck]:
    """Compare a field's clipped boxes with float64 gradients of a noise image at some units.

    A copy of the model is taken to float64, and parameters that are zero throughout (zero-initialised gammas, projections)
    are drawn anew, since they would hide dependence. A gradient may miss pixels that the field rightly holds (a closed
    ReLU, a cancellation), but must not show others.

    Args:
        model: the model that `field` was derived from.
        field: the theoretical field of one of its layers.
        units: grid indices.
        channels: input channels.
        seed: of the noise image, the redrawn parameters and the channel weights of the unit.
        positive: make all parameters, the image and the channel weights positive, so that in a network without negative
            operations nothing cancels and the gradient fills the box.
    """
    generator = torch.Generator().manual_seed(seed)
    twin = copy.deepcopy(model).double()
    _redraw(twin, generator, positive=positive)
    image = torch.randn((1, channels, *field.input_size), generator=generator, dtype=torch.float64)
    image = (image.abs() if positive else image).requires_grad_()
    with frozen(twin), _reproducible():
        output = Trunk(twin, field.layer, field.call, field.layout)(image)
        weights = torch.randn((output.shape[1],), generator=generator, dtype=torch.float64)
        weights = weights.abs() if positive else weights
        return [_check(field, tuple(unit), output, weights, image) for unit in units]


def _check(
    field: TheoreticalField, unit: tuple[int, ...], output: Tensor, weights: Tensor, image: Tensor
) -> GradientCheck:
    index: tuple[Any, ...] = (0, slice(None), *unit)
    answer = (output[index] * weights).sum()
    (gradient,) = torch.autograd.grad(answer, image, retain_graph=True, allow_unused=True)
    marked = torch.zeros(field.input_size, dtype=torch.bool) if gradient is None else (gradient[0] != 0).any(0)
    box = field.clipped_box(unit)
    return GradientCheck(field.layer, unit, box, _hull(marked), int(marked.sum()) - _count_inside(marked, box))


def _hull(marked: Tensor) -> tuple[int, ...] | None:
    places = marked.nonzero()
    if not len(places):
        return None
    return tuple(int(n) for low, high in zip(places.amin(0), places.amax(0), strict=True) for n in (low, high))


def _count_inside(marked: Tensor, box: tuple[float, ...] | None) -> int:
    if box is None:
        return 0
    for axis, (first, last) in enumerate(zip(box[::2], box[1::2], strict=True)):
        marked = marked.narrow(axis, int(first), int(last - first) + 1)
    return int(marked.sum())


def _redraw(model: nn.Module, generator: torch.Generator, *, positive: bool) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if not bool(parameter.any()):
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.1)
            if positive:
                parameter.abs_()


@contextmanager
def _reproducible() -> Iterator[None]:
    """The random state that a model may draw from is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
