"""Energy rules of normalisation: batch, instance, layer and group norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erflab.theory.energy_rules.meanfield import Call, EnergyRule, Factors
from erflab.theory.energy_rules.moments import Moments, average, moved, pooled
from erflab.theory.graph import Value

# --- batch norm -----------------------------------------------------------------------------------------------------------


def _scale(call: Call, weight: Tensor | None, var: Tensor, eps: float) -> Tensor:
    shape = (1, -1, *(1,) * (len(call.shape) - 2))
    scale = torch.rsqrt(var.detach() + eps) * (1 if weight is None else weight.detach())
    return scale.reshape(shape)


def _eval_mode(call: Call, weight: Any, mean: Any, var: Any, rest: Sequence[Any]) -> tuple[Tensor, Tensor] | None:
    """Running mean and scale gamma / sqrt(var + eps), [1, C, 1, 1]; None where the image's own statistics are used."""
    training = rest[0] if call.node.op == "aten.native_batch_norm" else False
    if training or mean is None:
        return None
    return mean.detach().reshape(1, -1, *(1,) * (len(call.shape) - 2)), _scale(call, weight, var, float(rest[-1]))


def expect_batch_norm(
    call: Call, source: Value, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any
) -> tuple[list[Moments], Factors]:
    """In eval mode an affine map a channel; with the image's own statistics a normalisation over its axes."""
    found, before = _eval_mode(call, weight, mean, var, rest), call.moments[source]
    if found is None:
        return _expect_normalised(
            call, source, _per_channel(source), _columns(call, weight), _columns(call, bias), rest[-1]
        )
    shift, scale = found
    offset = 0 if bias is None else bias.detach().reshape(scale.shape)
    result = Moments((before.mean - shift) * scale + offset, before.var * scale.square())
    return [result] * len(call.node.outputs), ()


def observe_batch_norm(call: Call, source: Value, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Factors:
    """Nothing in eval mode."""
    if _eval_mode(call, weight, mean, var, rest) is not None:
        return ()
    return _observe_normalised(call.tensors[source], _per_channel(source), rest[-1])


def pull_batch_norm(
    call: Call,
    factors: Factors,
    energies: Sequence[Tensor],
    source: Value,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    *rest: Any,
) -> list[Tensor | None]:
    """(gamma / sqrt(var + eps))^2."""
    found = _eval_mode(call, weight, mean, var, rest)
    if found is None:
        return [_pull_normalised(energies[0], factors, _per_channel(source), _columns(call, weight))]
    return [energies[0] * found[1].square()]


def _per_channel(source: Value) -> list[int]:
    return [0, *range(2, len(source.shape))]


def _columns(call: Call, weight: Tensor | None) -> Tensor | None:
    """A weight a channel, shaped to multiply [B, C, ...]."""
    return None if weight is None else weight.detach().reshape(1, -1, *(1,) * (len(call.shape) - 2))


# --- layer and group norm -------------------------------------------------------------------------------------------------
#
# y = gamma (x - mu) / s over N elements has dy_i/dx_j = gamma_i / s (delta_ij - 1/N - xhat_i xhat_j / N). Squared and
# summed over i with energies a_i = gamma_i^2 E_i:
#   E_j = 1/s^2 [ a_j (1 - 2/N - 2 xhat_j^2 / N) + (sum a_i + 2 xhat_j sum a_i xhat_i + xhat_j^2 sum a_i xhat_i^2) / N^2 ]
# The factors are 1/s^2, xhat and xhat^2, on an image or expected.


def _expect_normalised(
    call: Call, source: Value, dims: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[list[Moments], Factors]:
    before = call.moments[source]
    center, spread = pooled(before, dims)
    count = math.prod(source.shape[d] for d in dims)
    inverse = 1 / (spread + eps)
    mean = (before.mean - center) * inverse.sqrt()
    var = before.var * inverse
    # s^2 is a mean of `count` squares, so E[1/s^2] exceeds 1/E[s^2] by its relative variance.
    scatter = 2 / count * average(var.square() + 2 * var * mean.square(), dims)
    factors = (inverse * (1 + scatter.clamp(max=1)), mean, var + mean.square())
    blank = [Moments(center, torch.zeros_like(center))] * (len(call.node.outputs) - 1)
    return [_affine(Moments(mean, var), weight, bias), *blank], factors


def _affine(moments: Moments, weight: Tensor | None, bias: Tensor | None) -> Moments:
    mean, var = moments.mean, moments.var
    if weight is not None:
        mean, var = mean * weight, var * weight.square()
    return Moments(mean if bias is None else mean + bias, var)


def _observe_normalised(x: Tensor, dims: Sequence[int], eps: float) -> Factors:
    variance, mean = torch.var_mean(x, list(dims), correction=0, keepdim=True)
    inverse = 1 / (variance + eps)
    standard = (x - mean) * inverse.sqrt()
    return inverse, standard, standard.square()


def _pull_normalised(energy: Tensor, factors: Factors, dims: Sequence[int], weight: Tensor | None) -> Tensor:
    inverse, first, second = factors
    dims = list(dims)
    count = math.prod(energy.shape[d] for d in dims)
    own = energy if weight is None else energy * weight.square()
    total, along, squared = (t.sum(dims, keepdim=True) for t in (own, own * first, own * second))
    shared = (total + 2 * first * along + second * squared) / count**2
    return inverse * (own * (1 - 2 / count - 2 * second / count) + shared)


def _last(source: Value, normalized_shape: Sequence[int]) -> list[int]:
    return list(range(len(source.shape) - len(normalized_shape), len(source.shape)))


def expect_layer_norm(
    call: Call, source: Value, normalized_shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[list[Moments], Factors]:
    """Over the last dimensions."""
    weight, bias = (None if t is None else t.detach() for t in (weight, bias))
    return _expect_normalised(call, source, _last(source, normalized_shape), weight, bias, eps)


def observe_layer_norm(
    call: Call, source: Value, normalized_shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> Factors:
    """1/s^2 and the normalised elements."""
    return _observe_normalised(call.tensors[source], _last(source, normalized_shape), eps)


def pull_layer_norm(
    call: Call,
    factors: Factors,
    energies: Sequence[Tensor],
    source: Value,
    normalized_shape: Sequence[int],
    weight: Any,
    bias: Any,
    eps: float,
) -> list[Tensor | None]:
    """Scale, mean removal and the coupling through the norm, all exact for independent incoming gradients."""
    weight = None if weight is None else weight.detach()
    return [_pull_normalised(energies[0], factors, _last(source, normalized_shape), weight)]


def _grouped(source: Value, groups: int) -> tuple[int, ...]:
    return (source.shape[0], groups, source.shape[1] // groups, *source.shape[2:])


def expect_group_norm(
    call: Call, source: Value, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float
) -> tuple[list[Moments], Factors]:
    """Over each group's channels and the whole image."""
    view = Value(_grouped(source, groups))
    inner = Call(call.node, {view: moved(call.moments[source], source.shape, lambda t: t.reshape(view.shape))})
    (normal, *_), factors = _expect_normalised(inner, view, range(2, len(view.shape)), None, None, eps)
    normal = moved(normal, view.shape, lambda t: t.reshape(source.shape))
    return [_affine(normal, _columns(call, weight), _columns(call, bias))] * len(call.node.outputs), factors


def observe_group_norm(
    call: Call, source: Value, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float
) -> Factors:
    """As for layer norm."""
    shape = _grouped(source, groups)
    return _observe_normalised(call.tensors[source].reshape(shape), range(2, len(shape)), eps)


def pull_group_norm(
    call: Call,
    factors: Factors,
    energies: Sequence[Tensor],
    source: Value,
    weight: Any,
    bias: Any,
    n: int,
    c: int,
    hw: int,
    groups: int,
    eps: float,
) -> list[Tensor | None]:
    """As for layer norm; the statistics spread a small share over the whole image."""
    shape = _grouped(source, groups)
    scale = _columns(call, weight)
    energy = energies[0] if scale is None else energies[0] * scale.square()
    pulled = _pull_normalised(energy.reshape(shape), factors, range(2, len(shape)), None)
    return [pulled.reshape(source.shape)]


BATCH_NORM = EnergyRule(expect_batch_norm, pull_batch_norm, observe_batch_norm)
LAYER_NORM = EnergyRule(expect_layer_norm, pull_layer_norm, observe_layer_norm)
GROUP_NORM = EnergyRule(expect_group_norm, pull_group_norm, observe_group_norm)
