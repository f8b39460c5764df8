"""DeepLift: finite differences from a baseline handed back through the network, activation by activation."""

from __future__ import annotations

import warnings
from functools import partial

import torch
from captum.attr import NeuronDeepLift
from jaxtyping import Float
from torch import Tensor

from erflab.attribution.base import Aim, Batch
from erflab.attribution.completeness import refuse_incomplete
from erflab.attribution.coverage import NONLINEAR, PRODUCTS, refuse_reused, refuse_unhooked
from erflab.attribution.deeplift_rules import HOOKED, repaired
from erflab.attribution.gradient import Selector, gradient_maps
from erflab.config import DeepLiftConfig
from erflab.target import Trunk


def deeplift(trunk: Trunk, images: Tensor, selector: Selector, baseline: Tensor) -> Float[Tensor, "batch k y x"]:
    """(x - b) * the multipliers of DeepLift's rescale rule: delta out / delta in in place of every activation's slope.

    Shrikumar, Greenside and Kundaje, ICML 2017 (arXiv:1704.02685); one pass where integrated gradients need
    dozens. On trunks with one nonlinear layer both agree.

    Caveat: a pixel equal to the baseline gets nothing, and another baseline is another map. The multipliers depend on how a
    function is written as layers, not on the function alone (Sundararajan et al. 2017 call that implementation variant).

    Raises MeasurementError where captum's rules do not cover the trunk: an activation that is no module or of another kind, a
    product of two activations, a module that runs twice; or where, for whatever reason, the attributions do not sum to the
    output's change, which with full coverage they do to rounding.
    """
    refuse_unhooked(trunk, tuple(images.shape), NONLINEAR | PRODUCTS, HOOKED, "deeplift")
    refuse_reused(trunk, tuple(images.shape), HOOKED, "deeplift")
    with repaired(trunk), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting forward, backward hooks and attributes", UserWarning)
        attributions: Tensor = NeuronDeepLift(trunk, trunk.tap).attribute(
            images.detach().requires_grad_(True),
            lambda y: torch.cat([selector(half) for half in y.chunk(2)]),  # images and baselines run as one batch
            baselines=baseline,
        )
    attributions = attributions.detach()
    rounding = torch.finfo(attributions.dtype).eps ** 0.5
    advice = "deeplift's rules do not cover this network; choose attribution=integrated_gradients."
    refuse_incomplete(trunk, images, baseline, selector, attributions, rounding, advice)
    return attributions


def deeplift_maps(
    trunk: Trunk, batch: Batch, aim: Aim, config: DeepLiftConfig, seed: int
) -> Float[Tensor, "batch y x"]:
    """One map an image. Random signs give the energy without bias, for the multipliers are linear in the output's seed."""
    attribute = partial(deeplift, baseline=batch.reference)
    return gradient_maps(trunk, batch, aim, config.magnitude, seed=seed, draws=config.draws, attribute=attribute)
