"""The settings of a measurement, as plain dataclasses: one class a group, every option with its help, ranges checked once.

The command line composes these with Hydra (`erflab.cli`); Python callers make them directly. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from erflab.attribution_config import (
    METHODS,
    AttributionConfig,
    BaselineConfig,
    DeepLiftConfig,
    GradientConfig,
    GuidedBackpropConfig,
    InputXGradientConfig,
    IntegratedGradientsConfig,
    MethodConfig,
    OcclusionConfig,
    SignedAttributionConfig,
)
from erflab.errors import ConfigError
from erflab.images_config import DatasetConfig, FolderConfig, ImagesConfig, NoiseConfig, PhotographsConfig
from erflab.runtime_config import FIGURES, RuntimeConfig
from erflab.settings import at_least, one_of, option, pair
from erflab.tracking_config import MLflowConfig, TensorBoardConfig, TrackingConfig

__all__ = [
    "FAMILIES",
    "FIGURES",
    "GRID",
    "METHODS",
    "WEIGHTS_WITHOUT_FILE",
    "AttributionConfig",
    "BaselineConfig",
    "DatasetConfig",
    "DeepLiftConfig",
    "ErflabConfig",
    "FalloffConfig",
    "FolderConfig",
    "GradientConfig",
    "GuidedBackpropConfig",
    "ImagesConfig",
    "InputXGradientConfig",
    "IntegratedGradientsConfig",
    "MLflowConfig",
    "MethodConfig",
    "ModelConfig",
    "NoiseConfig",
    "OcclusionConfig",
    "PhotographsConfig",
    "RuntimeConfig",
    "SignedAttributionConfig",
    "TargetConfig",
    "TensorBoardConfig",
    "TrackingConfig",
    "as_dict",
]

LAYOUTS = ("auto", "nchw", "nhwc", "tokens")
GRID = "grid"
WEIGHTS_WITHOUT_FILE = ("none", "pretrained", "efficientnet_lite0")
"""The values of model.weights that are no path."""
FAMILIES = ("gaussian", "exponential", "generalised_gaussian", "moffat")
"""As `analysis.lineshapes.LINE_SHAPES`, which would import more than a command line needs."""


@dataclass
class ModelConfig:
    """Which network, with which weights."""

    name: str | None = option(None, "a torchvision or timm model name, such as resnet50 or convnext_tiny")
    library: str = option("auto", "where to look the name up: torchvision, timm, or auto (torchvision first)")
    _target_: str | None = option(None, "import path of an nn.Module class, instead of a name (see runtime.allow)")
    arguments: dict[str, Any] = option({}, "keyword arguments for the model's constructor")
    weights: str = option(
        "none",
        "none (seeded random initialisation), pretrained (the library's own), efficientnet_lite0 (from its pip package), "
        "or the path of a .safetensors, .pth or .pt state dict",
    )
    layer: str | None = option(None, "the layer to measure where target.layer sets none")
    seed: int = option(0, "seed of the random initialisation")
    mean: list[float] | None = option(None, "channel means of the normalisation; default: the model's own metadata")
    std: list[float] | None = option(None, "channel standard deviations; default: the model's own metadata")

    def __post_init__(self) -> None:
        """Check what can be checked without building the model."""
        one_of("model.library", self.library, ("auto", "torchvision", "timm"))
        if (self.name is None) == (self._target_ is None):
            raise ConfigError(
                f"model.name is {self.name!r} and model._target_ is {self._target_!r}; give exactly one of them, "
                "such as model=resnet50 or model=custom model._target_=mypkg.MyNet."
            )
        if self.std is not None and any(s <= 0 for s in self.std):
            raise ConfigError(f"model.std is {list(self.std)}; every standard deviation must be positive.")


@dataclass
class TargetConfig:
    """Which unit of which layer."""

    layer: Any = option(
        None,
        "dotted module name, layer4.1.conv2; NAME:K for the K-th call of a reused module; a pattern, layer*; all; "
        "or a list of these; default: model.layer, else the last spatial one",
    )
    unit: Any = option(
        "center",
        "center, corner, or [i, j] on the layer's grid, negative indices counting from the end; a list of these; "
        "or grid, all units at once whose fields do not overlap",
    )
    channel: Any = option("all", "all, or the index of one channel")
    layout: str = option("auto", "order of the layer's output: nchw, nhwc, tokens [B, N, C], or auto")
    grid: list[int] | None = option(None, "rows and columns of a token grid, [h, w]; default: worked out")

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("target.layout", self.layout, LAYOUTS)
        layers = self.layer if isinstance(self.layer, (list, tuple)) else [self.layer]
        if not layers or not all(isinstance(name, str) for name in layers if self.layer is not None):
            raise ConfigError(f"target.layer is {self.layer!r}; give a name, a pattern, all, or a list of these.")
        for unit in self.units:
            if pair("target.unit", unit) is None:
                one_of("target.unit", unit, ("center", "corner") if len(self.units) > 1 else ("center", "corner", GRID))
        at_least("target.channel", self.channel, 0, or_word="all")
        if self.grid is not None and any(g < 1 for g in pair("target.grid", list(self.grid)) or ()):
            raise ConfigError(f"target.grid is {list(self.grid)}; rows and columns must be positive.")

    @property
    def units(self) -> list[Any]:
        """The units asked for, each "center", "corner" or a pair of indices ("grid" is placed about the centre)."""
        several = isinstance(self.unit, (list, tuple)) and any(not isinstance(u, int) for u in self.unit)
        return list(self.unit) if several else ["center" if self.unit == GRID else self.unit]


@dataclass
class FalloffConfig:
    """The model fitted to the falloff of each map."""

    family: str = option(
        "gaussian",
        "gaussian, exponential, generalised_gaussian or moffat; auto: the one of families that held-out images support",
    )
    families: list[str] = option(list(FAMILIES), "falloff families that auto compares")
    elliptical: bool = option(True, "two axes and an angle, instead of one width")
    floor: bool = option(True, "a constant background beside the peak")

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("falloff.family", self.family, (*FAMILIES, "auto"))
        for family in self.families:
            one_of("falloff.families", family, FAMILIES)
        if not self.families:
            raise ConfigError(f"falloff.families is empty; give some of {', '.join(FAMILIES)}.")


@dataclass
class ErflabConfig:
    """A whole measurement."""

    model: ModelConfig
    images: ImagesConfig
    attribution: AttributionConfig
    target: TargetConfig = field(default_factory=TargetConfig, metadata={"help": "which unit of which layer"})
    falloff: FalloffConfig = field(default_factory=FalloffConfig, metadata={"help": "the falloff model"})
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig, metadata={"help": "where and how to run"})
    tracking: TrackingConfig = field(default_factory=TrackingConfig, metadata={"help": "where runs are tracked"})
    seed: int = option(0, "one seed for initialisation, images and signs, where a group sets none of its own")


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain nested dictionaries, ready for JSON."""
    return dataclasses.asdict(config)
