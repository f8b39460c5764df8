"""Occlusion attribution: how much a patch matters when it is replaced, read at many units of each occluded pass.

o(p) = E_x sum_c (y_c(x) - y_c(x without the patch at p))^2, through captum's FeatureAblation over keep/occlude switches:
one forward pass with one patch occluded tells the effect on *every* unit, each at its own offset from the patch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from captum.attr import FeatureAblation
from jaxtyping import Float
from torch import Tensor

from erflab.attribution.base import Batch, Frame
from erflab.hardware import upload
from erflab.target import Trunk


@dataclass(frozen=True)
class AxisPlan:
    """Occluders and read units along one image axis.

    positions: patch centres in px (half-integers for an even side). units: indices of the units that are read.
    centers: their centres in px. offsets: the map's coordinates, position - center, evenly spaced by the step.
    """

    positions: tuple[float, ...]
    units: tuple[int, ...]
    centers: tuple[float, ...]
    offsets: tuple[float, ...]

    def bins(self) -> np.ndarray:
        """Index into `offsets` of each (unit, position) pair, [units, positions]; -1 beyond the map."""
        step = self.offsets[1] - self.offsets[0] if len(self.offsets) > 1 else 1.0
        offset = np.array(self.positions)[None, :] - np.array(self.centers)[:, None]
        index = np.rint((offset - self.offsets[0]) / step).astype(int)
        return np.where((index >= 0) & (index < len(self.offsets)), index, -1)

    def moved(self, start: float, first: int) -> AxisPlan:
        """The same plan on a part of the axis that begins at `start` px, where unit 0 has the index `first`."""
        positions, centers = (tuple(place - start for place in places) for places in (self.positions, self.centers))
        return AxisPlan(positions, tuple(unit + first for unit in self.units), centers, self.offsets)


@dataclass(frozen=True)
class OcclusionPlan:
    """All (unit, patch) pairs of one measurement: the product of the two axes' plans, for square patches of side `patch`.

    unseen: places, in row order, of patches that lie in holes of the field of the only unit: their effect is zero unrun.
    """

    y: AxisPlan
    x: AxisPlan
    patch: int
    unseen: tuple[int, ...] = ()

    @property
    def frame(self) -> Frame:
        """Where the map's values lie."""
        return Frame(list(self.y.offsets), list(self.x.offsets))

    @property
    def patches(self) -> list[tuple[int, int, int, int]]:
        """Pixels of each patch, (y0, y1, x0, x1), ends excluded; they may reach outside the image."""
        half = (self.patch - 1) / 2
        starts = ((round(y - half), round(x - half)) for y in self.y.positions for x in self.x.positions)
        return [(y, y + self.patch, x, x + self.patch) for y, x in starts]

    @property
    def occluders(self) -> list[tuple[int, int, int, int]]:
        """The patches that are run."""
        unseen = set(self.unseen)
        return [patch for place, patch in enumerate(self.patches) if place not in unseen]

    def moved(self, origin: Sequence[int], first: Sequence[int]) -> OcclusionPlan:
        """The same plan on a part of the image that begins at `origin`, where unit (0, 0) has the index `first`."""
        return replace(self, y=self.y.moved(origin[0], first[0]), x=self.x.moved(origin[1], first[1]))

    def bins(self) -> Tensor:
        """Flat index into the map of each (unit, patch) pair, [units, patches]; -1 beyond the map."""
        y, x = self.y.bins()[:, None, :, None], self.x.bins()[None, :, None, :]
        flat = np.where((y < 0) | (x < 0), -1, y * len(self.x.offsets) + x)
        return torch.from_numpy(flat.reshape(len(self.y.units) * len(self.x.units), -1))

    def counts(self) -> Tensor:
        """Readings per offset, [y, x]."""
        bins = self.bins().flatten()
        return torch.bincount(bins[bins >= 0], minlength=math.prod(self.frame.shape)).reshape(self.frame.shape)


class OccludedDifference:
    """The forward function that captum ablates: switches -> sum_c (y_c - y_c,clean)^2 of every read unit.

    A switch of 0 replaces its patch by the fill. Indices are made once and kept on the device, so that no pass waits.
    """

    def __init__(self, trunk: Trunk, plan: OcclusionPlan, input_size: Sequence[int], device: torch.device) -> None:
        self.trunk = trunk
        self.rows = torch.tensor(plan.y.units, device=device)
        self.columns = torch.tensor(plan.x.units, device=device)
        y0, y1, x0, x1 = torch.tensor(plan.occluders, device=device).T[..., None]
        y, x = (torch.arange(n, device=device) for n in input_size)
        self.inside_y, self.inside_x = (y >= y0) & (y < y1), (x >= x0) & (x < x1)  # [patches, H], [patches, W]
        bins, counts = torch.from_numpy(np.delete(plan.bins().numpy(), plan.unseen, axis=1)).flatten(), plan.counts()
        self.pairs = (bins >= 0).nonzero().flatten().to(device)  # the (unit, patch) pairs that are read
        self.bins = bins.to(device)[self.pairs]
        self.counts = counts.to(device).clamp(min=1)

    def units(self, images: Tensor) -> Float[Tensor, "batch c units"]:
        """The outputs of the read units."""
        y: Tensor = self.trunk(images)
        return y[:, :, self.rows][..., self.columns].flatten(2)

    def __call__(self, switches: Tensor, images: Tensor, clean: Tensor, fill: Tensor) -> Float[Tensor, "batch units"]:
        """Squared change of each unit's output, summed over channels."""
        patch = (switches == 0).to(torch.int8).argmax(1)  # captum switches one patch off at a time
        occluded = self.inside_y[patch][:, None, :, None] & self.inside_x[patch][:, None, None, :]
        return (self.units(torch.where(occluded, fill, images)) - clean).square().sum(1)


class _Ablation(FeatureAblation):  # type: ignore[misc]
    """captum's, which reads the features' numbers back from the mask one by one and waits each time; here they are known."""

    def __init__(self, forward: Callable[..., Tensor], features: int) -> None:
        super().__init__(forward)
        self.features = features

    def _get_feature_idx_to_tensor_idx(self, *_: Any, **__: Any) -> dict[int, list[int]]:
        return {feature: [0] for feature in range(self.features)}


def unit_effects(
    difference: OccludedDifference, images: Tensor, fill: Tensor, patches: int, per_evaluation: int = 1
) -> Float[Tensor, "batch units patches"]:
    """sum_c (y_c - y_c without the patch)^2 for every (unit, patch) pair, exactly, through captum."""
    with torch.no_grad():
        clean = difference.units(images)
        switches = torch.ones((len(images), patches), dtype=images.dtype, device=images.device)
        all_on = clean.new_zeros((len(images), clean.shape[2]))

        def change(given: Tensor, *arguments: Tensor) -> Tensor:
            # captum first asks for the clean images themselves, which have been run.
            return all_on if given is switches else difference(given, *arguments)

        effect: Tensor = _Ablation(change, patches).attribute(
            switches,
            baselines=0,
            additional_forward_args=(images, clean, fill),
            feature_mask=torch.arange(patches, device=images.device)[None],
            perturbations_per_eval=min(per_evaluation, patches),
        )
    # Ablation attributes f(all on) - f(one off) = 0 - effect, with outputs [batch * units] in rows.
    return -effect.reshape(len(images), clean.shape[2], patches)


def occlusion_maps(
    difference: OccludedDifference, plan: OcclusionPlan, batch: Batch, fill: Tensor, per_evaluation: int = 1
) -> Float[Tensor, "batch y x"]:
    """One map an image: at each offset the mean over its (unit, patch) readings, in float64."""
    effects = unit_effects(difference, batch.images, fill, len(plan.occluders), per_evaluation).flatten(1)
    sums = torch.zeros((len(effects), difference.counts.numel()), dtype=torch.float64, device=effects.device)
    sums.index_add_(1, difference.bins, effects[:, difference.pairs].double())
    return sums.reshape(-1, *plan.frame.shape) / difference.counts


Fill = Callable[[Batch], Tensor]


def constant_fill(values: Sequence[float]) -> Fill:
    """A colour per channel, in normalised units."""

    def fill(batch: Batch) -> Tensor:
        colour = upload(torch.tensor(values, dtype=batch.images.dtype), batch.images.device)
        return colour[None, :, None, None].expand_as(batch.images)

    return fill


def blurred_fill(patch: int) -> Fill:
    """The image itself, blurred by a Gaussian of the patch's side as standard deviation, so that no patch detail is left."""
    from torchvision.transforms.functional import gaussian_blur

    def fill(batch: Batch) -> Tensor:
        limit = min(batch.images.shape[2:])
        kernel = min(6 * patch + 1, 2 * ((limit - 1) // 2) - 1)
        blurred: Tensor = gaussian_blur(batch.images, [max(kernel, 1)] * 2, [float(patch)] * 2)
        return blurred

    return fill
