"""Integrated gradients: the gradient averaged on the straight path from a baseline, times the way gone."""

from __future__ import annotations

from functools import partial

import torch
from captum.attr import NeuronIntegratedGradients
from jaxtyping import Float
from torch import Tensor

from erflab.attribution.base import Aim, Batch
from erflab.attribution.completeness import refuse_incomplete
from erflab.attribution.gradient import Selector, gradient_maps
from erflab.config import IntegratedGradientsConfig
from erflab.target import Trunk


def integrated_gradients(
    trunk: Trunk, images: Tensor, selector: Selector, baseline: Tensor, steps: int, tolerance: float
) -> Float[Tensor, "batch k y x"]:
    """(x - b) * integral over t in [0, 1] of d selector(y(b + t (x - b))) / dx, by Gauss-Legendre quadrature in `steps` points.

    Sundararajan, Taly and Yan, ICML 2017, equation 1. It sees what the gradient at x alone misses: a unit that is
    saturated, or that is off at x and on along the path.

    Caveat: a pixel equal to the baseline gets nothing, and another baseline is another map. Images on the path are no
    natural images. Kinks of ReLUs on the path make the quadrature converge slowly, as 1 / steps, and
    captum keeps its weights in float32, good to 1e-7 of the map.

    Raises MeasurementError if the attributions miss the output's change by more than `tolerance` of themselves.
    """
    count = len(images)
    attributions: Tensor = NeuronIntegratedGradients(trunk, trunk.tap).attribute(
        images.detach().requires_grad_(True),
        lambda y: torch.cat([selector(part) for part in y.split(count)]),  # captum may run several points at once
        baselines=baseline,
        n_steps=steps,
        internal_batch_size=count,
    )
    attributions = attributions.detach()
    advice = f"In {steps} steps; raise attribution.integrated_gradients.steps, or .tolerance."
    refuse_incomplete(trunk, images, baseline, selector, attributions, tolerance, advice)
    return attributions


def integrated_gradients_maps(
    trunk: Trunk, batch: Batch, aim: Aim, config: IntegratedGradientsConfig, seed: int
) -> Float[Tensor, "batch y x"]:
    """One map an image. Random signs give the energy without bias, for the attribution is linear in the output."""
    attribute = partial(integrated_gradients, baseline=batch.reference, steps=config.steps, tolerance=config.tolerance)
    return gradient_maps(trunk, batch, aim, config.magnitude, seed=seed, draws=config.draws, attribute=attribute)
