"""The record of one run of a model: values, and the ATen calls between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor that depends on the input, at one moment of the run (an in-place call makes a new value)."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One ATen call. Tensors that depend on the input stand in `args` as values, others (weights, constants) as tensors.

    A constant holds its data where that is known, else it is a `meta` tensor (a large one, or weights that were never
    there). Calls have no side effects: writes into shared memory are recorded as the pure calls that come to the same.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    module: str

    @cached_property
    def operands(self) -> list[Value]:
        """The values among the arguments, in order."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Value)]


@dataclass
class Graph:
    """The record of one run."""

    input: Value
    nodes: list[Node] = field(default_factory=list)
    layers: dict[tuple[str, int], Value] = field(default_factory=dict)  # (module, call) -> output, in execution order
    failure: Exception | None = None  # why the run ended early, if it did
    cut: set[tuple[Node, int]] = field(default_factory=set)  # reductions over all of an image axis: node, axis
    escapes: list[tuple[int, str]] = field(default_factory=list)  # data taken by Python: nodes so far, module

    @property
    def calls(self) -> dict[str, int]:
        """How often each module ran."""
        return dict(Counter(name for name, _ in self.layers))

    def needed(self, wanted: Iterable[Value]) -> list[Node]:
        """The nodes that the wanted values depend on, in execution order."""
        alive, nodes = set(wanted), []
        for node in reversed(self.nodes):
            if alive.intersection(node.outputs):
                nodes.append(node)
                alive.update(node.operands)
        return nodes[::-1]

    def untracked(self, value: Value) -> tuple[str, ...]:
        """The modules where the dependence of `value` may have been lost (.item(), numpy): those of escapes before it.

        A number that Python holds may reach anything that runs later, and nothing that ran before.
        """
        if not self.escapes:
            return ()
        made = next((k for k, node in enumerate(self.nodes) if value in node.outputs), -1)
        return tuple(dict.fromkeys(module for so_far, module in self.escapes if so_far <= made))

    def in_order(self, modules: Iterable[str]) -> tuple[str, ...]:
        """Modules in the order in which they first ran an operation."""
        first = self._first_nodes
        return tuple(sorted(modules, key=lambda name: (first.get(name, len(first)), name)))

    @cached_property
    def _first_nodes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for node in self.nodes:
            found.setdefault(node.module, len(found))
        return found

    @property
    def input_size(self) -> tuple[int, ...]:
        """The image axes' lengths in px."""
        return self.input.shape[2:]
