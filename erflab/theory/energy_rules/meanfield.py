"""What a rule of the energy column is, and what it gets to see.

The mean field follows E[(d sum_c v_c y_c(u) / dx)^2] for random signs v backward through the graph. At every operation it
needs numbers that depend on the activations (E[phi'^2] of a nonlinearity, E[g^2] of a gate): the operation's *factors*,
told by Gaussian moments carried forward (`expect`) or read off an image that is run through (`observe`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from erflab.errors import UnknownOperationError
from erflab.theory.energy_rules.moments import Moments, constant
from erflab.theory.graph import Node, Value

Factors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Call:
    """One node with what is known of its operands: their moments, or their values (and the outputs') on one image."""

    node: Node
    moments: Mapping[Value, Moments] = field(default_factory=dict)
    tensors: Mapping[Value, Tensor] = field(default_factory=dict)

    def of(self, operand: Any) -> Moments:
        """Moments of an operand, which may be a constant, with the output's number of dimensions."""
        if not isinstance(operand, Value):
            return constant(operand, len(self.shape), self.moments[self.node.operands[0]].mean)
        found = self.moments[operand]
        added = (None,) * (len(self.shape) - found.mean.dim())
        return Moments(found.mean[added], found.var[added]) if added else found

    def actual(self, operand: Any) -> Tensor:
        """An operand's value on the image; a constant's is its own."""
        return self.tensors[operand] if isinstance(operand, Value) else torch.as_tensor(operand).detach()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the (first) output."""
        return self.node.outputs[0].shape

    def unknown(self, what: str) -> UnknownOperationError:
        """The error for a form of the operation that has no rule."""
        return UnknownOperationError(
            f"no energy rule for {what}: operation {self.node.op!r} in module {self.node.module!r} on inputs of shape "
            f"{[v.shape for v in self.node.operands]}. Choose an earlier layer, or measure the field instead."
        )


Expect = Callable[..., tuple[list[Moments], Factors]]
Observe = Callable[..., Factors]
Pull = Callable[..., list[Tensor | None]]


@dataclass(frozen=True)
class EnergyRule:
    """What the mean field knows of one operation.

    expect(call, *args): moments of the outputs and the factors, from the moments of the operands.
    observe(call, *args): the factors on one image, for every unit; None where they do not depend on the activations.
    pull(call, factors, energies, *args): the energy of every operand in `node.operands`' order (None: nothing flows),
        from those of the outputs (zero where nothing reads an output).
    note: what the rule leaves out, in words.
    """

    expect: Expect
    pull: Pull
    observe: Observe | None = None
    note: str | None = None


# Moments are stored with strides that no view may merge.
_COPYING = {"view": "reshape", "_unsafe_view": "reshape"}


def function(op: str) -> Callable[..., Any]:
    """The operation itself, in its form that writes to no argument and takes any strides."""
    namespace, name = op.split(".")
    packets = getattr(torch.ops, namespace)
    plain = name.removesuffix("_")
    name = plain if hasattr(packets, plain) else name
    return getattr(packets, _COPYING.get(name, name))  # type: ignore[no-any-return]


def substituted(arguments: Any, tensors: Mapping[Value, Any]) -> Any:
    """The node's arguments with tensors in place of values."""
    return tree_map_only(Value, lambda v: tensors[v], arguments)


def run(node: Node, tensors: Mapping[Value, Any]) -> list[Tensor]:
    """The node's outputs on given operands."""
    args, kwargs = substituted((node.args, node.kwargs), tensors)
    result = function(node.op)(*args, **kwargs)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def distinct(operands: Iterable[Value]) -> list[Value]:
    """Each operand once, in order."""
    return list(dict.fromkeys(operands))


def sum_to(energy: Tensor, shape: Sequence[int]) -> Tensor:
    """The energy of an operand that was broadcast: its copies' energies add, their gradients' signs being random."""
    return energy.sum_to_size(tuple(shape))
