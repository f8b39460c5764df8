"""One measurement, top to bottom: model and images in, a result out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from erflab.aiming import Target, aim_at
from erflab.checkpoint import Checkpoint, shared_checkpoint
from erflab.checks import all_flags, refuse_flags
from erflab.compiling import compile_trunk, refuse_uncompiled
from erflab.config import (
    AttributionConfig,
    ErflabConfig,
    ImagesConfig,
    MethodConfig,
    ModelConfig,
    RuntimeConfig,
    TargetConfig,
)
from erflab.cropping import choose_crop
from erflab.dataset import as_dataset, model_record
from erflab.distributed import ALONE, Processes
from erflab.flags import Flag
from erflab.hardware import choose_device, require_own_devices, threads
from erflab.identity import identity
from erflab.images import ImageSource, as_source, open_images
from erflab.loader import Loader
from erflab.mapping import Setup, measured_maps
from erflab.memory_format import channels_last_wanted, to_channels_last
from erflab.models import LoadedModel, build_model, frozen, require_module
from erflab.precision import arithmetic
from erflab.provenance import circumstances, environment
from erflab.result import Result
from erflab.theory.selection import target_fields
from erflab.theory.size import smallest_unclipped_size
from erflab.weights import state_sha256


def run(config: ErflabConfig, directory: Path | None = None, processes: Processes = ALONE) -> Result:
    """Measure what a configuration describes. Raises an ErflabError of the kind that names what was wrong.

    Args:
        config: of all of it.
        directory: where a checkpoint is kept meanwhile, and gone on from if one is there. It is left there: only once the
            result has been saved it is of no more use.
        processes: those that share the images, each of which makes this call and gets the result; the first has the directory.
    """
    allow = tuple(config.runtime.allow)
    config = dataclasses.replace(
        config, target=dataclasses.replace(config.target, layer=config.target.layer or config.model.layer)
    )
    loaded = build_model(config.model, allow=allow)
    channels = getattr(config.images, "channels", None)
    size, flags = _input_size(loaded, config, channels)
    images = open_images(config.images, size=size, allow=allow)
    return _measure(loaded, images, config, flags, processes, directory)


def measure(
    model: nn.Module,
    images: Tensor | ImageSource,
    layer: str | Sequence[str] | None = None,
    unit: str | Sequence[Any] = "center",
    method: str | Sequence[str] = "gradient",
    magnitude: str = "energy",
    *,
    target: TargetConfig | None = None,
    runtime: RuntimeConfig | None = None,
    processes: Processes = ALONE,
    **settings: MethodConfig,
) -> Result:
    """Measure the effective receptive field of one unit of your own model on your own images.

    Args:
        model: any module; it is run frozen in eval mode on `runtime.device` and left as it was.
        images: normalised images, a tensor [N, K, H, W] or an ImageSource (whose images in [0, 1] are then not normalised
            further).
        layer: dotted module name, "name:k" for the k-th call; None for the last spatial one; a pattern such as "layer*",
            "all", or a list of these for several layers from one forward pass an image.
        unit: "center", "corner" or [i, j] on the layer's grid; a list of these; "grid" for the mean over all units whose
            fields do not overlap, at the cost of one.
        method: "gradient", "occlusion", "input_x_gradient", "integrated_gradients", "guided_backprop" or "deeplift", or a
            list of them.
        magnitude: of the gradient: "energy", "absolute", "signed" or "replknet".
        target, runtime: further settings (`erflab.config`); `layer`, `unit` and `magnitude` override.
        processes: those that share the images, each of which makes this call and gets the result: `erflab.distributed.joined`.
        **settings: those of a method by its name: `integrated_gradients=IntegratedGradientsConfig(steps=64)`.

    Raises:
        ErflabError: of the kind that names what was wrong.
    """
    require_module(model)
    source = as_source(images)
    chosen = AttributionConfig.choosing([method] if isinstance(method, str) else list(method), settings)
    if chosen.gradient is not None:
        chosen.gradient = dataclasses.replace(chosen.gradient, magnitude=magnitude)
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
    with processes.together(), frozen(model), _home(model):
        result = _measure(described, source, config, [], processes)
    refuse_flags(result, config.runtime)
    return result


@contextlib.contextmanager
def _home(model: nn.Module) -> Iterator[None]:
    """Put the user's model back on the device and in the dtype that its parameters and buffers had."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(part._buffers, dict(part._buffers)) for part in model.modules()]  # moving puts others in their place
    try:
        yield
    finally:
        for parameter, data in parameters:
            parameter.data = data
        for held, own in buffers:
            held.update(own)


def _measure(
    loaded: LoadedModel,
    images: ImageSource,
    config: ErflabConfig,
    flags: list[Flag],
    processes: Processes,
    directory: Path | None = None,
) -> Result:
    device = choose_device(config.runtime.device, processes)
    require_own_devices(device, processes)
    if processes.size > 1:
        processes.require_same("settings", identity(config))
        processes.require_same("weights", loaded.weights_sha256)
        processes.require_same("images", images.record())
    about = partial(_about, loaded, images, config, device)
    checkpoint = shared_checkpoint(directory, config.runtime.checkpoint, about, processes)
    dtype = torch.float64 if config.runtime.products == "float64" else torch.float32
    with threads(config.runtime.threads or checkpoint.choices.get("threads")), arithmetic("fp32", device):
        progress = config.runtime.progress and processes.first
        loader = Loader(images, loaded, device, dtype, config.runtime.batch_size, progress, processes=processes)
        fields = target_fields(loaded.module, config.target, loader.size, loader.shape[0])
        targets = [aim_at(loaded.module, field, config.target, loader.size) for field in fields]
        cropping = choose_crop(loaded.module, targets, loader, config.runtime)
        module = loaded.module.to(device=device, dtype=dtype)
        loader = _in_order(module, targets, loader, config.runtime, checkpoint)
        checkpoint.choices |= {"threads": torch.get_num_threads(), "channels_last": loader.channels_last}
        cropping = processes.from_first(cropping.checked(targets, loader))
        computed = [target.cropped(cropping.crop) for target in targets]
        flags = [*flags, *_compiled(computed, loader, config)]
        setup = Setup(loader, config.runtime, checkpoint)
        measured = dict(measured_maps(targets, computed, config.attribution, setup))
        maps = [{method: found[place] for method, found in measured.items()} for place in range(len(targets))]
        parts = [
            as_dataset(
                found,
                t.field,
                t.aim,
                loaded,
                images,
                config,
                [*flags, *cropping.flags, *all_flags(module, t.field, found)],
                cropping.record(),
                processes.size,
            )
            for t, found in zip(targets, maps, strict=True)
        ]
    return Result(tuple(parts), circumstances(checkpoint.history.state(), device))


def _about(
    loaded: LoadedModel, images: ImageSource, config: ErflabConfig, device: torch.device
) -> dict[str, Mapping[str, Any]]:
    """What a checkpoint says that it is of."""
    return {
        "config": identity(config),
        "model": model_record(loaded),
        "images": images.record(),
        "environment": environment(device),
    }


def _in_order(
    module: nn.Module, targets: list[Target], loader: Loader, runtime: RuntimeConfig, checkpoint: Checkpoint
) -> Loader:
    """The loader, giving images channels last if the model runs faster so; the model is then in that order too."""
    runtime = dataclasses.replace(runtime, channels_last=checkpoint.choices.get("channels_last", runtime.channels_last))
    if not channels_last_wanted(module, runtime, loader.device):
        return loader
    trunks, one = [target.trunk for target in targets], loader.load([0]).images
    last = to_channels_last(module, trunks, one, required=runtime.channels_last is True)
    everywhere = all(loader.processes.gathered(last))
    if last and not everywhere:
        module.to(memory_format=torch.contiguous_format)
    return dataclasses.replace(loader, channels_last=everywhere)


def _compiled(targets: list[Target], loader: Loader, config: ErflabConfig) -> Iterator[Flag]:
    """Compile a single target's trunk if that was asked for; a flag if it could not be."""
    if config.runtime.compile:
        refuse_uncompiled(config.attribution.chosen)
        several = "several targets share a forward pass" if len(targets) > 1 else None
        own = several or compile_trunk(targets[0].trunk, loader.load([0]).cut(targets[0].crop).images)
        reason = next((told for told in loader.processes.gathered(own) if told is not None), None)
        if reason is not None:
            targets[0].trunk.run_by(None)
            yield Flag("not_compiled", None, reason)


def _input_size(loaded: LoadedModel, config: ErflabConfig, channels: int | None) -> tuple[tuple[int, int], list[Flag]]:
    """The size in px that images are made at, with a flag if auto could not do what it promises."""
    images = config.images
    fallback = images.size_or(loaded.input_size)
    if images.size != "auto":
        return fallback, []
    found = smallest_unclipped_size(
        loaded.module, config.target, fallback=fallback, limit=images.size_limit, channels=channels
    )
    if found is not None:
        return found, []
    return fallback, [Flag("auto_size_fallback", None, f"{fallback[0]} x {fallback[1]} px")]
