"""One measurement, top to bottom: model and images in, a result out."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn
from tqdm import tqdm

from erflab.accumulate import MapSums
from erflab.attribution.base import Batch, Frame, pixel_frame
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
    as_dict,
)
from erflab.errors import ConfigError, ImageError, closest
from erflab.flags import Flag
from erflab.images import ImageSource, TensorImages, open_images
from erflab.models import LoadedModel, build_model, frozen
from erflab.provenance import circumstances, versions
from erflab.result import FORMAT, METHODS, Result, as_json
from erflab.target import Trunk
from erflab.theory.field import TheoreticalField, theoretical_field
from erflab.theory.size import smallest_unclipped_size
from erflab.weights import state_sha256

# Readings from clipped units above this share raise the flag.
CLIPPED_READINGS = 0.5
# Images whose mean colour the "mean" occlusion baseline is.
BASELINE_IMAGES = 256


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
    device, dtype = _device(config.runtime.device), getattr(torch, config.runtime.dtype)
    with _threads(config.runtime.threads), _deterministic_matmul():
        first = images[0].pixels
        size = (int(first.shape[1]), int(first.shape[2]))
        field = theoretical_field(
            loaded.module,
            config.target.layer,
            size,
            config.target.unit,
            channels=int(first.shape[0]),
            layout=config.target.layout,
            grid=config.target.grid,
        )
        module = loaded.module.to(device=device, dtype=dtype)
        channel = None if config.target.channel == "all" else int(config.target.channel)
        trunk = Trunk(module, field.layer, field.call, field.layout, channel)
        loader = _Loader(
            images, loaded, device, dtype, _batch_size(config.runtime.batch_size, size, device), config.runtime
        )
        maps: dict[str, _Measured] = {}
        if config.attribution.gradient is not None:
            maps["gradient"] = _gradient(trunk, loader, field, config.attribution.gradient, config.runtime.seed)
        if config.attribution.occlusion is not None:
            maps["occlusion"] = _occlusion(trunk, loader, field, config.attribution.occlusion)
    flags = [*flags, *_theory_flags(field), *(f for m in maps.values() for f in m.flags)]
    dataset = _dataset(maps, field, loaded, images, config, flags)
    return Result(dataset, circumstances(started, device))


@dataclass(frozen=True)
class _Measured:
    """One method's sums over images."""

    sums: MapSums
    frame: Frame
    magnitude: str
    unit: str
    readings: Tensor | None = None
    flags: tuple[Flag, ...] = ()


def _gradient(trunk: Trunk, loader: _Loader, field: TheoreticalField, config: GradientConfig, seed: int) -> _Measured:
    unit = (field.unit[0], field.unit[1])
    sums = MapSums(loader.size, loader.device)
    for batch in loader.batches("gradient"):
        sums.update(gradient_maps(trunk, batch, unit, config.magnitude, seed=seed, draws=config.draws), batch.scenes)
    center = field.center()
    power = "^2" if config.magnitude == "energy" else ""
    return _Measured(sums, pixel_frame(loader.size, (center[0], center[1])), config.magnitude, f"(output/input){power}")


def _occlusion(trunk: Trunk, loader: _Loader, field: TheoreticalField, config: OcclusionConfig) -> _Measured:
    plan = plan_occlusion(config, field)
    difference = OccludedDifference(trunk, plan, loader.size, loader.device)
    fill = _fill(config.baseline, plan.patch, loader)
    sums = MapSums(plan.frame.shape, loader.device)
    # As many images at a time as make, with their occluders, one batch in memory.
    for batch in loader.batches("occlusion", max(1, loader.batch_size // config.per_evaluation)):
        sums.update(occlusion_maps(difference, plan, batch, fill(batch), config.per_evaluation), batch.scenes)
    share = clipped_share(plan, field)
    flags = (Flag("occlusion_clipped", "occlusion", f"{share:.0%}"),) if share > CLIPPED_READINGS else ()
    return _Measured(sums, plan.frame, f"{plan.patch} px patch", "output^2", plan.counts(), flags)


def _fill(baseline: str, patch: int, loader: _Loader) -> Fill:
    if baseline == "mean":
        return constant_fill(loader.mean_colour())
    if baseline == "zero":
        return constant_fill([0.0] * loader.channels)
    return blurred_fill(patch) if baseline == "blur" else loader.next_images


@dataclass(frozen=True)
class _Loader:
    """Normalised batches of the images, in index order."""

    images: ImageSource
    model: LoadedModel
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    runtime: RuntimeConfig

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        _, height, width = self.images[0].pixels.shape
        return int(height), int(width)

    @property
    def channels(self) -> int:
        """Input channels."""
        return int(self.images[0].pixels.shape[0])

    def batches(self, what: str, at_once: int | None = None) -> Iterator[Batch]:
        """All images, `at_once` at a time, with a progress bar named for the method."""
        total, at_once = len(self.images), at_once or self.batch_size
        with tqdm(total=total, desc=what, unit="image", disable=not self.runtime.progress) as bar:
            for start in range(0, total, at_once):
                batch = self.load(range(start, min(start + at_once, total)))
                yield batch
                bar.update(len(batch.indices))

    def load(self, indices: Sequence[int]) -> Batch:
        """The images with these indices."""
        found = [self.images[i] for i in indices]
        pixels = torch.stack([image.pixels for image in found]).to(device=self.device, dtype=self.dtype)
        return Batch(self._normalise(pixels), tuple(indices), tuple(image.scene for image in found))

    def next_images(self, batch: Batch) -> Tensor:
        """For each image of the batch the next one (the first after the last): the "image" baseline."""
        return self.load([(i + 1) % len(self.images) for i in batch.indices]).images

    def mean_colour(self) -> list[float]:
        """Channel means over the first images, in normalised units."""
        count = min(len(self.images), BASELINE_IMAGES)
        total = torch.zeros(self.channels, dtype=torch.float64)
        for index in range(count):
            total += self.load([index]).images[0].to(torch.float64).mean((1, 2)).cpu()
        return [float(v) for v in total / count]

    def _normalise(self, pixels: Tensor) -> Tensor:
        if self.images.normalised or self.model.mean is None or self.model.std is None:
            return pixels
        if len(self.model.mean) not in (1, pixels.shape[1]):
            raise ImageError(
                f"images have {pixels.shape[1]} channels and the normalisation {len(self.model.mean)}; "
                "set model.mean and model.std."
            )
        mean, std = (
            torch.tensor(v, dtype=self.dtype, device=self.device)[:, None, None]
            for v in (self.model.mean, self.model.std)
        )
        return (pixels - mean) / std


def _input_size(loaded: LoadedModel, config: ErflabConfig, channels: int | None) -> tuple[tuple[int, int], list[Flag]]:
    """The size in px that images are made at, with a flag if auto could not do what it promises."""
    images = config.images
    if images.size != "auto":
        height, width = images.size if isinstance(images.size, (list, tuple)) else (images.size, images.size)
        return (int(height), int(width)), []
    fallback = loaded.input_size or (images.fallback_size, images.fallback_size)
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


def _dataset(
    maps: dict[str, _Measured],
    field: TheoreticalField,
    loaded: LoadedModel,
    images: ImageSource,
    config: ErflabConfig,
    flags: list[Flag],
) -> xr.Dataset:
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for name, measured in maps.items():
        suffix = "" if name == "gradient" else f"{name}_"
        dims = (f"{suffix}y", f"{suffix}x")
        for dim, values in zip(dims, (measured.frame.y, measured.frame.x), strict=True):
            coordinates[dim] = (dim, list(values), {"units": "px", "long_name": "offset from the unit's centre"})
        variables.update(_variables(name, measured, dims))
    attributes = {
        "format": FORMAT,
        "theory": as_json(_theory(field)),
        "model": as_json(_model(loaded)),
        "images": as_json(images.record()),
        "config": as_json(_without_paths(config)),
        "flags": as_json([dataclasses.asdict(f) for f in flags]),
        "versions": as_json({**versions(), "threads": torch.get_num_threads()}),
    }
    return xr.Dataset(variables, coordinates, attributes)


def _variables(name: str, measured: _Measured, dims: tuple[str, str]) -> dict[str, Any]:
    sums = measured.sums
    about = {"units": measured.unit, "magnitude": measured.magnitude, "images": sums.count, "scenes": sums.scenes}
    found: dict[str, Any] = {
        name: (dims, sums.mean.cpu().numpy(), about),
        f"{name}_variance": (dims, sums.variance.cpu().numpy(), {"long_name": "variance over images"}),
        f"{name}_groups": (
            ("group", *dims),
            sums.group_sums.float().cpu().numpy(),
            {"long_name": "sum over the group's images"},
        ),
        f"{name}_group_images": (("group",), sums.group_counts, {"long_name": "images in the group"}),
        f"{name}_totals": ((f"{name}_image",), sums.totals, {"long_name": "sum of each image's map"}),
    }
    if measured.readings is not None:
        found[f"{name}_readings"] = (
            dims,
            measured.readings.cpu().numpy(),
            {"long_name": "(unit, patch) readings an image"},
        )
    return found


def _theory(field: TheoreticalField) -> dict[str, Any]:
    return {
        "layer": field.layer,
        "call": field.call,
        "unit": list(field.unit),
        "grid": list(field.grid),
        "layout": field.layout.kind,
        "input_size": list(field.input_size),
        "size": list(field.size),
        "stride": list(field.stride),
        "padding": list(field.padding),
        "aligned": field.aligned,
        "is_global": field.is_global,
        "causes": list(field.causes),
        "untracked": list(field.untracked),
        "reason": field.reason,
        "local_size": list(field.local.size),
        "box": field.box(),
        "clipped_box": field.clipped_box(),
        "center": list(field.center()),
        "center_rule": field.center_rule,
    }


def _model(loaded: LoadedModel) -> dict[str, Any]:
    return {
        "name": loaded.name,
        "library": loaded.library,
        "weights": loaded.weights,
        "weights_sha256": loaded.weights_sha256,
        "mean": loaded.mean,
        "std": loaded.std,
    }


def _without_paths(config: ErflabConfig) -> dict[str, Any]:
    """The configuration as it matters for the result: files and folders by name (their hashes are recorded elsewhere)."""
    plain = as_dict(config)
    for group, key in (("model", "weights"), ("images", "path")):
        if plain[group].get(key):
            plain[group][key] = PurePath(plain[group][key]).name
    return plain


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"runtime.device is {name!r}; give auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(
                f"runtime.device is {name!r}, and torch sees {count} CUDA device(s); use runtime.device=cpu or auto."
            )
    elif device.type != "cpu":
        raise ConfigError(f"runtime.device is {name!r}; give auto, cpu, cuda or cuda:N.")
    return device


def _batch_size(wanted: Any, size: tuple[int, int], device: torch.device) -> int:
    """About 2^20 px a batch on a CPU and 2^22 on a GPU, at most 64 images."""
    if wanted != "auto":
        return int(wanted)
    budget = 2**22 if device.type == "cuda" else 2**20
    return max(1, min(64, budget // math.prod(size)))


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _deterministic_matmul() -> Iterator[None]:
    """TF32 off: it is often left on by accident and costs three digits."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
