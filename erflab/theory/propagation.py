"""The walks of the energy column over a recorded graph: moments forward, an image forward, energy backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from erflab.errors import UnknownOperationError, closest
from erflab.theory.energy_rules.meanfield import Call, EnergyRule, Factors, run
from erflab.theory.energy_rules.moments import Moments
from erflab.theory.rules import RULES
from erflab.theory.trace import Graph, Node, Value

# Energies beyond these are rescaled on the way: a deep network may shrink or grow them past what float32 holds.
_SMALLEST, _LARGEST = 1e-12, 1e12


def energy_rule(node: Node) -> EnergyRule:
    """The node's row of the table. Raises UnknownOperationError if there is none."""
    known = RULES.get(node.op)
    if known is not None and known.energy is not None:
        return known.energy
    raise UnknownOperationError(
        f"no energy rule for operation {node.op!r}, met in module {node.module!r} on inputs of shape "
        f"{[v.shape for v in node.operands]}.{closest(node.op, [op for op, rule in RULES.items() if rule.energy])} "
        f"Say how gradients pass it with erflab.register_rule({node.op!r}, ..., energy=...), choose an earlier layer, or "
        "measure the field instead."
    )


def expected_factors(
    graph: Graph, nodes: Sequence[Node], like: Tensor, moments: dict[Value, Moments]
) -> dict[Node, Factors]:
    """Every node's factors for white Gaussian images, by moments carried forward, of `like`'s dtype and device.

    `moments` holds what earlier calls have found, and takes what this one finds.
    """
    one = like.new_ones((1,) * len(graph.input.shape))
    moments.setdefault(graph.input, Moments(torch.zeros_like(one), one))
    factors: dict[Node, Factors] = {}
    for node in nodes:
        outputs, factors[node] = energy_rule(node).expect(Call(node, moments), *node.args, **node.kwargs)
        moments.update(zip(node.outputs, outputs, strict=True))
    return factors


def observed_factors(graph: Graph, nodes: Sequence[Node], image: Tensor) -> dict[Node, Factors]:
    """Every node's factors on one image [1, K, *image axes], which is run through the recorded calls."""
    uses = Counter(v for node in nodes for v in node.operands)
    tensors, factors = {graph.input: image}, dict[Node, Factors]()
    for node in nodes:
        tensors.update(zip(node.outputs, run(node, tensors), strict=True))
        observe = energy_rule(node).observe
        factors[node] = () if observe is None else observe(Call(node, {}, tensors), *node.args, **node.kwargs)
        uses.subtract(node.operands)
        for value in {*node.operands, *node.outputs}:
            if not uses[value]:
                tensors.pop(value, None)
    return factors


@dataclass
class Energies:
    """Energies on their way back. All stand for themselves times `scale`."""

    known: dict[Value, Tensor]
    scale: float = 1.0
    totals: dict[Value, float] = field(default_factory=dict)

    def take(self, values: Iterable[Value]) -> list[Tensor | None]:
        """Remove and return the energies of a node's outputs, which are complete now, and note their totals."""
        taken = [self.known.pop(v, None) for v in values]
        for value, energy in zip(values, taken, strict=True):
            if energy is not None:
                self.totals[value] = float(energy.sum(dtype=torch.float64)) * self.scale
        return taken

    def add(self, value: Value, energy: Tensor) -> None:
        """One more branch: energies add."""
        self.known[value] = self.known[value] + energy if value in self.known else energy

    def rescale(self, value: Value) -> None:
        """Bring all energies into range if that of `value` is out of it."""
        peak = float(self.known[value].max())
        if peak > _LARGEST or 0 < peak < _SMALLEST:
            self.known = {v: e / peak for v, e in self.known.items()}
            self.scale *= peak


def pull_back(nodes: Sequence[Node], factors: dict[Node, Factors], target: Value, seed: Tensor) -> Energies:
    """Carry the target's energy back to the input; `known` then holds the input's alone, if any reached it."""
    energies = Energies({target: seed})
    for node in reversed(nodes):
        outputs = energies.take(node.outputs)
        if all(e is None for e in outputs):
            continue
        whole = [seed.new_zeros(v.shape) if e is None else e for v, e in zip(node.outputs, outputs, strict=True)]
        pulled = energy_rule(node).pull(Call(node), factors[node], whole, *node.args, **node.kwargs)
        for value, energy in zip(node.operands, pulled, strict=True):
            if energy is not None:
                energies.add(value, energy)
                energies.rescale(value)
    return energies
