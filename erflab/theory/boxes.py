"""The boxes of one tensor's elements: what the box reading keeps of a value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from erflab.theory import box


@dataclass(frozen=True)
class Boxes:
    """The boxes of all elements of one tensor, [B, C, *positions] in any order of dimensions.

    `terms` holds two edges per image axis, first pixels and minus last pixels, each as the terms it is the minimum of;
    `causes` the modules that made an axis unbounded; `fixed_grids` the modules that tie the field to the input size by
    pooling to a fixed number of bins; `blank` what the elements that see nothing are (0, -inf), if that is known of all;
    `own` the terms along each element's own path: without what spans the image, and without attention of several positions to
    the same keys, those of a window (None where there is neither). It tells further modules that span the image, and where the
    element has its place.
    """

    shape: tuple[int, ...]
    terms: tuple[box.Terms, ...]
    causes: frozenset[str] = frozenset()
    fixed_grids: frozenset[str] = frozenset()
    blank: float | None = None
    own: tuple[box.Terms, ...] | None = None

    @cached_property
    def edges(self) -> tuple[Tensor, ...]:
        """The edges themselves. Raises TooLargeError where one does not fit in memory."""
        return tuple(box.joined(terms) for terms in self.terms)

    @property
    def path(self) -> Boxes:
        """The boxes along each element's own path."""
        return self if self.own is None else Boxes(self.shape, self.own, blank=self.blank)
