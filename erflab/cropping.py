"""Whether only a part of each image is computed, and the check on the first image that this gives the same map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from erflab.aiming import Target
from erflab.attribution.base import Batch
from erflab.attribution.gradient import shared_gradient_maps
from erflab.config import RuntimeConfig
from erflab.errors import MeasurementError, TheoryError
from erflab.flags import Flag
from erflab.loader import Loader
from erflab.memory import is_out_of_memory
from erflab.theory.crop import Crop, find_crop

ALLOWED = {torch.float64: 1e-12, torch.float32: 1e-3}
"""Difference from the map of the whole image, as a share of its peak, that rounding explains: kernels differ with the size.

In float32 that may flip a ReLU near zero, and one flip is more than this; so what is larger is looked at in float64.
"""

LARGE = 2**22
"""Px of an image above which its gradient is unlikely to fit in memory: then, and where it does not, outputs are compared."""

Read = Callable[[Sequence[Target], Batch], list[Tensor]]


@dataclass(frozen=True)
class Cropping:
    """The part of each image that is computed; None for the whole of it, and why.

    difference: the largest one found on the first image, of the maps (of the outputs, for a large image), as a share of their
    peak.
    """

    crop: Crop | None = None
    reason: str | None = None
    difference: float | None = None
    flags: tuple[Flag, ...] = ()

    def record(self) -> dict[str, Any]:
        """What is stored with the result."""
        if self.crop is None:
            return {"refused": self.reason, "difference": self.difference}
        return {"origin": list(self.crop.origin), "size": list(self.crop.size), "difference": self.difference}

    def checked(self, targets: Sequence[Target], loader: Loader) -> Cropping:
        """The same, if the first image gives the same maps as it does whole; else whole images, with a flag."""
        if self.crop is None:
            return self
        try:
            difference, exact = _known_difference(targets, self.crop, loader)
        except MeasurementError as error:
            return Cropping(reason=f"the first image cannot tell whether it is exact: {error}")
        if exact:
            return replace(self, difference=difference)
        seen = f"by {difference:.1g} of the peak"
        return Cropping(None, f"the map differed {seen}", difference, (Flag("crop_differs", None, seen),))


def choose_crop(module: nn.Module, targets: Sequence[Target], loader: Loader, runtime: RuntimeConfig) -> Cropping:
    """One crop for all targets, where theory finds one that is exact and the images are so many that checking it pays.

    The module must still be as it was when the targets' fields were read.
    """
    if runtime.crop == "off":
        return Cropping(reason="runtime.crop is off")
    try:
        crop = find_crop(module, [(target.field, target.aim.units) for target in targets], loader.shape[0])
    except TheoryError as error:
        return Cropping(reason=str(error))
    saved = len(loader.images) * (1 - crop.share)
    if saved <= 1 and math.prod(loader.size) <= LARGE:
        return Cropping(reason=f"it would save the work of {saved:.2g} images, and the check takes that of one")
    return Cropping(crop)


def _known_difference(targets: Sequence[Target], crop: Crop, loader: Loader) -> tuple[float, bool]:
    """The largest difference on the first image, and whether rounding explains it: in float64 where float32 cannot tell."""
    batch = loader.load([0])
    difference = _difference(targets, crop, batch)
    if difference <= ALLOWED[loader.dtype] or loader.dtype == torch.float64:
        return difference, difference <= ALLOWED[loader.dtype]
    model = targets[0].trunk.model
    try:
        model.to(torch.float64)
        known = _difference(targets, crop, replace(batch, images=batch.images.to(torch.float64)))
    except (MemoryError, RuntimeError):
        # It does not fit, or the model keeps tensors that are neither parameter nor buffer.
        return difference, False
    finally:
        model.to(loader.dtype)
    return known, known <= ALLOWED[torch.float64]


def _difference(targets: Sequence[Target], crop: Crop, batch: Batch) -> float:
    if math.prod(crop.input_size) <= LARGE:
        try:
            return _largest(_maps, targets, crop, batch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
    return _largest(_outputs, targets, crop, batch)


def _largest(read: Read, targets: Sequence[Target], crop: Crop, batch: Batch) -> float:
    whole = read(targets, batch)
    parts = read([target.cropped(crop) for target in targets], batch.cut(crop))
    return max(_apart(a, b, crop) for a, b in zip(whole, parts, strict=True))


def _apart(whole: Tensor, part: Tensor, crop: Crop) -> float:
    """The largest difference as a share of the peak; beyond the crop the part is zero."""
    difference = whole.clone()
    (crop.of(difference[:, None])[:, 0] if part.shape != whole.shape else difference).sub_(part)
    return float(difference.abs().max() / whole.abs().max().clamp(min=torch.finfo(whole.dtype).tiny))


def _maps(targets: Sequence[Target], batch: Batch) -> list[Tensor]:
    return shared_gradient_maps([t.trunk for t in targets], batch, [t.aim for t in targets], "energy")


def _outputs(targets: Sequence[Target], batch: Batch) -> list[Tensor]:
    with torch.no_grad():
        return [target.aim.read(target.trunk(batch.images)) for target in targets]
