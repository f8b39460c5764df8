"""Linear layers put together again: on more than two dimensions they run as view, matrix product, view.

Seen as one operation on the last dimension they leave the image axes apart; the views would merge them into one, on which
an edge that differs between rows and between channels needs rows x columns x channels numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from erflab.theory.graph import Node, Value

_VIEWS = frozenset({"aten.view", "aten._unsafe_view"})


def fuse_linear(nodes: Sequence[Node], wanted: Collection[Value]) -> list[Node]:
    """The nodes with each view, mm or addmm with constant weights, view made one aten.linear, where nothing else needs them."""
    uses = Counter(v for node in nodes for v in set(node.operands))
    makers = {node.outputs[0]: node for node in nodes if len(node.outputs) == 1}
    dropped: set[Node] = set()
    replaced: dict[Node, Node] = {}
    for last in nodes:
        chain = _chain(last, makers)
        inner = [node.outputs[0] for node in chain]
        if chain and all(uses[v] == 1 and v not in wanted for v in inner):
            dropped.update(chain)
            replaced[last] = _linear(chain[0], chain[1], last)
    return [replaced.get(node, node) for node in nodes if node not in dropped]


def _chain(last: Node, makers: dict[Value, Node]) -> list[Node]:
    """The two nodes before `last` that make it the end of a linear layer, or nothing."""
    product = makers.get(last.args[0]) if last.op in _VIEWS else None
    if product is None or product.op not in ("aten.mm", "aten.addmm"):
        return []
    first, *weights = _factors(product)
    before = makers.get(first) if isinstance(first, Value) else None
    if before is None or before.op not in _VIEWS or any(isinstance(w, Value) for w in weights):
        return []
    source, result = before.args[0].shape, last.outputs[0].shape
    same = source[:-1] == result[:-1] and source[-1] == first.shape[-1] and result[-1] == product.outputs[0].shape[-1]
    return [before, product] if same else []


def _factors(product: Node) -> list[Any]:
    """The rows that depend on the input, the weights, and the bias."""
    if product.op == "aten.mm":
        return [*product.args[:2]]
    bias, rows, weights = product.args[:3]
    return [rows, weights, bias]


def _linear(before: Node, product: Node, last: Node) -> Node:
    return Node("aten.linear", (before.args[0], *_factors(product)[1:]), {}, last.outputs, product.module)
