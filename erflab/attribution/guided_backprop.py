"""Guided backpropagation: the gradient, of which every ReLU lets only the positive part through."""

from __future__ import annotations

import warnings

from captum.attr import NeuronGuidedBackprop
from jaxtyping import Float
from torch import Tensor, nn

from erflab.attribution.base import Aim, Batch
from erflab.attribution.coverage import RECTIFIERS, refuse_unhooked
from erflab.attribution.gradient import Selector, gradient_maps
from erflab.attribution.signs import random_channels
from erflab.config import GuidedBackpropConfig
from erflab.target import Trunk


def guided_backprop(trunk: Trunk, images: Tensor, selector: Selector) -> Float[Tensor, "batch k y x"]:
    """The gradient of selector(y) with every ReLU's backward pass cut to its positive part.

    Springenberg et al. 2015 (arXiv:1412.6806). It is defined for ReLUs; other activations (sigmoid, tanh) pass
    the gradient on as it is.

    Caveat: it follows edges of the image rather than what the network has learnt: drawing the upper layers' weights anew
    hardly changes its maps (Adebayo et al., NeurIPS 2018; Nie et al., ICML 2018, show that it restores the image). Its
    extent is no measure of how much a pixel matters.

    Raises MeasurementError for a rectifier that is no nn.ReLU module, which captum would treat as plain gradient.
    """
    refuse_unhooked(trunk, tuple(images.shape), RECTIFIERS, (nn.ReLU,), "guided_backprop")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations", UserWarning)
        found: Tensor = NeuronGuidedBackprop(trunk, trunk.tap).attribute(
            images.detach().requires_grad_(True), selector, attribute_to_neuron_input=False
        )
    return found.detach()


def guided_backprop_maps(
    trunk: Trunk, batch: Batch, aim: Aim, config: GuidedBackpropConfig, seed: int
) -> Float[Tensor, "batch y x"]:
    """One map an image.

    Because of the cuts the attribution of a sum of channels is not the sum of theirs, so that random signs would not give
    sum_k sum_c a_c^2. One channel an image, drawn at random and scaled by sqrt(C), does, without bias: a positive factor
    passes through every cut. `absolute` and `signed` are of the sum of all channels.
    """
    return gradient_maps(
        trunk,
        batch,
        aim,
        config.magnitude,
        seed=seed,
        draws=config.draws,
        attribute=guided_backprop,
        seeds=random_channels,
    )
