"""Input times gradient: to first order, what each pixel adds to the output over what a baseline would."""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor

from erflab.attribution.base import Aim, Batch
from erflab.attribution.gradient import Selector, gradient_maps, input_gradient
from erflab.config import InputXGradientConfig
from erflab.target import Trunk


def input_x_gradient(
    trunk: Trunk, images: Tensor, selector: Selector, baseline: Tensor
) -> Float[Tensor, "batch k y x"]:
    """(x - b) * d selector(y) / dx, of Shrikumar et al. 2016 (arXiv:1605.01713), there with b = 0.

    On a network of ReLUs, max-pools and linear maps without biases it is layer-wise relevance propagation (LRP-0) too:
    Ancona et al., ICLR 2018. captum has no LRP of an inner unit.

    Caveat: a pixel equal to the baseline gets nothing, however much the unit depends on it, so that the map carries the
    image's own contrast: a dark or flat region reads as one that is not used. Nor do the attributions sum to the output's
    change, unless the trunk is linear.
    """
    return (images - baseline) * input_gradient(trunk, images, selector)


def input_x_gradient_maps(
    trunk: Trunk, batch: Batch, aim: Aim, config: InputXGradientConfig, seed: int
) -> Float[Tensor, "batch y x"]:
    """One map an image. Random signs give the energy without bias, for the attribution is linear in the output."""
    attribute = partial(input_x_gradient, baseline=batch.reference)
    return gradient_maps(trunk, batch, aim, config.magnitude, seed=seed, draws=config.draws, attribute=attribute)
