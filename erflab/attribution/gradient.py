"""Gradient attribution: how much each pixel matters, infinitesimally, through captum's NeuronGradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from captum.attr import NeuronGradient
from jaxtyping import Float
from torch import Tensor

from erflab.attribution.base import Batch
from erflab.attribution.signs import random_signs
from erflab.errors import MeasurementError
from erflab.target import Trunk

Selector = Callable[[Tensor], Tensor]
"""Units [B, C, H', W'] -> one scalar an image, [B]."""
Attribution = Callable[[Trunk, Tensor, Selector], Tensor]
"""(trunk, images [B, K, H, W], selector) -> what each pixel has to do with the selected scalar, [B, K, H, W]."""
Seeds = Callable[[int, Sequence[int], int, int, torch.device], Tensor]
"""(seed, image indices, channels C, draw, device) -> v [B, C] with E v v^T = 1: `random_signs` and its like."""


def input_gradient(
    trunk: Trunk, images: Float[Tensor, "batch k y x"], selector: Selector
) -> Float[Tensor, "batch k y x"]:
    """D selector(y) / dx, one scalar an image, where y [B, C, H', W'] are the trunk's units.

    captum runs the trunk once and takes the gradient at `trunk.tap`; it wants inputs that already require a gradient.
    """
    inputs = images.detach().requires_grad_(True)
    gradient: Tensor = NeuronGradient(trunk, trunk.tap).attribute(inputs, selector, attribute_to_neuron_input=False)
    return gradient.detach()


def energy(
    trunk: Trunk,
    images: Tensor,
    unit: tuple[int, int],
    signs: Callable[[int], Tensor],
    attribute: Attribution = input_gradient,
) -> Float[Tensor, "batch y x"]:
    """sum_k (sum_c v_c J[c, k, p])^2 for one sign vector v an image: unbiased for sum_k sum_c J^2.

    `signs` gives them, [B, C], for the number of channels C that the layer turns out to have. J is the Jacobian, or what
    another `attribute` gives for each channel, as long as that is linear in the selected scalar.
    """
    found = attribute(trunk, images, lambda y: (y[:, :, unit[0], unit[1]] * signs(y.shape[1]).to(y)).sum(1))
    return found.square().sum(1)


def absolute(
    trunk: Trunk, images: Tensor, unit: tuple[int, int], attribute: Attribution = input_gradient
) -> Float[Tensor, "batch y x"]:
    """sum_k |sum_c J[c, k, p]|."""
    return attribute(trunk, images, lambda y: y[:, :, unit[0], unit[1]].sum(1)).abs().sum(1)


def signed(
    trunk: Trunk, images: Tensor, unit: tuple[int, int], attribute: Attribution = input_gradient
) -> Float[Tensor, "batch y x"]:
    """sum_k sum_c J[c, k, p]."""
    return attribute(trunk, images, lambda y: y[:, :, unit[0], unit[1]].sum(1)).sum(1)


def replknet(
    trunk: Trunk, images: Tensor, unit: tuple[int, int], attribute: Attribution = input_gradient
) -> Float[Tensor, "batch y x"]:
    """sum_k relu(d/dx_k sum_c relu(y_c)), the protocol of Ding et al., CVPR 2022 (RepLKNet)."""
    return attribute(trunk, images, lambda y: y[:, :, unit[0], unit[1]].relu().sum(1)).relu().sum(1)


_PLAIN = {"absolute": absolute, "signed": signed, "replknet": replknet}


def gradient_maps(
    trunk: Trunk,
    batch: Batch,
    unit: tuple[int, int],
    magnitude: str,
    *,
    seed: int = 0,
    draws: int = 1,
    attribute: Attribution = input_gradient,
    seeds: Seeds = random_signs,
) -> Float[Tensor, "batch y x"]:
    """One map an image, [B, H, W], of the chosen magnitude (see the functions above), of the gradient or what stands for it.

    Raises MeasurementError naming the image if a gradient is not finite.
    """
    if magnitude == "energy":
        drawn = [_drawn(seeds, seed, batch, draw) for draw in range(draws)]
        maps = torch.stack([energy(trunk, batch.images, unit, signs, attribute) for signs in drawn]).mean(0)
    else:
        maps = _PLAIN[magnitude](trunk, batch.images, unit, attribute)
    _refuse_non_finite(maps, batch, trunk.layer)
    return maps


def _drawn(seeds: Seeds, seed: int, batch: Batch, draw: int) -> Callable[[int], Tensor]:
    return lambda channels: seeds(seed, batch.indices, channels, draw, batch.images.device)


def _refuse_non_finite(maps: Tensor, batch: Batch, layer: str) -> None:
    bad = ~torch.isfinite(maps).all(dim=2).all(dim=1)
    if bool(bad.any()):
        which = [i for i, b in zip(batch.indices, bad.tolist(), strict=True) if b]
        raise MeasurementError(
            f"the gradient of layer {layer!r} is not finite for image(s) {which[:8]}; check the weights and the "
            "normalisation, or try runtime.dtype=float64."
        )
