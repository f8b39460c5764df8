"""Gradient attribution: how much each pixel matters, infinitesimally, through captum's NeuronGradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from captum.attr import NeuronGradient
from jaxtyping import Float
from torch import Tensor

from erflab.attribution.base import Aim, Batch
from erflab.attribution.signs import random_signs
from erflab.target import Trunk, read_together

Selector = Callable[[Tensor], Tensor]
"""Units [B, C, H', W'] -> one scalar an image, [B]."""
Attribution = Callable[[Trunk, Tensor, Selector], Tensor]
"""(trunk, images [B, K, H, W], selector) -> what each pixel has to do with the selected scalar, [B, K, H, W]."""
Seeds = Callable[[int, Sequence[int], int, int, torch.device], Tensor]
"""(seed, image indices, channels C, draw, device) -> v [B, C] with E v v^T = 1: `random_signs` and its like."""
Signs = Callable[[int], Tensor]
"""Number of channels C -> v [B, C]."""


def input_gradient(
    trunk: Trunk, images: Float[Tensor, "batch k y x"], selector: Selector
) -> Float[Tensor, "batch k y x"]:
    """D selector(y) / dx, one scalar an image, where y [B, C, H', W'] are the trunk's units.

    captum runs the trunk once and takes the gradient at `trunk.tap`; it wants inputs that already require a gradient.
    """
    inputs = images.detach().requires_grad_(True)
    gradient: Tensor = NeuronGradient(trunk, trunk.tap).attribute(inputs, selector, attribute_to_neuron_input=False)
    return gradient.detach()


@dataclass(frozen=True)
class Magnitude:
    """What is differentiated, and what becomes of the gradient.

    select: outputs [B, C, units] and signs [B, C] -> one scalar an image. reduce: gradient [B, K, H, W] -> map [B, H, W], in
    float64, since the square of 1e-20 is no float32.
    """

    select: Callable[[Tensor, Tensor], Tensor]
    reduce: Callable[[Tensor], Tensor]
    random: bool = False


MAGNITUDES: dict[str, Magnitude] = {
    # sum_k (sum_c v_c J[c, k, p])^2 with random signs v: unbiased for sum_k sum_c J^2. J is the Jacobian, or what another
    # attribution gives for each channel, as long as that is linear in the selected scalar.
    "energy": Magnitude(lambda y, v: (y * v[..., None]).sum((1, 2)), lambda g: g.square().sum(1), random=True),
    # sum_k |sum_c J[c, k, p]|
    "absolute": Magnitude(lambda y, _: y.sum((1, 2)), lambda g: g.abs().sum(1)),
    # sum_k sum_c J[c, k, p]
    "signed": Magnitude(lambda y, _: y.sum((1, 2)), lambda g: g.sum(1)),
    # sum_k relu(d/dx_k sum_c relu(y_c)), the protocol of Ding et al., CVPR 2022 (RepLKNet).
    "replknet": Magnitude(lambda y, _: y.relu().sum((1, 2)), lambda g: g.relu().sum(1)),
}


def one_draw(
    trunk: Trunk,
    images: Float[Tensor, "batch k y x"],
    aim: Aim,
    row: Magnitude,
    signs: Signs,
    attribute: Attribution = input_gradient,
) -> Float[Tensor, "batch v u"]:
    """The map of one draw of signs, through captum."""

    def selector(outputs: Tensor) -> Tensor:
        y = aim.read(outputs)
        return row.select(y, signs(y.shape[1]).to(y))

    return aim.gather(row.reduce(attribute(trunk, images, selector).double()))


def gradient_maps(
    trunk: Trunk,
    batch: Batch,
    aim: Aim,
    magnitude: str,
    *,
    seed: int = 0,
    draws: int = 1,
    attribute: Attribution = input_gradient,
    seeds: Seeds = random_signs,
) -> Float[Tensor, "batch v u"]:
    """One map an image of the chosen magnitude, of the gradient or what stands for it, through captum."""
    row = MAGNITUDES[magnitude]
    signs = _signs(batch, seed, draws if row.random else 1, seeds)
    return torch.stack([one_draw(trunk, batch.images, aim, row, draw, attribute) for draw in signs]).mean(0)


def shared_gradient_maps(
    trunks: Sequence[Trunk], batch: Batch, aims: Sequence[Aim], magnitude: str, *, seed: int = 0, draws: int = 1
) -> list[Float[Tensor, "batch v u"]]:
    """As `gradient_maps` for several trunks of one model, from one forward pass and one backward pass a trunk and draw.

    captum runs the model anew for every attribution, so here autograd is asked directly; the numbers are the same.
    """
    row = MAGNITUDES[magnitude]
    signs = _signs(batch, seed, draws if row.random else 1)
    inputs = batch.images.detach().requires_grad_(True)
    outputs = read_together(trunks, inputs, [aim.read for aim in aims])
    maps = []
    for aim, y in zip(aims, outputs, strict=True):
        scalars = [row.select(y, draw(y.shape[1]).to(y)).sum() for draw in signs]
        gradients = [torch.autograd.grad(scalar, inputs, retain_graph=True)[0] for scalar in scalars]
        maps.append(aim.gather(torch.stack([row.reduce(gradient.double()) for gradient in gradients]).mean(0)))
    return maps


def _signs(batch: Batch, seed: int, draws: int, seeds: Seeds = random_signs) -> list[Signs]:
    def of_draw(draw: int) -> Signs:
        return lambda channels: seeds(seed, batch.indices, channels, draw, batch.images.device)

    return [of_draw(draw) for draw in range(draws)]
