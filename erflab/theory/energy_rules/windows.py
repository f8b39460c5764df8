"""Energy rules of convolutions, pooling and resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from erflab.theory.energy_rules.meanfield import Call, EnergyRule, Factors, function
from erflab.theory.energy_rules.moments import Moments, constant, filled, gaussian, largest, pooled
from erflab.theory.graph import Value
from erflab.theory.linear_maps import along_axis


def _per_axis(value: Any, axes: int) -> list[Any]:
    """A per-axis setting, one number standing for all axes."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * axes if len(values) == 1 else values


# --- convolution ----------------------------------------------------------------------------------------------------------


def expect_convolution(
    call: Call,
    source: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Any,
    dilation: Any,
    transposed: bool,
    _: Any,
    groups: int,
) -> tuple[list[Moments], Factors]:
    """Means through W, variances through W * W, of independent inputs; borders are left out.

    A kernel that depends on the input has E[w^2] in place of w^2, and gets energy by E[x^2]. A transposed convolution
    reaches each output with one in prod(stride) of its taps, on average.
    """
    image = range(2, len(source.shape))
    inputs, kernel = _moments_of(call, source), _moments_of(call, weight)
    first, spread = (filled(t, source.shape, [1]).reshape(-1) for t in pooled(inputs, [0, *image]))
    share = math.prod(_per_axis(stride, len(image))) if transposed else 1
    mean, var = (
        _mixed(_summed_taps(w, weight), t, groups, transposed) / share
        for w, t in ((kernel.mean, first), (kernel.second, spread))
    )
    if isinstance(weight, Value):
        var = var + _mixed(_summed_taps(kernel.var, weight), first.square(), groups, transposed) / share
    if bias is not None:
        added = _moments_of(call, bias)
        mean, var = mean + added.mean, var + added.var
    shape = (1, -1, *(1 for _ in image))
    factors = (kernel.second, inputs.second) if isinstance(weight, Value) else ()
    return [Moments(mean.reshape(shape), var.reshape(shape))], factors


def _moments_of(call: Call, operand: Any) -> Moments:
    return call.moments[operand] if isinstance(operand, Value) else constant(operand, operand.dim(), operand)


def _summed_taps(taps: Tensor, weight: Any) -> Tensor:
    return taps.expand(weight.shape).flatten(2).sum(-1)


def observe_convolution(call: Call, source: Any, weight: Any, *_: Any) -> Factors:
    """w^2 and x^2 where the kernel depends on the input."""
    return (call.actual(weight).square(), call.actual(source).square()) if isinstance(weight, Value) else ()


def _mixed(weight: Tensor, inputs: Tensor, groups: int, transposed: bool) -> Tensor:
    """One number an output channel: each group's weights times its inputs."""
    blocks: Tensor = weight.reshape(groups, -1, weight.shape[1])
    blocks = blocks.transpose(1, 2) if transposed else blocks
    return (blocks @ inputs.reshape(groups, -1, 1)).flatten()


def pull_convolution(
    call: Call,
    factors: Factors,
    energies: Sequence[Tensor],
    source: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> list[Tensor | None]:
    """The gradients of the convolution with its weights and inputs squared: (W * W)^T, and x^2 gathered at each tap."""
    operands = (source, weight, bias)
    wanted = tuple(isinstance(o, Value) for o in operands)
    # Without an energy for the kernel, the input's values do not matter.
    squared, inputs = factors or (weight.detach().square(), energies[0].new_empty(1))
    sizes = None if bias is None else list(bias.shape)
    settings = (sizes, stride, padding, dilation, transposed, output_padding, groups, wanted)
    pulled = torch.ops.aten.convolution_backward(
        energies[0], inputs.expand(source.shape), squared.expand(weight.shape), *settings
    )
    return [p for p, w in zip(pulled, wanted, strict=True) if w]


# --- separable maps: pooling, interpolation -------------------------------------------------------------------------------


def _apply(energy: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """The transpose of one matrix [out, in] an image axis, on the last axes."""
    first = energy.dim() - len(matrices)
    for dim, matrix in enumerate(matrices, first):
        energy = (energy.transpose(dim, -1) @ matrix.to(energy)).transpose(dim, -1)
    return energy.contiguous()


def _averaged(call: Call, source: Value, matrices: Sequence[Tensor]) -> tuple[list[Moments], Factors]:
    """Moments of a linear map along the image axes, at an average output; borders are left out."""
    dims = range(len(source.shape) - len(matrices), len(source.shape))
    mean, var = pooled(call.moments[source], dims)
    gain = math.prod(float(m.square().sum(1).mean()) for m in matrices)
    return [Moments(mean, var * gain)] * len(call.node.outputs), ()


def _average_matrices(call: Call, source: Value, kernel: Any, *settings: Any) -> list[Tensor]:
    axes = len(_per_axis(kernel, len(source.shape) - 2))
    defaults: list[Any] = [[], 0, False, True, None]
    stride, padding, ceil, include, divisor = [*settings, *defaults[len(settings) :]]
    if divisor is not None:
        raise call.unknown("average pooling with a divisor of its own")
    windows = zip(*(_per_axis(s, axes) for s in (kernel, stride or kernel, padding)), strict=True)
    return [
        avg_pool1d(torch.eye(n, dtype=torch.float64)[None], k, s, p, ceil, include)[0].T
        for n, (k, s, p) in zip(source.shape[-axes:], windows, strict=True)
    ]


def expect_average_pool(call: Call, source: Value, kernel: Any, *settings: Any) -> tuple[list[Moments], Factors]:
    """The average of independent elements."""
    return _averaged(call, source, _average_matrices(call, source, kernel, *settings))


def pull_average_pool(
    call: Call, _: Factors, energies: Sequence[Tensor], source: Value, kernel: Any, *settings: Any
) -> list[Tensor | None]:
    """Squared coefficients."""
    return [_apply(energies[0], [m.square() for m in _average_matrices(call, source, kernel, *settings)])]


def _resampling_matrices(call: Call, source: Value, *settings: Any) -> list[Tensor]:
    """The matrix of each axis, by running the operation on unit vectors along it."""
    first = 2 if "upsample" in call.node.op else len(source.shape) - len(_per_axis(settings[0], 1))

    def run(axis: int, lines: Tensor, size: list[int]) -> Tensor:
        answer: Tensor = function(call.node.op)(lines, size, *_resampling_settings(settings, axis))
        return answer

    lengths = enumerate(zip(source.shape[first:], call.shape[first:], strict=True))
    axes = len(call.shape) - first
    return [along_axis(axes, axis, n, out, partial(run, axis)) for axis, (n, out) in lengths]


def _resampling_settings(settings: Sequence[Any], axis: int) -> list[Any]:
    """align_corners, and the scale of this axis alone (the others keep their length)."""
    flags = [s for s in settings[1:] if isinstance(s, bool)]
    scales = [s for s in settings[1:] if not isinstance(s, bool)]
    return flags + [s if i == axis else None for i, s in enumerate(scales)]


def expect_resampled(call: Call, source: Value, *settings: Any) -> tuple[list[Moments], Factors]:
    """Interpolation or adaptive average pooling of independent elements."""
    return _averaged(call, source, _resampling_matrices(call, source, *settings))


def pull_resampled(
    call: Call, _: Factors, energies: Sequence[Tensor], source: Value, *settings: Any
) -> list[Tensor | None]:
    """Squared coefficients."""
    return [_apply(energies[0], [m.square() for m in _resampling_matrices(call, source, *settings)])]


# --- max pooling ----------------------------------------------------------------------------------------------------------


def expect_max_pool(call: Call, source: Value, kernel: Any, *_: Any, **__: Any) -> tuple[list[Moments], Factors]:
    """The largest of as many independent draws as the window has taps.

    The factor is E[phi'^2] of the rectifier before it at the selected unit over that at any unit (1 without one): the
    rectifier's own rule will multiply by the latter.
    """
    before = call.moments[source]
    mean, var, selected = largest(before, math.prod(_per_axis(kernel, len(source.shape) - 2)))
    anywhere = torch.ones_like(selected)
    if before.source is not None:
        anywhere = gaussian(Moments(before.source.mean, before.source.var), before.source.function)[2]
    ratio = torch.where(anywhere > 0, selected / anywhere.clamp(min=1e-30), 0.0)
    return [Moments(mean, var)] * len(call.node.outputs), (ratio,)


def observe_max_pool(call: Call, *_: Any, **__: Any) -> Factors:
    """The selected units themselves, as flat indices into each channel's image."""
    return (call.tensors[call.node.outputs[1]],)


def pull_max_pool(
    call: Call,
    factors: Factors,
    energies: Sequence[Tensor],
    source: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> list[Tensor | None]:
    """To the selected units where they are known; else each valid tap is selected equally often."""
    axes = len(source.shape) - 2
    if not factors[0].is_floating_point():
        indices, energy = factors[0].flatten(-axes), energies[0].flatten(-axes)
        blank = energy.new_zeros(source.shape).flatten(-axes)
        return [blank.scatter_add_(-1, indices, energy).reshape(source.shape)]
    settings = (_per_axis(s, axes) for s in (kernel, stride or kernel, padding, dilation))
    shares = [
        _taps(n, out, *window)
        for n, out, *window in zip(source.shape[-axes:], call.shape[-axes:], *settings, strict=True)
    ]
    return [_apply(energies[0], shares) * factors[0]]


def _taps(n: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Rows that give each valid tap of a window an equal share, [out, n]."""
    taps = torch.arange(out)[:, None] * stride - padding + torch.arange(kernel) * dilation
    rows = torch.zeros(out, n + 1).scatter_(1, torch.where((taps >= 0) & (taps < n), taps, n), 1.0)[:, :n]
    return rows / rows.sum(1, keepdim=True)


CONVOLUTION = EnergyRule(expect_convolution, pull_convolution, observe_convolution)
AVERAGE_POOL = EnergyRule(expect_average_pool, pull_average_pool)
RESAMPLED = EnergyRule(expect_resampled, pull_resampled)
MAX_POOL = EnergyRule(expect_max_pool, pull_max_pool, observe_max_pool)
