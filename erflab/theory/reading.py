"""The box reading: walk a recorded graph once, forward, and keep the edges of every layer's output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from erflab.errors import UnknownOperationError, closest
from erflab.theory import box
from erflab.theory.rules import RULES, Call
from erflab.theory.trace import Graph, Node, Value


@dataclass(frozen=True)
class Boxes:
    """The boxes of all elements of one tensor, [B, C, *positions] in any order of dimensions.

    `edges` holds two per image axis, first pixels and minus last pixels; `causes` the modules that made an axis
    unbounded; `fixed_grids` the modules that tie the field to the input size by pooling to a fixed number of bins.
    """

    shape: tuple[int, ...]
    edges: tuple[Tensor, ...]
    causes: frozenset[str] = frozenset()
    fixed_grids: frozenset[str] = frozenset()


def read_boxes(graph: Graph, wanted: Iterable[Value], *, local: bool = False) -> dict[Value, Boxes]:
    """Boxes of the `wanted` values; with `local`, reductions over a whole image axis are cut.

    Raises UnknownOperationError for an operation without a rule on the way to a wanted value.
    """
    keep = set(wanted)
    nodes = _needed(graph, keep)
    uses = Counter(v for node in nodes for v in set(node.operands))
    known = {graph.input: _input_boxes(graph)}
    for node in nodes:
        known.update(_apply(node, known, graph, local))
        for value in set(node.operands):
            uses[value] -= 1
            if not uses[value] and value not in keep:
                del known[value]
    return {value: known[value] for value in keep if value in known}


def _needed(graph: Graph, wanted: set[Value]) -> list[Node]:
    """The nodes that a wanted value depends on, in execution order."""
    alive, nodes = set(wanted), []
    for node in reversed(graph.nodes):
        if alive.intersection(node.outputs):
            nodes.append(node)
            alive.update(node.operands)
    return nodes[::-1]


def _input_boxes(graph: Graph) -> Boxes:
    """Every pixel sees itself."""
    shape, edges = graph.input.shape, []
    for axis, n in enumerate(graph.input_size, 2):
        place = torch.arange(n, dtype=torch.float32).reshape([n if d == axis else 1 for d in range(len(shape))])
        edges += [box.spread(place, shape), box.spread(-place, shape)]
    return Boxes(shape, tuple(edges))


def _apply(node: Node, known: dict[Value, Boxes], graph: Graph, local: bool) -> dict[Value, Boxes]:
    """The boxes of one node's outputs."""
    rule = RULES.get(node.op)
    if rule is None:
        raise UnknownOperationError(
            f"no rule for operation {node.op!r}, met in module {node.module!r} on inputs of shape "
            f"{[v.shape for v in node.operands]}.{closest(node.op, RULES)} Add a row to erflab.theory.rules.RULES."
        )
    operands = [known[v] for v in node.operands]
    image_dims = frozenset(d for edge in operands[0].edges for d in box.varies(edge)) if operands else frozenset()
    causes = set().union(*(o.causes for o in operands))
    fixed_grids = set().union(*(o.fixed_grids for o in operands))
    sides: list[list[Tensor]] = []
    for side in range(len(operands[0].edges)):
        edges = {v: known[v].edges[side] for v in node.operands}
        call = Call(node, edges, image_dims, graph.input_size[side // 2], local)
        result = rule.box(call, *node.args, **node.kwargs)
        cores = result if isinstance(result, list) else [result]
        sides.append([box.spread(c, o.shape) for c, o in zip(cores, node.outputs, strict=True)])
        causes.update(call.causes)
        fixed_grids.update(call.fixed_grids)
    return {
        output: Boxes(output.shape, tuple(side[k] for side in sides), frozenset(causes), frozenset(fixed_grids))
        for k, output in enumerate(node.outputs)
    }
