"""One node of a recorded graph, seen from its outputs: what the rules of the support column are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erflab.theory import box
from erflab.theory.box_rules.call import Marks, SupportRule
from erflab.theory.boxes import Boxes
from erflab.theory.graph import Node, Value
from erflab.theory.support_rules import marks

__all__ = ["Back", "Marks", "SupportRule"]


@dataclass(frozen=True)
class Back:
    """One node, seen from its outputs: `marks` of their shapes, and the boxes of those operands on which a rule depends."""

    node: Node
    marks: tuple[Tensor, ...]
    input_size: tuple[int, ...]
    boxes: dict[Value, Boxes]
    local: bool = False  # whether reductions over a whole image axis are cut
    cut: bool = False  # whether the node is known to be one (see `Graph.cut`)

    @property
    def mark(self) -> Tensor:
        """The mark of the (first) output."""
        return self.marks[0]

    def uncut(self, mark: Tensor, source: Value, dims: Sequence[int]) -> Tensor:
        """The mark on results of a reduction of `source` over `dims` (kept with length 1) without what the field leaves out.

        In the local field those are the results that join positions across a whole image axis.
        """
        values = box.core(mark)
        if self.local and self.cut:
            return marks.nothing(mark.shape)
        if self.local and source in self.boxes:
            for side, edge in enumerate(self.boxes[source].edges):
                cut = box.spanning(edge, box.reduce(edge, list(dims)), self.input_size[side // 2])
                for dim, n in enumerate(mark.shape):
                    cut = cut if cut.shape[dim] in (1, n) else cut.any(dim, keepdim=True)
                values = values & ~cut
        return box.spread(values, mark.shape)

    def known(self, value: Any, content: float) -> Tensor | None:
        """Which elements of an operand are this constant, by a mask, whatever the input; None if none is known to be."""
        found = self.boxes.get(value) if isinstance(value, Value) else None
        if found is None or found.blank != content:
            return None
        return box.spread(box.core(found.edges[0]) == box.NOTHING, found.shape)

    def replay(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """The node's own operation on other operands."""
        namespace, name = self.node.op.split(".")
        result = getattr(getattr(torch.ops, namespace), name)(*args, **kwargs)
        return list(result) if isinstance(result, (list, tuple)) else [result]
