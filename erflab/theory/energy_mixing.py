"""Energy rules of operations that contract whole dimensions: matrix products, reductions, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.theory.graph import Value
from erflab.theory.meanfield import Call, EnergyRule, Factors
from erflab.theory.moments import Moments, average, filled, moved

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


# --- reductions -----------------------------------------------------------------------------------------------------------


def _dims(source: Value, dim: Any) -> list[int]:
    if dim is None or dim == [] or isinstance(dim, bool):
        return list(range(len(source.shape)))
    dims = dim if isinstance(dim, (list, tuple)) else [dim]
    return [d % len(source.shape) for d in dims]


def _coefficient(call: Call, count: int) -> float:
    return 1.0 if call.node.op == "aten.sum" else 1.0 / count


def expect_mean(call: Call, source: Value, dim: Any = None, *_: Any, **__: Any) -> tuple[list[Moments], Factors]:
    """Mean or sum of independent elements over whole dimensions."""
    dims = _dims(source, dim)
    count = math.prod(source.shape[d] for d in dims)
    before, factor = call.moments[source], _coefficient(call, count)
    mean = average(before.mean, dims) * count * factor
    var = average(before.var, dims) * count * factor**2
    kept = [1 if d in dims else n for d, n in enumerate(source.shape)]
    return [moved(Moments(mean, var), kept, lambda t: t.reshape(call.shape))], ()


def pull_mean(
    call: Call, _: Factors, energies: Sequence[Tensor], source: Value, dim: Any = None, *__: Any, **___: Any
) -> list[Tensor | None]:
    """Squared coefficients."""
    dims = _dims(source, dim)
    factor = _coefficient(call, math.prod(source.shape[d] for d in dims))
    kept = [1 if d in dims else n for d, n in enumerate(source.shape)]
    return [(energies[0].reshape(kept) * factor**2).expand(source.shape)]


def _euclidean(call: Call, order: Any) -> None:
    if order != 2:
        raise call.unknown(f"a norm of order {order}")


def expect_norm(
    call: Call, source: Value, order: Any = 2, dim: Any = None, *_: Any, **__: Any
) -> tuple[list[Moments], Factors]:
    """|x| = sqrt(sum x^2) over whole dimensions, of many elements: nearly constant; d|x| / dx = x / |x|."""
    _euclidean(call, order)
    dims, second = _dims(source, dim), call.moments[source].second
    square = average(second, dims) * math.prod(source.shape[d] for d in dims)
    kept = [1 if d in dims else n for d, n in enumerate(source.shape)]
    result = moved(Moments(square.sqrt(), torch.zeros_like(square)), kept, lambda t: t.reshape(call.shape))
    return [result], (second / square,)


def observe_norm(call: Call, source: Value, order: Any = 2, dim: Any = None, *_: Any, **__: Any) -> Factors:
    """x^2 / |x|^2."""
    _euclidean(call, order)
    square = call.tensors[source].square()
    return (square / square.sum(_dims(source, dim), keepdim=True).clamp(min=1e-30),)


def pull_norm(
    call: Call,
    factors: Factors,
    energies: Sequence[Tensor],
    source: Value,
    order: Any = 2,
    dim: Any = None,
    *_: Any,
    **__: Any,
) -> list[Tensor | None]:
    """Each element's share of the squared norm."""
    dims = _dims(source, dim)
    kept = [1 if d in dims else n for d, n in enumerate(source.shape)]
    return [(energies[0].reshape(kept) * factors[0]).expand(source.shape)]


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
MEAN = EnergyRule(expect_mean, pull_mean)
NORM = EnergyRule(expect_norm, pull_norm, observe_norm)
SOFTMAX = EnergyRule(
    expect_softmax, pull_softmax, note="attention: value path only, through the attention weights as they are"
)
