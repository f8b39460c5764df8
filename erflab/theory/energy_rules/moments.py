"""Mean and variance of every activation, per channel: what the mean field knows of a layer before it sees an image.

A layer's elements along its image axes are taken as draws from one Gaussian a channel. Tensors of moments have the
activation's number of dimensions and one element along every dimension on which nothing varies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Standard normal nodes reach from -_REACH to _REACH, symmetric about zero and none at it, where rectifiers have their kink.
# For smooth functions a step of 0.5 is as good as any (the trapezoidal rule on a Gaussian); kinks want fine ones.
_REACH = 6.0
_FEWEST, _MOST = 24, 240
_BUDGET = 2**22  # evaluations a function, below which more nodes are taken

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Source:
    """The Gaussian that a pointwise function was applied to: what a max-pool after it needs to know."""

    mean: Tensor
    var: Tensor
    function: Function


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of an activation's elements.

    source: set where the activation is a pointwise function of a Gaussian, None where it is taken for one itself.
    """

    mean: Tensor
    var: Tensor
    source: Source | None = None

    @property
    def second(self) -> Tensor:
        """E[x^2]."""
        return self.var + self.mean.square()


def constant(value: Tensor | float, dims: int, like: Tensor) -> Moments:
    """A number or a tensor that does not depend on the input, with `dims` dimensions, of the dtype and device of `like`."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
    tensor = tensor.reshape((1,) * max(dims - tensor.dim(), 0) + tuple(tensor.shape))
    return Moments(tensor, torch.zeros_like(tensor[(slice(0, 1),) * tensor.dim()]))


def gaussian(moments: Moments, function: Function) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and E[phi'(z)^2] of a pointwise function phi of z ~ N(mean, var)."""
    return _expectations(function, moments.mean, moments.var, 1)


def largest(moments: Moments, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of the largest of `count` independent draws, and E[phi'(z)^2] at it.

    The draws are phi(z) with a rising phi (a rectifier, as a rule), so the largest is phi of the largest z. For a ReLU
    of centred z the last number is 1 - 2^(-count): a rectifier is active at nearly every unit that a max-pool selects.
    """
    source = moments.source or Source(moments.mean, moments.var, lambda z: z * 1.0)
    return _expectations(source.function, source.mean, source.var, count)


def largest_along(
    moments: Moments, shape: Sequence[int], dims: Sequence[int], *, smallest: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of the largest (or smallest) element of whole lines along `dims` of a tensor of `shape`.

    Third, for every element: the probability that it is chosen times E[phi'(z)^2] where it is, over E[phi'(z)^2] anywhere
    (by which the rectifier's own rule will multiply). An element is chosen if its z is the largest, z ~ N(mean, var)
    being what a rising phi is applied to: with density f_j prod_{i != j} F_i.
    """
    source = moments.source or Source(moments.mean, moments.var, lambda z: z * 1.0)
    sign = -1.0 if smallest else 1.0
    mean, var = torch.broadcast_tensors(sign * source.mean, source.var)
    spread = var.clamp(min=1e-24).sqrt()
    copies = math.prod(shape[d] // mean.shape[d] for d in dims)
    low, high = (mean - _REACH * spread).amin(dims, keepdim=True), (mean + _REACH * spread).amax(dims, keepdim=True)
    steps = torch.linspace(0, 1, _MOST, dtype=mean.dtype, device=mean.device).reshape(-1, *(1,) * mean.dim())
    z = low + (high - low) * steps
    standard = (z - mean) / spread
    below = torch.special.log_ndtr(standard)
    lines = [d + 1 for d in dims]
    weight = copies * below.sum(lines, keepdim=True) - below - standard.square() / 2 - spread.log()
    weight = (weight - weight.amax([0, *lines], keepdim=True)).exp()
    weight = weight / weight.sum([0, *lines], keepdim=True)
    value, slope = with_derivative(source.function, sign * z)
    first = (weight * value).sum([0, *lines], keepdim=True)
    second = (weight * (value - first).square()).sum([0, *lines], keepdim=True)
    anywhere = gaussian(Moments(source.mean, source.var), source.function)[2]
    chosen = (weight * slope.square()).sum(0) / copies
    return first[0], second[0], torch.where(anywhere > 0, chosen / anywhere.clamp(min=1e-30), 0.0)


def _expectations(function: Function, mean: Tensor, var: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Expectations over the density n phi(t) Phi(t)^(n - 1) of the largest of n standard normal draws."""
    shape = torch.broadcast_shapes(mean.shape, var.shape)
    nodes = _nodes(shape.numel())
    weight = torch.exp(-nodes.square() / 2) * torch.special.ndtr(nodes) ** (count - 1)
    column = (-1,) + (1,) * len(shape)
    weight = (weight / weight.sum()).to(mean).reshape(column)
    z = mean + var.clamp(min=0).sqrt() * nodes.to(mean).reshape(column)
    value, slope = with_derivative(function, z)
    first = _weighted(weight, value)
    return first, _weighted(weight, (value - first).square()), _weighted(weight, slope.square())


def _nodes(elements: int) -> Tensor:
    count = 2 * (min(max(_BUDGET // max(elements, 1), _FEWEST), _MOST) // 2)
    return (torch.arange(count, dtype=torch.float64) + 0.5) * (2 * _REACH / count) - _REACH


def _weighted(weight: Tensor, values: Tensor) -> Tensor:
    """The weighted mean over nodes at which the function is defined (a root of a Gaussian's left tail is not)."""
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return (weight * values).sum(0)
    weight = weight * finite
    return (weight * values.nan_to_num(0, 0, 0)).sum(0) / weight.sum(0).clamp(min=1e-12)


def with_derivative(function: Function, z: Tensor) -> tuple[Tensor, Tensor]:
    """phi(z) and phi'(z), element by element; the derivative of a step function is zero."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        value = function(z)
        if not value.requires_grad:
            return value, torch.zeros_like(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


def tighten(tensor: Tensor) -> Tensor:
    """One element along every dimension on which the tensor is constant."""
    for dim, n in enumerate(tensor.shape):
        first = tensor.narrow(dim, 0, min(n, 1))
        if n > 1 and (tensor.stride(dim) == 0 or bool((tensor == first).all())):
            tensor = first
    return tensor


def moved(moments: Moments, shape: Sequence[int], move: Function) -> Moments:
    """Moments after a call that only moves elements (a view, a slice, a roll), given as a function of the full tensor."""
    mean, var = (tighten(move(t.expand(tuple(shape)))) for t in (moments.mean, moments.var))
    return Moments(mean, var)


def pooled(moments: Moments, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance of an element drawn at random along `dims` (law of total variance)."""
    mean = average(moments.mean, dims)
    return mean, average(moments.var + (moments.mean - mean).square(), dims)


def average(tensor: Tensor, dims: Sequence[int]) -> Tensor:
    """The mean over `dims`, which stay with length one."""
    kept = [d for d in dims if tensor.shape[d] > 1]
    return tensor.mean(kept, keepdim=True) if kept else tensor


def filled(tensor: Tensor, shape: Sequence[int], dims: Sequence[int]) -> Tensor:
    """The tensor with its full length along `dims`."""
    wanted = list(tensor.shape)
    for d in dims:
        wanted[d] = shape[d]
    return tensor.expand(wanted)
