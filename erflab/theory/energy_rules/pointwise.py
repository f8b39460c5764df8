"""Energy rules of operations that act element by element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.theory.energy_rules.meanfield import Call, EnergyRule, Factors, distinct, function, substituted, sum_to
from erflab.theory.energy_rules.moments import Moments, Source, gaussian, with_derivative
from erflab.theory.graph import Value

# --- one operand: E[phi'(z)^2] --------------------------------------------------------------------------------------------


def _phi(call: Call) -> tuple[Value, Any]:
    """The operand and the function of it that the node is."""
    operands = distinct(call.node.operands)
    if len(operands) != 1:
        raise call.unknown(f"a pointwise function of {len(operands)} activations")
    op, value = function(call.node.op), operands[0]

    def phi(z: Tensor) -> Tensor:
        args, kwargs = substituted((call.node.args, call.node.kwargs), {value: z})
        result: Tensor = op(*args, **kwargs)
        return result

    return value, phi


def expect_pointwise(call: Call, *_: Any, **__: Any) -> tuple[list[Moments], Factors]:
    """Moments and E[phi'(z)^2] over z ~ N(mean, var)."""
    value, phi = _phi(call)
    before = call.moments[value]
    mean, var, slope = gaussian(before, phi)
    return [Moments(mean, var, Source(before.mean, before.var, phi))], (slope,)


def observe_pointwise(call: Call, *_: Any, **__: Any) -> Factors:
    """phi'(z)^2 of every unit."""
    value, phi = _phi(call)
    return (with_derivative(phi, call.tensors[value])[1].square(),)


def pull_pointwise(call: Call, factors: Factors, energies: Sequence[Tensor], *_: Any, **__: Any) -> list[Tensor | None]:
    """E[phi'^2] times the energy."""
    pulled: list[Tensor | None] = [None] * len(call.node.operands)
    pulled[0] = sum_to(energies[0] * factors[0], call.node.operands[0].shape)
    return pulled


def expect_identity(call: Call, *_: Any, **__: Any) -> tuple[list[Moments], Factors]:
    """The operand as it is (a copy, a cast, an alias)."""
    return [call.moments[call.node.operands[0]]], ()


def pull_identity(call: Call, _: Factors, energies: Sequence[Tensor], *__: Any, **___: Any) -> list[Tensor | None]:
    """The operand as it is."""
    return [energies[0].reshape(call.node.operands[0].shape)]


# --- sums and products ----------------------------------------------------------------------------------------------------


def expect_sum(call: Call, a: Any, b: Any, alpha: float = 1, *, sign: int = 1) -> tuple[list[Moments], Factors]:
    """A + alpha b of independent terms: means and variances add."""
    left, right = call.of(a), call.of(b)
    var = left.var + alpha**2 * right.var
    return [Moments(left.mean + sign * alpha * right.mean, var)], ()


def expect_difference(call: Call, a: Any, b: Any, alpha: float = 1) -> tuple[list[Moments], Factors]:
    """A - alpha b."""
    return expect_sum(call, a, b, alpha, sign=-1)


def expect_reversed(call: Call, a: Any, b: Any, alpha: float = 1) -> tuple[list[Moments], Factors]:
    """B - alpha a."""
    mean, var = call.of(b).mean - alpha * call.of(a).mean, call.of(b).var + alpha**2 * call.of(a).var
    return [Moments(mean, var)], ()


def pull_sum(
    call: Call, _: Factors, energies: Sequence[Tensor], a: Any, b: Any, alpha: float = 1
) -> list[Tensor | None]:
    """Every branch gets the whole energy: cross terms vanish in the mean field. x + x is 2 x."""
    reversed_ = call.node.op == "aten.rsub"
    scale = [alpha**2 if reversed_ else 1.0, 1.0 if reversed_ else alpha**2]
    if a is b:
        return [energies[0] * (1 + alpha) ** 2, None]
    terms = [(v, s) for v, s in zip((a, b), scale, strict=True) if isinstance(v, Value)]
    return [sum_to(energies[0] * s if s != 1 else energies[0], v.shape) for v, s in terms]


def expect_product(call: Call, a: Any, b: Any) -> tuple[list[Moments], Factors]:
    """A b of independent factors; E[b^2] and E[a^2] are the gains of the two. A square is a function of one operand."""
    if a is b:
        return expect_pointwise(call, a, b)
    left, right = call.of(a), call.of(b)
    mean, var = left.mean * right.mean, left.var * right.second + left.mean.square() * right.var
    return [Moments(mean, var)], (right.second, left.second)


def observe_product(call: Call, a: Any, b: Any) -> Factors:
    """b^2 and a^2."""
    if a is b:
        return observe_pointwise(call, a, b)
    return call.actual(b).square(), call.actual(a).square()


def pull_product(
    call: Call, factors: Factors, energies: Sequence[Tensor], a: Any, b: Any, **__: Any
) -> list[Tensor | None]:
    """Each factor's energy is weighted by the other's E[x^2]."""
    if a is b:
        return pull_pointwise(call, factors, energies)
    return [
        sum_to(energies[0] * gain, v.shape) for v, gain in zip((a, b), factors, strict=True) if isinstance(v, Value)
    ]


def expect_quotient(call: Call, a: Any, b: Any, **__: Any) -> tuple[list[Moments], Factors]:
    """A / b; a divisor that depends on the input (a norm) is taken for nearly constant, 1 / b^2 ~ 1 / E[b^2]."""
    left, right = call.of(a), call.of(b)
    inverse = 1 / right.second
    mean, var = left.mean * inverse.sqrt() * right.mean.sign(), left.var * inverse
    return [Moments(mean, var)], (inverse, left.second * inverse.square())


def observe_quotient(call: Call, a: Any, b: Any, **__: Any) -> Factors:
    """1 / b^2 and a^2 / b^4."""
    inverse = 1 / call.actual(b).square()
    return inverse, (call.actual(a) * inverse).square()


def _sign(call: Call) -> float:
    return -1.0 if "min" in call.node.op else 1.0


def expect_larger(call: Call, a: Any, b: Any) -> tuple[list[Moments], Factors]:
    """The larger (or smaller) of two independent Gaussians (Clark 1961), and the probabilities of either."""
    if a is b:
        raise call.unknown("an extreme of one activation and itself")
    left, right = call.of(a), call.of(b)
    theta = (left.var + right.var).clamp(min=1e-24).sqrt()
    alpha = _sign(call) * (left.mean - right.mean) / theta
    p, q = torch.special.ndtr(alpha), torch.special.ndtr(-alpha)
    lift = _sign(call) * theta * torch.exp(-alpha.square() / 2) / math.sqrt(2 * math.pi)
    mean = left.mean * p + right.mean * q + lift
    second = left.second * p + right.second * q + (left.mean + right.mean) * lift
    return [Moments(mean, second - mean.square())], (p, q)


def observe_larger(call: Call, a: Any, b: Any) -> Factors:
    """Which is chosen; equal ones share the gradient."""
    if a is b:
        raise call.unknown("an extreme of one activation and itself")
    left, right = call.actual(a), call.actual(b)
    difference = _sign(call) * (left - right)
    share = torch.heaviside(difference, difference.new_tensor(0.5))
    return share.square(), (1 - share).square()


FUNCTION = EnergyRule(expect_pointwise, pull_pointwise, observe_pointwise)
IDENTITY = EnergyRule(expect_identity, pull_identity)
SUM = EnergyRule(expect_sum, pull_sum)
DIFFERENCE = EnergyRule(expect_difference, pull_sum)
REVERSED = EnergyRule(expect_reversed, pull_sum)
LARGER = EnergyRule(expect_larger, pull_product, observe_larger)
PRODUCT = EnergyRule(expect_product, pull_product, observe_product)
QUOTIENT = EnergyRule(expect_quotient, pull_product, observe_quotient)
