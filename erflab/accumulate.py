"""Streaming sums of per-image maps, kept by group, in float64: memory does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

GROUPS = 16


@dataclass
class MapSums:
    """Count, mean and variance per pixel over images, and sums by group of scenes.

    Beside them the sums of the maps that are each divided by their own total, so that every image weighs the same: a bright
    one, or one that excites the unit, otherwise outweighs the rest. An image whose total is not positive has no such map.

    Images are added one after another in index order, so the sums do not depend on how they were batched. The variance is
    Welford's (Technometrics 4, 1962). Scenes go to groups in order of first appearance, round and round: all images of one
    scene are in one group.
    """

    shape: tuple[int, int]
    device: torch.device = torch.device("cpu")
    groups: int = GROUPS
    count: int = 0
    mean: Tensor = field(init=False)
    squares: Tensor = field(init=False)  # sum of squared deviations from the mean
    group_sums: Tensor = field(init=False)
    group_counts: list[int] = field(init=False)
    equal_sums: Tensor = field(init=False)  # of the maps of sum 1
    equal_counts: list[int] = field(init=False)
    totals: list[float] = field(default_factory=list)  # one number an image: its share in the sum
    _scenes: dict[Hashable, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Allocate."""
        self.mean = torch.zeros(self.shape, dtype=torch.float64, device=self.device)
        self.squares = torch.zeros_like(self.mean)
        self.group_sums = torch.zeros((self.groups, *self.shape), dtype=torch.float64, device=self.device)
        self.group_counts = [0] * self.groups
        self.equal_sums = torch.zeros_like(self.group_sums)
        self.equal_counts = [0] * self.groups

    def update(self, maps: Float[Tensor, "batch y x"], scenes: Sequence[Hashable]) -> None:
        """Add one map an image."""
        images = maps.to(torch.float64)
        totals = images.sum((1, 2)).tolist()
        for image, total, scene in zip(images, totals, scenes, strict=True):
            group = self._scenes.setdefault(scene, len(self._scenes)) % self.groups
            self.count += 1
            delta = image - self.mean
            self.mean += delta / self.count
            self.squares += delta * (image - self.mean)
            self.group_sums[group] += image
            self.group_counts[group] += 1
            if total > 0:
                self.equal_sums[group] += image / total
                self.equal_counts[group] += 1
        self.totals += totals

    @property
    def total(self) -> Tensor:
        """The sum over images, [y, x]: exactly that of the groups."""
        return self.group_sums.sum(0)

    @property
    def variance(self) -> Tensor:
        """Sample variance over images of each pixel, [y, x]; zero for fewer than two images."""
        return self.squares / max(self.count - 1, 1)

    @property
    def scenes(self) -> int:
        """Number of distinct scenes seen."""
        return len(self._scenes)
