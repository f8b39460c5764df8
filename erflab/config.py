"""The settings of a measurement, as plain dataclasses: one class a group, every option with its help, ranges checked once.

The command line composes these with Hydra (`erflab.cli`); Python callers make them directly. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from erflab.errors import ConfigError, closest
from erflab.flags import FLAGS

MAGNITUDES = ("energy", "absolute", "signed", "replknet")
ATTRIBUTION_MAGNITUDES = ("energy", "absolute", "signed")
LAYOUTS = ("auto", "nchw", "nhwc", "tokens")
BASELINES = ("mean", "zero", "blur", "image")
OCCLUSION_UNITS = ("all", "unclipped", "one")
GRID = "grid"
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "float64")
CROPS = ("auto", "off")
FITS = ("crop", "reflect", "resize")
WEIGHTS_WITHOUT_FILE = ("none", "pretrained", "efficientnet_lite0")
"""The values of model.weights that are no path."""
FAMILIES = ("gaussian", "exponential", "generalised_gaussian", "moffat")
"""As `analysis.lineshapes.LINE_SHAPES`, which would import more than a command line needs."""


def option(default: Any, help: str) -> Any:
    """A dataclass field with its default and the sentence that `erflab options` prints for it."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


def _one_of(name: str, value: object, valid: tuple[object, ...]) -> None:
    if value not in valid:
        words = [str(v) for v in valid]
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(words)}.{closest(str(value), words)}")


def _at_least(name: str, value: object, least: int, *, or_word: str | None = None) -> None:
    if or_word is not None and value == or_word:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
        word = f" or {or_word!r}" if or_word else ""
        raise ConfigError(f"{name} is {value!r}; give a number of at least {least}{word}.")


def _pair(name: str, value: object) -> tuple[int, int] | None:
    """`value` as two integers, or None if it is no sequence."""
    if not isinstance(value, (list, tuple)):
        return None
    if len(value) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        raise ConfigError(f"{name} is {value!r}; a list must hold two integers, [y, x].")
    return int(value[0]), int(value[1])


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
        _one_of("model.library", self.library, ("auto", "torchvision", "timm"))
        if (self.name is None) == (self._target_ is None):
            raise ConfigError(
                f"model.name is {self.name!r} and model._target_ is {self._target_!r}; give exactly one of them, "
                "such as model=resnet50 or model=custom model._target_=mypkg.MyNet."
            )
        if self.std is not None and any(s <= 0 for s in self.std):
            raise ConfigError(f"model.std is {list(self.std)}; every standard deviation must be positive.")


@dataclass
class ImagesConfig:
    """Which images. The subclasses name the source."""

    count: int = option(64, "number of images (crops) to measure over")
    size: Any = option(
        "auto",
        "input size in px: a number, [height, width], or auto: the smallest multiple of the total stride in which the "
        "unit's theoretical field lies unclipped, up to size_limit",
    )
    size_limit: int = option(512, "largest size in px that auto may pick; a larger or global field gets fallback_size")
    fallback_size: int = option(224, "size in px that auto takes when no unclipped size exists below size_limit")
    seed: int = option(0, "seed of crops and noise; each image is keyed by (seed, index)")

    def __post_init__(self) -> None:
        """Check ranges."""
        _at_least("images.count", self.count, 1)
        _at_least("images.size_limit", self.size_limit, 1)
        _at_least("images.fallback_size", self.fallback_size, 1)
        for value in _pair("images.size", self.size) or [self.size]:
            _at_least("images.size", value, 1, or_word="auto")

    def size_or(self, stated: tuple[int, int] | None) -> tuple[int, int]:
        """The size in px as (height, width); where it is auto, the one stated for the model, else fallback_size."""
        if self.size == "auto":
            return stated or (self.fallback_size, self.fallback_size)
        return _pair("images.size", self.size) or (int(self.size), int(self.size))


@dataclass
class PhotographsConfig(ImagesConfig):
    """The colour photographs that come with scikit-image, scikit-learn and matplotlib, as native-resolution crops."""

    fit: str = option(
        "crop", "photographs smaller than the crop: crop leaves them out, reflect extends, resize enlarges"
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        _one_of("images.fit", self.fit, FITS)


@dataclass
class NoiseConfig(ImagesConfig):
    """White Gaussian noise, mean 0 and variance 1 in the model's normalised units."""

    channels: int = option(3, "number of input channels")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        _at_least("images.channels", self.channels, 1)


@dataclass
class FolderConfig(PhotographsConfig):
    """Every image below a folder, in any format that Pillow reads."""

    path: str | None = option(None, "the folder; searched recursively")
    on_error: str = option("raise", "an unreadable image: raise stops and names it, skip counts and lists it")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        _one_of("images.on_error", self.on_error, ("raise", "skip"))
        if self.path is None:
            raise ConfigError("images.path is missing; give the folder: images=folder images.path=DIR.")


@dataclass
class DatasetConfig(PhotographsConfig):
    """Any torch Dataset by import path; items are images (tensor or PIL) or tuples that begin with one."""

    _target_: str | None = option(None, "import path of the Dataset class or factory (see runtime.allow)")
    arguments: dict[str, Any] = option({}, "keyword arguments for it")
    normalised: bool = option(False, "whether its tensors are normalised already (else they are in [0, 1])")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self._target_ is None:
            raise ConfigError(
                "images._target_ is missing; give the import path: images=dataset images._target_=pkg.Data."
            )


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
        _one_of("target.layout", self.layout, LAYOUTS)
        layers = self.layer if isinstance(self.layer, (list, tuple)) else [self.layer]
        if not layers or not all(isinstance(name, str) for name in layers if self.layer is not None):
            raise ConfigError(f"target.layer is {self.layer!r}; give a name, a pattern, all, or a list of these.")
        for unit in self.units:
            if _pair("target.unit", unit) is None:
                _one_of(
                    "target.unit", unit, ("center", "corner") if len(self.units) > 1 else ("center", "corner", GRID)
                )
        _at_least("target.channel", self.channel, 0, or_word="all")
        if self.grid is not None and any(g < 1 for g in _pair("target.grid", list(self.grid)) or ()):
            raise ConfigError(f"target.grid is {list(self.grid)}; rows and columns must be positive.")

    @property
    def units(self) -> list[Any]:
        """The units asked for, each "center", "corner" or a pair of indices ("grid" is placed about the centre)."""
        several = isinstance(self.unit, (list, tuple)) and any(not isinstance(u, int) for u in self.unit)
        return list(self.unit) if several else ["center" if self.unit == GRID else self.unit]


@dataclass
class GradientConfig:
    """Gradient attribution (captum's NeuronGradient)."""

    magnitude: str = option("energy", "energy, absolute, signed or replknet; they are not interchangeable")
    draws: int = option(1, "random sign vectors per image (energy only): more lower the sampling error")

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("attribution.gradient.magnitude", self.magnitude, MAGNITUDES)
        _at_least("attribution.gradient.draws", self.draws, 1)


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
        _one_of("attribution.occlusion.units", self.units, OCCLUSION_UNITS)
        _one_of("attribution.occlusion.baseline", self.baseline, BASELINES)
        _at_least("attribution.occlusion.patch", self.patch, 1, or_word="auto")
        _at_least("attribution.occlusion.step", self.step, 1, or_word="auto")
        _at_least("attribution.occlusion.per_evaluation", self.per_evaluation, 1)


@dataclass
class SignedAttributionConfig:
    """What the attributions to the pixels of one unit's output, which have signs, are made into a map by."""

    method: ClassVar[str]
    magnitude: str = option("energy", "energy (sum of squares over channels), absolute or signed")
    draws: int = option(1, "random seeds per image (energy only): more lower the sampling error")

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of(f"attribution.{self.method}.magnitude", self.magnitude, ATTRIBUTION_MAGNITUDES)
        _at_least(f"attribution.{self.method}.draws", self.draws, 1)


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
        _one_of(f"attribution.{self.method}.baseline", self.baseline, BASELINES)
        _at_least(f"attribution.{self.method}.blur", self.blur, 1)


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
        _at_least(f"attribution.{self.method}.steps", self.steps, 1)
        _at_least(f"attribution.{self.method}.tolerance", self.tolerance, 0)


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
        for name in [*methods, *settings]:
            if name not in METHODS:
                raise ConfigError(f"method {name!r}; choose from {', '.join(METHODS)}.{closest(name, METHODS)}")
        for name, value in settings.items():
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
        _one_of("falloff.family", self.family, (*FAMILIES, "auto"))
        for family in self.families:
            _one_of("falloff.families", family, FAMILIES)
        if not self.families:
            raise ConfigError(f"falloff.families is empty; give some of {', '.join(FAMILIES)}.")


@dataclass
class RuntimeConfig:
    """Where and how to run."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N, or spread: each process of a parallel sweep its GPU")
    precision: str = option(
        "auto",
        "of products: fp32 (TF32 off), tf32, bf16, float64; auto: fp32 on a CPU, and on CUDA bf16 where the first batch "
        "shows that sigma moves by under 0.1 %, else fp32",
    )
    dtype: str = option("float32", "float32; or float64, as precision=float64")
    batch_size: Any = option(
        "auto", "images per batch, or auto; one that does not fit in memory is halved and repeated"
    )
    channels_last: Any = option(
        "auto",
        "true, false, or auto: channels-last memory where convolutions are faster in it and the outputs the same",
    )
    compile: bool = option(
        False, "compile the model up to the target with torch.compile; where it cannot be cut there, a flag says so"
    )
    crop: str = option(
        "auto", "auto: compute only the part of each image that the unit sees, where that is exact and pays; off"
    )
    tolerance: float | None = option(
        None, "stop once SE(sigma) / sigma is below this, looked at after 64, 128, 256, ... images; default: all images"
    )
    checkpoint: float | None = option(
        60.0, "seconds between checkpoints, from which a run that was killed goes on; null or 0: none are written"
    )
    threads: int | None = option(None, "CPU threads; default: torch's choice (recorded in the result)")
    seed: int = option(0, "seed of the random signs")
    progress: bool = option(True, "show progress bars and the final table")
    figures: bool = option(True, "draw the figures")
    overwrite: bool = option(False, "measure anew where the directory holds a result, which is removed first")
    strict: bool = option(False, "end with an error if a flag was raised (the result is saved first)")
    accept: list[str] = option([], "flags that runtime.strict lets pass, such as [trf_global]")
    allow: list[str] = option([], "further package prefixes that model._target_ and images._target_ may name")

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("runtime.precision", self.precision, PRECISIONS)
        _one_of("runtime.dtype", self.dtype, ("float32", "float64"))
        if self.dtype == "float64" and self.precision not in ("auto", "float64"):
            raise ConfigError(
                f"runtime.dtype is 'float64' and runtime.precision {self.precision!r}; set runtime.precision alone."
            )
        _at_least("runtime.batch_size", self.batch_size, 1, or_word="auto")
        _one_of("runtime.channels_last", self.channels_last, ("auto", True, False))
        _one_of("runtime.crop", self.crop, CROPS)
        if self.threads is not None:
            _at_least("runtime.threads", self.threads, 1)
        if self.checkpoint is not None and not 0 <= self.checkpoint < float("inf"):
            raise ConfigError(f"runtime.checkpoint is {self.checkpoint!r}; give seconds of at least 0, or null.")
        for code in self.accept:
            _one_of("runtime.accept", code, tuple(FLAGS))
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise ConfigError(f"runtime.tolerance is {self.tolerance!r}; give a share between 0 and 1, such as 0.01.")

    @property
    def products(self) -> str:
        """The precision asked for: auto, fp32, tf32, bf16 or float64."""
        return "float64" if self.dtype == "float64" else self.precision


@dataclass
class ErflabConfig:
    """A whole measurement."""

    model: ModelConfig
    images: ImagesConfig
    attribution: AttributionConfig
    target: TargetConfig = field(default_factory=TargetConfig, metadata={"help": "which unit of which layer"})
    falloff: FalloffConfig = field(default_factory=FalloffConfig, metadata={"help": "the falloff model"})
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig, metadata={"help": "where and how to run"})
    seed: int = option(0, "one seed for initialisation, images and signs, where a group sets none of its own")


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain nested dictionaries, ready for JSON."""
    return dataclasses.asdict(config)
