"""What a rule of the box column is given: one ATen call, seen from one side of one image axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from erflab.theory import box
from erflab.theory.graph import Node, Value

APART = 1.0
"""Elements whose boxes begin (or end) so many px apart are not at one position."""


@dataclass
class Call:
    """One node, seen from one side of one image axis.

    `edges` are what the rule reads. Every rule is a minimum over what its outputs read, so a node of several operands, or
    of operands with several terms, is read term by term, the others seeing nothing, and the results joined; `terms` are all
    of them, and `blanks` says of operands with elements that see nothing what those elements are: 0, -inf, or None.
    """

    node: Node
    edges: dict[Value, Tensor]
    image_dims: frozenset[int]  # dimensions of the first operand along which any of its edges varies
    extent: int  # length of the image axis in px
    local: bool  # whether reductions over the whole axis are cut
    own: bool = False  # whether each position keeps to its own path (see `Boxes.own`)
    cut: bool = False  # whether the node is known to reduce the whole axis (see `Graph.cut`)
    terms: dict[Value, box.Terms] = field(default_factory=dict)
    blanks: dict[Value, float | None] = field(default_factory=dict)
    causes: list[str] = field(default_factory=list)  # modules that made the output unbounded, here
    fixed_grids: list[str] = field(default_factory=list)  # modules that pool to a fixed number of bins, here
    spanning: bool = False  # whether a statistic of the whole axis was found, here
    mixing: bool = False  # whether an attention between positions was found, here
    left_out: bool = False  # whether the last reduction along the own path left something out
    blank: float | None = None  # what the output's elements that see nothing are, if it is known

    def edge(self, source: Any) -> Tensor:
        """The edge of one operand, of the operand's shape; a constant sees nothing."""
        return self.edges[source] if isinstance(source, Value) else box.constant(box.NOTHING, source.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the (first) output."""
        return self.node.outputs[0].shape

    @property
    def operation(self) -> str:
        """The operation's name without its namespace and without the underscore of in-place calls."""
        return self.node.op.split(".", 1)[1].rstrip("_")

    def across(
        self,
        edge: Tensor,
        dims: Sequence[int],
        *,
        statistic: bool = True,
        masked: bool = False,
        attention: bool = False,
    ) -> Tensor:
        """Reduce over whole dimensions; unbounded where that joins the whole image axis (nothing, if cut).

        `masked`: the reduction may look back only, and must be found unbounded for a unit in the middle of the image too.
        `attention`: it gives several positions the same keys, which the own path leaves out however near they lie (a window).
        """
        reduced = box.reduce(edge, [d % edge.dim() for d in dims])
        extent = self.extent / 2 if masked else self.extent
        return self._beyond(box.distance(edge, reduced), reduced, statistic, extent, attention)

    def prefix(self, edge: Tensor, dim: int) -> Tensor:
        """Minimum over all positions up to each one; unbounded on the sides that reach back across the whole image axis."""
        values = box.core(edge)
        if values.shape[dim] == 1:
            return values
        if self.own:
            self.across(edge, [dim], statistic=False)
            return values
        prefixes = values.cummin(dim).values
        joined = box.distance(edge, box.reduce(edge, [dim]))
        reaching = self._beyond(joined, prefixes, False, self.extent, False)
        return torch.where(prefixes < values, reaching, prefixes)

    def _beyond(self, joined: Tensor, result: Tensor, statistic: bool, extent: float, attention: bool) -> Tensor:
        """The result of a reduction that `joined` positions so many px apart, without what this reading leaves out."""
        if self.local and statistic and self.cut and not self.own:
            return torch.full_like(result, box.NOTHING)
        spanning = joined >= extent / 2
        self.spanning |= statistic and bool(spanning.all())
        self.mixing |= attention and bool((joined >= APART).any())
        if self.own:
            self.causes += [self.node.module] * (bool(spanning.any()) and not (self.local and statistic))
            cut = joined >= APART if attention else spanning
            self.left_out = bool(cut.any())
            return torch.where(cut, box.NOTHING, result)
        if not bool(spanning.any()):
            return result
        if self.local and statistic:
            return torch.where(spanning, box.NOTHING, result)
        self.causes.append(self.node.module)
        return torch.where(spanning, box.UNBOUNDED, result)

    def sees_nothing(self, value: Value) -> Tensor:
        """Which of an operand's elements see nothing, bool, of its shape (stored once along constant dimensions)."""
        edge = box.joined(self.terms[value])
        return box.spread(box.core(edge) == box.NOTHING, value.shape)


BoxRule = Callable[..., Any]
# A rule of the support column gets a `Back` and the node's own arguments, in which input-dependent tensors stand as values.
# It yields, for every operand, the mark of the elements that the marked outputs read. Structure counts, not values: a weight
# of zero still reads.
Marks = Iterator[tuple[Value, Tensor]]
SupportRule = Callable[..., Marks]


def per_axis(value: Any, count: int) -> list[Any]:
    """A setting for each of `count` axes, one number standing for all; an empty list stays empty."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if len(values) == 1 else values


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A list as it is, a single number as a tuple of one."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)
