"""Streaming sums of per-image maps, kept by group, in float64: memory does not grow with the number of images."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from erflab.distributed import Processes
from erflab.hardware import upload

GROUPS = 16


@dataclass
class MapSums:
    """Count, mean and variance per pixel over images, and sums by group of scenes.

    Beside them the sums of the maps that are each divided by their own total, so that every image weighs the same: a bright
    one, or one that excites the unit, otherwise outweighs the rest. An image whose total is not positive has no such map.

    Images are added one after another in index order, so the sums do not depend on how they were batched; on a GPU, which would
    wait for so many small sums, a batch at once, so that they do but for rounding. Deviations are taken from the first image's
    map, so that a mean far from zero costs the variance no digits. Scenes go to groups in order of first appearance, round and
    round: all images of one scene are in one group.

    Adding never waits for the device; reading `totals` or `equal_counts` does.

    Of several processes each adds its share of the images and passes over the others, in index order all the same, so that all
    have the same groups and counts; `merged` are then the sums of all.
    """

    shape: tuple[int, int]
    device: torch.device = torch.device("cpu")
    groups: int = GROUPS
    group_sums: Tensor = field(init=False)
    group_counts: list[int] = field(init=False)
    equal_sums: Tensor = field(init=False)  # of the maps of sum 1
    _first: Tensor = field(init=False)
    _deviations: Tensor = field(init=False)  # sum of squared deviations from the first map
    _totals: list[Tensor] = field(default_factory=list)  # of each batch, on the device
    _scenes: dict[Hashable, int] = field(default_factory=dict)
    _image_groups: list[int] = field(default_factory=list)
    _added: int = 0  # images that were not passed over

    def __post_init__(self) -> None:
        """Allocate."""
        self.group_sums = torch.zeros((self.groups, *self.shape), dtype=torch.float64, device=self.device)
        self.group_counts = [0] * self.groups
        self.equal_sums = torch.zeros_like(self.group_sums)
        self._first, self._deviations = torch.zeros_like(self.group_sums[0]), torch.zeros_like(self.group_sums[0])

    def update(self, maps: Float[Tensor, "batch y x"], scenes: Sequence[Hashable]) -> None:
        """Add one map an image."""
        images = maps.to(torch.float64)
        if not self._added:
            self._first.copy_(images[0])
        totals = images.sum((1, 2))
        divisors = torch.where(totals > 0, totals, torch.inf)
        add = self._add_singly if images.is_cpu else self._add_together
        add(images, divisors, self._grouped(scenes))
        self._totals.append(totals)
        self._added += len(images)

    def _add_singly(self, images: Tensor, divisors: Tensor, groups: Sequence[int]) -> None:
        for image, divisor, group in zip(images, divisors, groups, strict=True):
            deviation = image - self._first
            self._deviations.addcmul_(deviation, deviation)
            self.group_sums[group] += image
            self.equal_sums[group].addcdiv_(image, divisor)

    def _add_together(self, images: Tensor, divisors: Tensor, groups: Sequence[int]) -> None:
        members = upload(torch.eye(self.groups, dtype=torch.float64)[:, list(groups)], images.device)  # [group, image]
        self.group_sums += torch.einsum("gi,iyx->gyx", members, images)
        self.equal_sums += torch.einsum("gi,iyx->gyx", members / divisors, images)
        self._deviations += (images - self._first).square_().sum(0)

    def pass_over(self, scenes: Sequence[Hashable]) -> None:
        """Note the images of these scenes, which another process adds."""
        self._grouped(scenes)
        self._totals.append(torch.zeros(len(scenes), dtype=torch.float64, device=self.device))

    def _grouped(self, scenes: Sequence[Hashable]) -> list[int]:
        """The groups of the next images, counted."""
        groups = [self._scenes.setdefault(scene, len(self._scenes)) % self.groups for scene in scenes]
        for group in groups:
            self.group_counts[group] += 1
        self._image_groups += groups
        return groups

    def merged(self, processes: Processes) -> MapSums:
        """The sums of all processes, each of which has added some images and passed over the rest; of one, these."""
        if processes.size == 1:
            return self
        whole = copy.copy(self)
        whole._scenes, whole._image_groups = dict(self._scenes), list(self._image_groups)
        whole.group_counts, whole._added = list(self.group_counts), self.count
        whole.group_sums, whole.equal_sums = processes.sum(self.group_sums), processes.sum(self.equal_sums)
        whole._totals = [processes.sum(torch.cat(self._totals))]
        whole._first = processes.sum(self._first if processes.first else torch.zeros_like(self._first))
        whole._deviations = processes.sum(self._deviations_from(whole._first))
        return whole

    def _deviations_from(self, first: Tensor) -> Tensor:
        """The sum of squared deviations from another map than the first that was added here, [y, x]."""
        shift = self._first - first
        return self._deviations + shift * (2 * (self.total - self._added * self._first) + self._added * shift)

    def state(self) -> dict[str, Any]:
        """All that later images are added to, for `restore`: tensors on the CPU (no copies there) and the scenes' names."""
        return {
            "group_sums": self.group_sums.cpu(),
            "equal_sums": self.equal_sums.cpu(),
            "first": self._first.cpu(),
            "deviations": self._deviations.cpu(),
            "totals": torch.tensor(self.totals, dtype=torch.float64),
            "image_groups": torch.tensor(self._image_groups, dtype=torch.int64),
            "scenes": list(self._scenes),
        }

    def restore(self, state: Mapping[str, Any], *, passed: bool = False) -> None:
        """Go on from a `state`, to the same bits as if the images had been added here; or, passed, by another process."""
        if not passed:
            self.group_sums.copy_(state["group_sums"])
            self.equal_sums.copy_(state["equal_sums"])
            self._first.copy_(state["first"])
            self._deviations.copy_(state["deviations"])
            self._added = len(state["image_groups"])
        totals = state["totals"].to(self.device)
        self._totals = [torch.zeros_like(totals) if passed else totals]
        self._image_groups = state["image_groups"].tolist()
        self._scenes = {scene: place for place, scene in enumerate(state["scenes"])}
        self.group_counts = [self._image_groups.count(group) for group in range(self.groups)]

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self._image_groups)

    @property
    def totals(self) -> list[float]:
        """One number an image: its share in the sum; not finite where its map is not."""
        self._totals = [torch.cat(self._totals)] if self._totals else []
        return [float(total) for batch in self._totals for total in batch.tolist()]

    @property
    def equal_counts(self) -> list[int]:
        """Images of each group whose total is positive."""
        positive = [group for group, total in zip(self._image_groups, self.totals, strict=True) if total > 0]
        return [positive.count(group) for group in range(self.groups)]

    @property
    def total(self) -> Tensor:
        """The sum over images, [y, x]: exactly that of the groups."""
        return self.group_sums.sum(0)

    @property
    def mean(self) -> Tensor:
        """The mean over images, [y, x]; zero before the first."""
        return self.total / max(self.count, 1)

    @property
    def variance(self) -> Tensor:
        """Sample variance over images of each pixel, [y, x]; zero for fewer than two images."""
        if self.count < 2:
            return torch.zeros_like(self._deviations)
        offset = self.mean - self._first
        return (self._deviations - self.count * offset.square()).clamp(min=0) / (self.count - 1)

    @property
    def scenes(self) -> int:
        """Number of distinct scenes seen."""
        return len(self._scenes)
