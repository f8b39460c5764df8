"""The two model libraries behind one interface: the names they know, how to build one, what its metadata says.

Importing either takes a second, and a user who brings an own module needs neither: they are imported when first asked.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Metadata:
    """What a library says about the inputs of a model: channel means and deviations, and (height, width) in px."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: tuple[int, int] | None = None


class Library(ABC):
    """A collection of named model builders."""

    name: str

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Every name that `build` takes."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Whether `build` takes `name`."""

    @abstractmethod
    def pretrained(self, name: str) -> str | None:
        """What the library calls its own trained weights of `name`; None if it has none."""

    @abstractmethod
    def build(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> nn.Module:
        """The model; `arguments` go to its constructor. Raises whatever the library raises."""

    @abstractmethod
    def metadata(self, name: str, module: nn.Module) -> Metadata:
        """The input metadata of the model `module` that was built as `name`."""


class Torchvision(Library):
    """torchvision.models: classifiers, segmentation, detection, video and quantised models."""

    name = "torchvision"

    def names(self) -> Sequence[str]:
        """Every registered name."""
        from torchvision import models

        return list(models.list_models())

    def knows(self, name: str) -> bool:
        """Whether the name is registered."""
        return name in self.names()

    def pretrained(self, name: str) -> str | None:
        """The default weights as torchvision prints them, `ResNet50_Weights.IMAGENET1K_V2`."""
        weights = _default_weights(name)
        return None if weights is None else str(weights)

    def build(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> nn.Module:
        """The model; untrained, its backbone is untrained too (torchvision's default would download one)."""
        from torchvision import models

        if pretrained:
            module: nn.Module = models.get_model(name, **{"weights": "DEFAULT", **arguments})
        else:
            module = models.get_model(name, **{**_untrained(name), **arguments})
        return module

    def metadata(self, name: str, module: nn.Module) -> Metadata:
        """From the transforms of the default weights, trained or not; detectors normalise inside and state nothing."""
        weights = _default_weights(name)
        transforms = None if weights is None else weights.transforms()
        stated: dict[str, Any] = {} if transforms is None else vars(transforms)
        size = stated.get("crop_size") or stated.get("resize_size")
        return Metadata(_floats(stated.get("mean")), _floats(stated.get("std")), _pair(size))


class Timm(Library):
    """timm: names may carry the tag of their weights, vit_base_patch16_224.augreg_in1k."""

    name = "timm"

    def names(self) -> Sequence[str]:
        """Every registered architecture, without a tag and with each of its own."""
        import timm

        return [*timm.list_models(), *timm.list_models(pretrained=True)]

    def knows(self, name: str) -> bool:
        """Whether the architecture is registered, and the tag, if there is one, belongs to it."""
        import timm

        try:
            timm.models.get_pretrained_cfg(name)
        except RuntimeError:  # the architecture exists, its tag does not
            return False
        return bool(timm.is_model(name))

    def pretrained(self, name: str) -> str | None:
        """The full name with its tag, `resnet18.a1_in1k`."""
        import timm

        if not timm.models.is_model_pretrained(name):
            return None
        tag = getattr(timm.models.get_pretrained_cfg(name), "tag", None)
        return name.split(".")[0] + (f".{tag}" if tag else "")

    def build(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> nn.Module:
        """The model."""
        import timm

        module: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
        return module

    def metadata(self, name: str, module: nn.Module) -> Metadata:
        """From the model's own `pretrained_cfg`."""
        stated: Any = getattr(module, "pretrained_cfg", None) or {}
        size = stated.get("input_size")
        return Metadata(_floats(stated.get("mean")), _floats(stated.get("std")), _pair(size[-2:] if size else None))


LIBRARIES: dict[str, Library] = {"torchvision": Torchvision(), "timm": Timm()}


def is_builder(value: Any) -> bool:
    """Whether `value` is one of the functions by which torchvision or timm registers a model."""
    name, package = getattr(value, "__name__", ""), getattr(value, "__module__", "").split(".")[0]
    if package == "torchvision":
        from torchvision import models

        return name in models.list_models() and models.get_model_builder(name) is value
    if package == "timm":
        import timm

        return timm.is_model(name) and timm.models.model_entrypoint(name) is value
    return False


def _default_weights(name: str) -> Any:
    from torchvision import models

    return getattr(models.get_model_weights(name), "DEFAULT", None)


def _untrained(name: str) -> dict[str, Any]:
    from torchvision import models

    settings: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        settings["weights_backbone"] = None
    if name.endswith(("googlenet", "inception_v3")):
        # Left open, these two warn that their default initialisation will change; this pins it as it stands.
        settings["init_weights"] = True
    return settings


def _floats(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


def _pair(size: Sequence[int] | None) -> tuple[int, int] | None:
    """(height, width) of a size given as [side] or [height, width]."""
    return None if not size else (int(size[0]), int(size[-1]))
