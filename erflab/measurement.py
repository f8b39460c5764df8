"""One measurement, top to bottom: model and images in, a result out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import torch
from torch import Tensor, nn

from erflab.accumulate import MapSums
from erflab.attribution.base import pixel_frame
from erflab.attribution.gradient import gradient_maps
from erflab.attribution.occlusion import Fill, OccludedDifference, blurred_fill, constant_fill, occlusion_maps
from erflab.attribution.plan import clipped_share, plan_occlusion
from erflab.config import (
    AttributionConfig,
    ErflabConfig,
    GradientConfig,
    ImagesConfig,
    ModelConfig,
    OcclusionConfig,
    RuntimeConfig,
    TargetConfig,
)
from erflab.dataset import Measured, as_dataset
from erflab.errors import ConfigError, closest
from erflab.flags import Flag
from erflab.hardware import choose_device, full_precision, threads
from erflab.images import ImageSource, TensorImages, open_images
from erflab.loader import Loader
from erflab.models import LoadedModel, build_model, frozen
from erflab.provenance import circumstances
from erflab.result import METHODS, Result
from erflab.target import Trunk
from erflab.theory.field import TheoreticalField, theoretical_field
from erflab.theory.size import smallest_unclipped_size
from erflab.weights import state_sha256

# Readings from clipped units above this share raise the flag.
CLIPPED_READINGS = 0.5


def run(config: ErflabConfig) -> Result:
    """Measure what a configuration describes. Raises an ErflabError of the kind that names what was wrong."""
    allow = tuple(config.runtime.allow)
    config = dataclasses.replace(
        config, target=dataclasses.replace(config.target, layer=config.target.layer or config.model.layer)
    )
    loaded = build_model(config.model, allow=allow)
    channels = getattr(config.images, "channels", None)
    size, flags = _input_size(loaded, config, channels)
    images = open_images(config.images, size=size, allow=allow)
    return _measure(loaded, images, config, flags)


def measure(
    model: nn.Module,
    images: Tensor | ImageSource,
    layer: str | None = None,
    unit: str | Sequence[int] = "center",
    method: str | Sequence[str] = "gradient",
    magnitude: str = "energy",
    *,
    gradient: GradientConfig | None = None,
    occlusion: OcclusionConfig | None = None,
    target: TargetConfig | None = None,
    runtime: RuntimeConfig | None = None,
) -> Result:
    """Measure the effective receptive field of one unit of your own model on your own images.

    Args:
        model: any module; it is run frozen in eval mode on `runtime.device` and left as it was.
        images: normalised images, a tensor [N, K, H, W] or an ImageSource (whose images in [0, 1] are then not normalised
            further).
        layer: dotted module name, "name:k" for the k-th call; None for the last spatial one.
        unit: "center", "corner" or [i, j] on the layer's grid.
        method: "gradient", "occlusion" or both.
        magnitude: of the gradient: "energy", "absolute", "signed" or "replknet".
        gradient, occlusion, target, runtime: further settings (`erflab.config`); `layer`, `unit` and `magnitude` override.

    Raises:
        ErflabError: of the kind that names what was wrong.
    """
    methods = [method] if isinstance(method, str) else list(method)
    for name in methods:
        if name not in METHODS:
            raise ConfigError(f"method {name!r}; choose from {', '.join(METHODS)}.{closest(name, METHODS)}")
    source = TensorImages(images) if isinstance(images, Tensor) else images
    chosen = AttributionConfig(
        gradient=dataclasses.replace(gradient or GradientConfig(), magnitude=magnitude)
        if "gradient" in methods
        else None,
        occlusion=(occlusion or OcclusionConfig()) if "occlusion" in methods else None,
    )
    spec = target or TargetConfig()
    config = ErflabConfig(
        model=ModelConfig(_target_=f"{type(model).__module__}.{type(model).__qualname__}"),
        images=ImagesConfig(count=len(source)),
        target=dataclasses.replace(spec, layer=layer or spec.layer, unit=unit if unit != "center" else spec.unit),
        attribution=chosen,
        runtime=runtime or RuntimeConfig(progress=False),
    )
    described = LoadedModel(
        model, str(config.model._target_), None, "as given", state_sha256(model), mean=None, std=None, input_size=None
    )
    with frozen(model), _home(model):
        return _measure(described, source, config, [])


@contextlib.contextmanager
def _home(model: nn.Module) -> Iterator[None]:
    """Put the user's model back on the device and in the dtype that its parameters had."""
    state = [(p, p.data) for p in [*model.parameters(), *model.buffers()]]
    try:
        yield
    finally:
        for tensor, data in state:
            tensor.data = data


def _measure(loaded: LoadedModel, images: ImageSource, config: ErflabConfig, flags: list[Flag]) -> Result:
    started = datetime.now(UTC)
    device, dtype = choose_device(config.runtime.device), getattr(torch, config.runtime.dtype)
    with threads(config.runtime.threads), full_precision():
        loader = Loader(images, loaded, device, dtype, config.runtime.batch_size, config.runtime.progress)
        field = theoretical_field(
            loaded.module,
            config.target.layer,
            loader.size,
            config.target.unit,
            channels=loader.shape[0],
            layout=config.target.layout,
            grid=config.target.grid,
        )
        module = loaded.module.to(device=device, dtype=dtype)
        channel = None if config.target.channel == "all" else int(config.target.channel)
        trunk = Trunk(module, field.layer, field.call, field.layout, channel)
        maps: dict[str, Measured] = {}
        if config.attribution.gradient is not None:
            maps["gradient"] = _gradient(trunk, loader, field, config.attribution.gradient, config.runtime.seed)
        if config.attribution.occlusion is not None:
            maps["occlusion"] = _occlusion(trunk, loader, field, config.attribution.occlusion)
    flags = [*flags, *_theory_flags(field), *(f for m in maps.values() for f in m.flags)]
    dataset = as_dataset(maps, field, loaded, images, config, flags)
    return Result(dataset, circumstances(started, device))


def _gradient(trunk: Trunk, loader: Loader, field: TheoreticalField, config: GradientConfig, seed: int) -> Measured:
    unit = (field.unit[0], field.unit[1])
    sums = MapSums(loader.size, loader.device)
    for batch in loader.batches("gradient"):
        sums.update(gradient_maps(trunk, batch, unit, config.magnitude, seed=seed, draws=config.draws), batch.scenes)
    center = field.center()
    power = "^2" if config.magnitude == "energy" else ""
    return Measured(sums, pixel_frame(loader.size, (center[0], center[1])), config.magnitude, f"(output/input){power}")


def _occlusion(trunk: Trunk, loader: Loader, field: TheoreticalField, config: OcclusionConfig) -> Measured:
    plan = plan_occlusion(config, field)
    difference = OccludedDifference(trunk, plan, loader.size, loader.device)
    fill = _fill(config.baseline, plan.patch, loader)
    sums = MapSums(plan.frame.shape, loader.device)
    # As many images at a time as make, with their occluders, one batch in memory.
    for batch in loader.batches("occlusion", max(1, loader.at_once // config.per_evaluation)):
        sums.update(occlusion_maps(difference, plan, batch, fill(batch), config.per_evaluation), batch.scenes)
    share = clipped_share(plan, field)
    flags = (Flag("occlusion_clipped", "occlusion", f"{share:.0%}"),) if share > CLIPPED_READINGS else ()
    return Measured(sums, plan.frame, f"{plan.patch} px patch", "output^2", plan.counts(), flags, plan.patch)


def _fill(baseline: str, patch: int, loader: Loader) -> Fill:
    if baseline == "mean":
        return constant_fill(loader.mean_colour())
    if baseline == "zero":
        return constant_fill([0.0] * loader.shape[0])
    return blurred_fill(patch) if baseline == "blur" else loader.next_images


def _input_size(loaded: LoadedModel, config: ErflabConfig, channels: int | None) -> tuple[tuple[int, int], list[Flag]]:
    """The size in px that images are made at, with a flag if auto could not do what it promises."""
    images = config.images
    fallback = images.size_or(loaded.input_size)
    if images.size != "auto":
        return fallback, []
    found = smallest_unclipped_size(
        loaded.module,
        config.target.layer,
        fallback=fallback,
        limit=images.size_limit,
        channels=channels,
        target=config.target,
    )
    if found is not None:
        return found, []
    return fallback, [Flag("auto_size_fallback", None, f"{fallback[0]} x {fallback[1]} px")]


def _theory_flags(field: TheoreticalField) -> list[Flag]:
    flags = []
    if field.untracked:
        flags.append(Flag("untracked", None, ", ".join(field.untracked[:4])))
    if field.is_global:
        flags.append(Flag("trf_global", None, ", ".join(field.causes[:4])))
    elif field.box() is None:
        flags.append(Flag("trf_unknown", None, field.reason or "an empty field"))
    elif field.is_clipped():
        flags.append(Flag("trf_clipped", None, f"box {field.box()} in {field.input_size} px"))
    return flags
