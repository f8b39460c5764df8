"""The settings of the attribution methods: one class a method, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from erflab.errors import ConfigError, closest
from erflab.settings import at_least, one_of, option

MAGNITUDES = ("energy", "absolute", "signed", "replknet")
ATTRIBUTION_MAGNITUDES = ("energy", "absolute", "signed")
BASELINES = ("mean", "zero", "blur", "image")
OCCLUSION_UNITS = ("all", "unclipped", "one")


@dataclass
class GradientConfig:
    """Gradient attribution (captum's NeuronGradient)."""

    magnitude: str = option("energy", "energy, absolute, signed or replknet; they are not interchangeable")
    draws: int = option(1, "random sign vectors per image (energy only): more lower the sampling error")

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("attribution.gradient.magnitude", self.magnitude, MAGNITUDES)
        at_least("attribution.gradient.draws", self.draws, 1)


@dataclass
class OcclusionConfig:
    """Occlusion attribution (captum's FeatureAblation over occluders, read at many units at once)."""

    units: str = option("all", "all units, the unclipped ones, or one (the target unit, an occluder at every position)")
    patch: Any = option("auto", "side of the square occluder in px; auto: half the layer's stride")
    step: Any = option("auto", "spacing of the map in px; divides the stride or is a multiple; auto: a quarter stride")
    baseline: str = option("mean", "what replaces the patch: channel mean of the images, zero, blur, or another image")
    per_evaluation: int = option(4, "occluders per forward pass and image (captum's perturbations_per_eval)")

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of("attribution.occlusion.units", self.units, OCCLUSION_UNITS)
        one_of("attribution.occlusion.baseline", self.baseline, BASELINES)
        at_least("attribution.occlusion.patch", self.patch, 1, or_word="auto")
        at_least("attribution.occlusion.step", self.step, 1, or_word="auto")
        at_least("attribution.occlusion.per_evaluation", self.per_evaluation, 1)


@dataclass
class SignedAttributionConfig:
    """What the attributions to the pixels of one unit's output, which have signs, are made into a map by."""

    method: ClassVar[str]
    magnitude: str = option("energy", "energy (sum of squares over channels), absolute or signed")
    draws: int = option(1, "random seeds per image (energy only): more lower the sampling error")

    def __post_init__(self) -> None:
        """Check ranges."""
        one_of(f"attribution.{self.method}.magnitude", self.magnitude, ATTRIBUTION_MAGNITUDES)
        at_least(f"attribution.{self.method}.draws", self.draws, 1)


@dataclass
class GuidedBackpropConfig(SignedAttributionConfig):
    """Guided backpropagation (captum's NeuronGuidedBackprop)."""

    method = "guided_backprop"


@dataclass
class BaselineConfig(SignedAttributionConfig):
    """An attribution of the difference between an image and a baseline."""

    baseline: str = option(
        "zero", "what images are compared with: zero (normalised), channel mean, blur or another image"
    )
    blur: int = option(16, "standard deviation in px of the blurred baseline")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        one_of(f"attribution.{self.method}.baseline", self.baseline, BASELINES)
        at_least(f"attribution.{self.method}.blur", self.blur, 1)


@dataclass
class InputXGradientConfig(BaselineConfig):
    """Input times gradient (captum's NeuronGradient, times the difference from the baseline)."""

    method = "input_x_gradient"


@dataclass
class IntegratedGradientsConfig(BaselineConfig):
    """Integrated gradients (captum's NeuronIntegratedGradients)."""

    method = "integrated_gradients"
    steps: int = option(32, "points on the path from the baseline to the image, a forward and a backward pass each")
    tolerance: float = option(0.05, "share of an image's attribution by which the sum may miss the output's change")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        at_least(f"attribution.{self.method}.steps", self.steps, 1)
        at_least(f"attribution.{self.method}.tolerance", self.tolerance, 0)


@dataclass
class DeepLiftConfig(BaselineConfig):
    """DeepLift with the rescale rule (captum's NeuronDeepLift)."""

    method = "deeplift"


@dataclass
class AttributionConfig:
    """Which methods: attribution=gradient, or several as in attribution=[gradient,occlusion]."""

    gradient: GradientConfig | None = option(None, "gradient attribution, when chosen")
    occlusion: OcclusionConfig | None = option(None, "occlusion attribution, when chosen")
    input_x_gradient: InputXGradientConfig | None = option(None, "input times gradient, when chosen")
    integrated_gradients: IntegratedGradientsConfig | None = option(None, "integrated gradients, when chosen")
    guided_backprop: GuidedBackpropConfig | None = option(None, "guided backpropagation, when chosen")
    deeplift: DeepLiftConfig | None = option(None, "DeepLift, when chosen")

    def __post_init__(self) -> None:
        """Check that there is something to measure."""
        if not self.chosen:
            raise ConfigError(f"attribution is empty; choose one or several of {', '.join(METHODS)}.")

    @classmethod
    def choosing(cls, methods: Sequence[str], settings: Mapping[str, MethodConfig]) -> AttributionConfig:
        """These methods, with the settings given by method and defaults for the others.

        Raises ConfigError for a method that there is not, and for settings of another method's kind.
        """
        for name in methods:
            if name not in METHODS:
                raise ConfigError(f"method {name!r}; choose from {', '.join(METHODS)}.{closest(name, METHODS)}")
        for name, value in settings.items():
            if name not in METHODS:
                raise ConfigError(
                    f"no argument {name!r}. Settings of a method go by its name, {', '.join(METHODS)}; others by "
                    f"runtime=RuntimeConfig(...) and target=TargetConfig(...).{closest(name, METHODS)}"
                )
            if not isinstance(value, METHODS[name]):
                raise ConfigError(f"{name}={type(value).__name__}(...); give it a {METHODS[name].__name__}.")
        chosen: dict[str, Any] = {name: settings.get(name) or METHODS[name]() for name in methods}
        return cls(**chosen)

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings of the methods chosen, by name."""
        return {name: value for name in METHODS if (value := getattr(self, name)) is not None}


MethodConfig = (
    GradientConfig
    | OcclusionConfig
    | InputXGradientConfig
    | IntegratedGradientsConfig
    | GuidedBackpropConfig
    | DeepLiftConfig
)
METHODS: dict[str, type[MethodConfig]] = {
    "gradient": GradientConfig,
    "occlusion": OcclusionConfig,
    "input_x_gradient": InputXGradientConfig,
    "integrated_gradients": IntegratedGradientsConfig,
    "guided_backprop": GuidedBackpropConfig,
    "deeplift": DeepLiftConfig,
}
"""The settings of each attribution method by its name, in the order in which they are measured and drawn."""
