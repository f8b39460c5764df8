"""Energy rules of reductions over whole dimensions: sums, norms, variances, the largest element.

Every element of a line is read by that line's results alone, so the squared derivatives have the operand's shape: one
factor an output. On an image they are what autograd says of the operation itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.theory.energy_rules.meanfield import Call, EnergyRule, Factors, run
from erflab.theory.energy_rules.moments import Moments, average, largest_along, moved, pooled
from erflab.theory.graph import Value


def _dims(source: Value, dim: Any) -> list[int]:
    if dim is None or dim == [] or isinstance(dim, bool):
        return list(range(len(source.shape)))
    dims = dim if isinstance(dim, (list, tuple)) else [dim]
    return [d % len(source.shape) for d in dims]


def _kept(source: Value, dims: Sequence[int]) -> list[int]:
    return [1 if d in dims else n for d, n in enumerate(source.shape)]


def _reshaped(call: Call, source: Value, dims: Sequence[int], mean: Tensor, var: Tensor) -> Moments:
    """Moments with the reduced dimensions kept, as the output has them (kept or dropped)."""
    return moved(Moments(mean, var), _kept(source, dims), lambda t: t.reshape(call.shape))


def pull_reduced(
    call: Call, factors: Factors, energies: Sequence[Tensor], source: Value, dim: Any = None, *_: Any, **__: Any
) -> list[Tensor | None]:
    """Squared derivatives times the energies of the results."""
    kept = _kept(source, _dims(source, dim))
    terms = [energy.reshape(kept) * factor for energy, factor in zip(energies, factors, strict=True)]
    return [torch.stack(torch.broadcast_tensors(*terms)).sum(0).expand(source.shape)]


def observe_reduced(call: Call, source: Value, *_: Any, **__: Any) -> Factors:
    """Squared derivatives of every result by every element of its line; none of indices."""
    with torch.enable_grad():
        x = call.tensors[source].detach().requires_grad_(True)
        results = run(call.node, {source: x})
        slopes = [
            torch.autograd.grad(r.sum(), x, retain_graph=True)[0] if r.requires_grad else x.new_zeros(())
            for r in results
        ]
    return tuple(slope.square() for slope in slopes)


# --- sums -----------------------------------------------------------------------------------------------------------------


def _expect_linear(call: Call, source: Value, dim: Any, mean_only: bool) -> tuple[Moments, Tensor]:
    dims = _dims(source, dim)
    count = math.prod(source.shape[d] for d in dims)
    before, factor = call.moments[source], 1.0 / count if mean_only else 1.0
    mean = average(before.mean, dims) * count * factor
    var = average(before.var, dims) * count * factor**2
    return _reshaped(call, source, dims, mean, var), torch.full_like(mean, factor**2)


def expect_mean(call: Call, source: Value, dim: Any = None, *_: Any, **__: Any) -> tuple[list[Moments], Factors]:
    """Mean or sum of independent elements."""
    result, factor = _expect_linear(call, source, dim, call.node.op == "aten.mean")
    return [result], (factor,)


def expect_norm(
    call: Call, source: Value, order: Any = 2, dim: Any = None, *_: Any, **__: Any
) -> tuple[list[Moments], Factors]:
    """|x| = sqrt(sum x^2) of many elements: nearly constant; d|x| / dx = x / |x|."""
    if order != 2:
        raise call.unknown(f"a norm of order {order}")
    dims, second = _dims(source, dim), call.moments[source].second
    square = average(second, dims) * math.prod(source.shape[d] for d in dims)
    return [_reshaped(call, source, dims, square.sqrt(), torch.zeros_like(square))], (second / square,)


def pull_norm(
    call: Call, factors: Factors, energies: Sequence[Tensor], source: Value, order: Any = 2, dim: Any = None, *_: Any
) -> list[Tensor | None]:
    """As for all reductions; the dimensions come second."""
    return pull_reduced(call, factors, energies, source, dim)


# --- variances ------------------------------------------------------------------------------------------------------------


def _correction(dim: Any, flags: Sequence[Any], correction: Any) -> float:
    """The older forms say it as a flag, before whether dimensions are kept."""
    unbiased = [flag for flag in (dim, *flags) if isinstance(flag, bool)]
    if unbiased:
        return float(unbiased[0])
    return 1.0 if correction is None else float(correction)


def expect_variance(
    call: Call, source: Value, dim: Any = None, *flags: Any, correction: Any = 1, **_: Any
) -> tuple[list[Moments], Factors]:
    """Y = sum (x - xbar)^2 / (N - c), its root, and the mean beside it; dy / dx_j = 2 (x_j - xbar) / (N - c).

    E (x_j - xbar)^2 = (m_j - mbar)^2 + v_j (1 - 2 / N) + vbar / N for independent elements of means m and variances v.
    """
    dims, before = _dims(source, dim), call.moments[source]
    count = math.prod(source.shape[d] for d in dims)
    free = count - _correction(dim, flags, correction)
    center, _spread = pooled(before, dims)
    offset = (before.mean - center).square()
    deviation = offset + before.var * (1 - 2 / count) + average(before.var, dims) / count
    mean = average(deviation, dims) * count / free
    var = average(2 * (1 - 1 / count) * before.var.square() + 4 * before.var * offset, dims) * count / free**2
    slope = 4 * deviation / free**2
    if call.node.op.startswith("aten.std"):
        var = var / (4 * mean)
        mean, slope = (mean - var).clamp(min=0).sqrt(), slope / (4 * mean)
    found, factors = [_reshaped(call, source, dims, mean, var)], [slope]
    if len(call.node.outputs) > 1:
        beside, factor = _expect_linear(call, source, dim, True)
        found, factors = [*found, beside], [*factors, factor]
    return found, tuple(factors)


# --- the largest and the smallest -----------------------------------------------------------------------------------------


def expect_extreme(call: Call, source: Value, dim: Any = None, *_: Any, **__: Any) -> tuple[list[Moments], Factors]:
    """The largest or smallest of independent Gaussians, each with its own probability of being it."""
    if isinstance(dim, (Value, Tensor)):
        raise call.unknown("an extreme of two tensors in this form")
    dims = _dims(source, dim)
    mean, var, selected = largest_along(call.moments[source], source.shape, dims, smallest="min" in call.node.op)
    result = _reshaped(call, source, dims, mean, var)
    indices = len(call.node.outputs) - 1
    blank = Moments(torch.zeros_like(result.mean), torch.zeros_like(result.mean))
    return [result, *[blank] * indices], (selected, *[torch.zeros_like(selected)] * indices)


def _rule(expect: Callable[..., tuple[list[Moments], Factors]]) -> EnergyRule:
    return EnergyRule(expect, pull_reduced, observe_reduced)


MEAN = _rule(expect_mean)
VARIANCE = _rule(expect_variance)
EXTREME = _rule(expect_extreme)
NORM = EnergyRule(expect_norm, pull_norm, observe_reduced)
