"""The attribution methods that give one value a pixel: each by name with its function and the unit of its attributions.

Occlusion has a map and plan of its own. captum's other attributions of an inner unit answer nothing that these leave open:
NeuronDeconvolution is guided backpropagation without the forward mask, NeuronGradientShap and NeuronDeepLiftShap
average two of these over random baselines, NeuronConductance passes through another layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from erflab.attribution.base import Aim, Batch
from erflab.attribution.deeplift import deeplift_maps
from erflab.attribution.gradient import gradient_maps
from erflab.attribution.guided_backprop import guided_backprop_maps
from erflab.attribution.input_x_gradient import input_x_gradient_maps
from erflab.attribution.integrated_gradients import integrated_gradients_maps
from erflab.config import GradientConfig
from erflab.target import Trunk


def _gradient(trunk: Trunk, batch: Batch, aim: Aim, config: GradientConfig, seed: int) -> Tensor:
    return gradient_maps(trunk, batch, aim, config.magnitude, seed=seed, draws=config.draws)


@dataclass(frozen=True)
class PixelMethod:
    """`maps(trunk, batch, aim, config, seed)` gives one map an image, [B, H, W]; `unit` is that of an attribution."""

    maps: Callable[[Trunk, Batch, Aim, Any, int], Tensor]
    unit: str

    def map_unit(self, magnitude: str) -> str:
        """The unit of a map of this magnitude."""
        if magnitude != "energy":
            return f"({self.unit})" if "/" in self.unit else self.unit
        return f"({self.unit})^2" if "/" in self.unit else f"{self.unit}^2"


PIXEL_METHODS: Mapping[str, PixelMethod] = {
    "gradient": PixelMethod(_gradient, "output/input"),
    "input_x_gradient": PixelMethod(input_x_gradient_maps, "output"),
    "integrated_gradients": PixelMethod(integrated_gradients_maps, "output"),
    "guided_backprop": PixelMethod(guided_backprop_maps, "output/input"),
    "deeplift": PixelMethod(deeplift_maps, "output"),
}

HOOKING = ("guided_backprop", "deeplift")
"""Methods that hook modules, each of which must then be run, and run once."""
