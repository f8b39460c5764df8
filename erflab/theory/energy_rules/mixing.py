"""Energy rules of operations that contract whole dimensions: matrix products, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.theory.energy_rules.meanfield import Call, EnergyRule, Factors
from erflab.theory.energy_rules.moments import Moments, filled
from erflab.theory.graph import Value

# --- matrix products ------------------------------------------------------------------------------------------------------


def _operands(args: Sequence[Any]) -> tuple[Any, Any, Any]:
    """What is added (None if nothing), left factor, right factor."""
    *added, left, right = [a for a in args if isinstance(a, (Value, Tensor))]
    return (added[0] if added else None), left, right


def expect_matmul(call: Call, *args: Any, **_: Any) -> tuple[list[Moments], Factors]:
    """(added +) left @ right: of independent factors; one of them may be a weight."""
    added, left, right = _operands(args)
    a, b = call.of(left), call.of(right)
    last = len(call.shape) - 1
    (ma, va), (mb, vb) = (
        [filled(t, o.shape, [d]) for t in (m.mean, m.var)] for m, o, d in ((a, left, last), (b, right, last - 1))
    )
    mean, var = ma @ mb, va @ (vb + mb.square()) + ma.square() @ vb
    if added is not None:
        mean, var = mean + call.of(added).mean, var + call.of(added).var
    return [Moments(mean, var)], (a.second, b.second)


def observe_matmul(call: Call, *args: Any, **_: Any) -> Factors:
    """left^2 and right^2."""
    _, left, right = _operands(args)
    return call.actual(left).square(), call.actual(right).square()


def pull_matmul(call: Call, factors: Factors, energies: Sequence[Tensor], *args: Any, **_: Any) -> list[Tensor | None]:
    """E @ (right^2)^T and (left^2)^T @ E."""
    added, left, right = _operands(args)
    energy, pulled = energies[0], list[Tensor | None]()
    if isinstance(added, Value):
        pulled.append(energy.sum_to_size(added.shape))
    if isinstance(left, Value):
        pulled.append(energy @ factors[1].expand(right.shape).transpose(-1, -2))
    if isinstance(right, Value):
        pulled.append(factors[0].expand(left.shape).transpose(-1, -2) @ energy)
    return pulled


# --- attention ------------------------------------------------------------------------------------------------------------


def expect_softmax(call: Call, source: Value, dim: int, *_: Any) -> tuple[list[Moments], Factors]:
    """Weights e^z / sum e^z of Gaussian z: mean m_j = softmax of the means, E[w_j^2] = m_j^2 e^var, at most m_j."""
    before = call.moments[source]
    mean = torch.softmax(filled(before.mean + before.var / 2, source.shape, [dim]), dim)
    second = torch.minimum(mean.square() * before.var.exp(), mean)
    return [Moments(mean, second - mean.square())], ()


def pull_softmax(call: Call, *_: Any) -> list[Tensor | None]:
    """Nothing flows through the weights themselves: only the value path is followed."""
    return [None]


MATMUL = EnergyRule(expect_matmul, pull_matmul, observe_matmul)
SOFTMAX = EnergyRule(
    expect_softmax, pull_softmax, note="attention: value path only, through the attention weights as they are"
)
