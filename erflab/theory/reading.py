"""The box reading: walk a recorded graph once, forward, and keep the edges of every layer's output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from erflab.errors import UnknownOperationError, closest
from erflab.theory import box
from erflab.theory.box_rules.call import Call
from erflab.theory.boxes import Boxes
from erflab.theory.fuse import fuse_linear
from erflab.theory.graph import Graph, Node, Value
from erflab.theory.rules import RULES, Rule


def read_boxes(
    graph: Graph, wanted: Iterable[Value], *, local: bool = False, partial: bool = False
) -> dict[Value, Boxes]:
    """Boxes of the `wanted` values; with `local`, reductions over a whole image axis are cut.

    With `partial`, values whose boxes do not fit in memory, or depend on such, are left out.

    Raises:
        UnknownOperationError: an operation without a rule stands on the way to a wanted value.
        TooLargeError: boxes on the way do not fit in memory, and `partial` is not set.
    """
    keep = set(wanted)
    nodes = fuse_linear(graph.needed(keep), keep)
    uses = Counter(v for node in nodes for v in set(node.operands))
    known = {graph.input: _input_boxes(graph)}
    for node in nodes:
        operands = set(node.operands)
        if operands <= known.keys():
            try:
                known.update(_apply(node, known, graph, local))
            except box.TooLargeError:
                if not partial:
                    raise
        for value in operands:
            uses[value] -= 1
            if not uses[value] and value not in keep:
                known.pop(value, None)
    return {value: known[value] for value in keep if value in known}


def _input_boxes(graph: Graph) -> Boxes:
    """Every pixel sees itself."""
    shape, terms = graph.input.shape, []
    for axis, n in enumerate(graph.input_size, 2):
        place = torch.arange(n, dtype=torch.float32).reshape([n if d == axis else 1 for d in range(len(shape))])
        terms += [(box.spread(place, shape),), (box.spread(-place, shape),)]
    return Boxes(shape, tuple(terms))


def _apply(node: Node, known: dict[Value, Boxes], graph: Graph, local: bool) -> dict[Value, Boxes]:
    """The boxes of one node's outputs."""
    rule = RULES.get(node.op)
    if rule is None:
        raise _unknown(node)
    operands = {v: known[v] for v in node.operands}
    calls = _calls(node, operands, graph, local)
    sides = [_outputs(rule, call) for call in calls]
    if local:
        graph.cut.update((node, side // 2) for side, call in enumerate(calls) if call.spanning)
    blank = calls[0].blank if len({call.blank for call in calls}) == 1 else None
    fixed_grids = _union([o.fixed_grids for o in operands.values()], [call.fixed_grids for call in calls])
    causes = _union([o.causes for o in operands.values()], [call.causes for call in calls])
    if causes and not any(_unbounded(term) for side in sides for terms in side for term in terms):
        causes = set()  # what they made unbounded was cut since
    own = None
    if causes or any(call.mixing for call in calls) or any(o.own is not None for o in operands.values()):
        calls = _calls(node, operands, graph, local, own=True)
        own = [_outputs(rule, call) for call in calls]
        causes = _union([causes], [call.causes for call in calls]) if causes else causes
    return {
        output: Boxes(
            output.shape,
            tuple(side[k] for side in sides),
            frozenset(causes),
            frozenset(fixed_grids),
            blank,
            None if own is None else tuple(side[k] for side in own),
        )
        for k, output in enumerate(node.outputs)
    }


def _calls(node: Node, operands: dict[Value, Boxes], graph: Graph, local: bool, *, own: bool = False) -> list[Call]:
    """The node seen from each side of each image axis, by the operands' boxes or by their own terms."""
    seen = {v: o.own if own and o.own is not None else o.terms for v, o in operands.items()}
    first = seen[node.operands[0]]
    image_dims = frozenset(d for side in first for term in side for d in box.varies(term))
    return [
        Call(
            node=node,
            edges={},
            image_dims=image_dims,
            extent=graph.input_size[side // 2],
            local=local,
            own=own,
            cut=(node, side // 2) in graph.cut,
            terms={v: terms[side] for v, terms in seen.items()},
            blanks={v: o.blank for v, o in operands.items()},
        )
        for side in range(len(first))
    ]


def _union(*groups: Iterable[Iterable[str]]) -> set[str]:
    return {name for group in groups for names in group for name in names}


def _outputs(rule: Rule, call: Call) -> list[box.Terms]:
    """The terms of every output: in one go where the operands vary alike, else a call for each term of each operand."""
    if all(len(t) == 1 for t in call.terms.values()) and len({_signature(t[0]) for t in call.terms.values()}) == 1:
        call.edges = {v: t[0] for v, t in call.terms.items()}
        return [(edge,) for edge in _run(rule, call)]
    runs = []
    for value, terms in call.terms.items():
        for term in terms:
            call.edges = {v: term if v is value else box.constant(box.NOTHING, v.shape) for v in call.terms}
            runs.append(_run(rule, call))
    return [box.simplify(edges) for edges in zip(*runs, strict=True)]


def _unbounded(edge: Tensor) -> bool:
    return bool((box.core(edge) == box.UNBOUNDED).any())


def _signature(edge: Tensor) -> frozenset[int]:
    """The dimensions on which an edge varies, counted from the last, as broadcasting aligns them."""
    return frozenset(d - edge.dim() for d in box.varies(edge))


def _run(rule: Rule, call: Call) -> list[Tensor]:
    """The edges of the outputs."""
    try:
        result = rule.box(call, *call.node.args, **call.node.kwargs)
    except box.TooLargeError as error:
        raise box.TooLargeError(f"{error} ({call.node.op} in module {call.node.module!r})") from error
    cores = result if isinstance(result, (list, tuple)) else [result]
    return [box.spread(c, o.shape) for c, o in zip(cores, call.node.outputs, strict=True)]


def _unknown(node: Node) -> UnknownOperationError:
    shapes = ", ".join(str(list(v.shape)) for v in node.operands)
    return UnknownOperationError(
        f"no rule for operation {node.op!r}, met in module {node.module!r} on inputs of shape {shapes}."
        f"{closest(node.op, RULES)} Say what its outputs read with erflab.register_rule({node.op!r}, box=...)."
    )
