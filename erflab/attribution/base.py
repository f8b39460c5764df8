"""What all attribution shares: the frame of a map, the units aimed at, and a batch of normalised images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from erflab.hardware import upload
from erflab.theory.crop import Crop


@dataclass(frozen=True)
class Batch:
    """Normalised images [B, K, H, W] with their indices (which key all randomness) and scenes.

    `baseline` is what the images are compared with by methods that compare, [B, K, H, W]; None for zeros.
    """

    images: Float[Tensor, "batch k y x"]
    indices: tuple[int, ...]
    scenes: tuple[str, ...]
    baseline: Float[Tensor, "batch k y x"] | None = None

    @property
    def reference(self) -> Float[Tensor, "batch k y x"]:
        """The baseline, with None resolved."""
        return torch.zeros_like(self.images) if self.baseline is None else self.baseline

    def split(self, at_once: int) -> list[Batch]:
        """The batch in parts of at most so many images."""
        if at_once >= len(self.indices):
            return [self]
        slices = [slice(start, start + at_once) for start in range(0, len(self.indices), at_once)]
        return [
            Batch(
                self.images[part],
                self.indices[part],
                self.scenes[part],
                None if self.baseline is None else self.baseline[part],
            )
            for part in slices
        ]

    def cut(self, crop: Crop | None) -> Batch:
        """The images and baselines cut to a crop; as they are without one."""
        if crop is None:
            return self
        return replace(
            self, images=crop.of(self.images), baseline=None if self.baseline is None else crop.of(self.baseline)
        )


@dataclass(frozen=True)
class Frame:
    """Where the pixels of a map lie: offsets from the unit's centre in px, evenly spaced, per axis."""

    y: list[float]
    x: list[float]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.y), len(self.x)

    def within(self, crop: Crop | None) -> Frame:
        """The part of an image's frame that a crop computes."""
        if crop is None:
            return self
        (top, left), (height, width) = crop.origin, crop.size
        return Frame(self.y[top : top + height], self.x[left : left + width])


def pixel_frame(input_size: tuple[int, int], center: tuple[float, float]) -> Frame:
    """The frame of a map over all input pixels."""
    y, x = (np.arange(n) - c for n, c in zip(input_size, center, strict=True))
    return Frame(y.tolist(), x.tolist())


def window_frame(window: Sequence[int]) -> Frame:
    """The frame of a map over a window (y0, y1, x0, x1) in px, inclusive, about its own middle."""
    y0, y1, x0, x1 = window
    return pixel_frame((y1 - y0 + 1, x1 - x0 + 1), ((y1 - y0) / 2, (x1 - x0) / 2))


@dataclass(frozen=True)
class Aim:
    """The units of one layer that one backward pass measures, and the window of each that is its own.

    units: indices (row, column). windows: (y0, y1, x0, x1) in px, inclusive, all of one size; empty for one unit that may
    see any pixel.
    """

    units: tuple[tuple[int, ...], ...]
    windows: tuple[tuple[int, ...], ...] = ()

    def read(self, outputs: Float[Tensor, "batch c rows columns"]) -> Float[Tensor, "batch c units"]:
        """The outputs of the units, copied: a later layer may overwrite its input in place."""
        rows, columns = _on_device(self.units, outputs.device)
        return outputs[:, :, rows, columns]

    def gather(self, maps: Float[Tensor, "batch y x"]) -> Float[Tensor, "batch v u"]:
        """The mean over units of their windows; for one unit without a window the whole map."""
        if not self.windows:
            return maps
        return torch.stack([maps[:, y0 : y1 + 1, x0 : x1 + 1] for y0, y1, x0, x1 in self.windows]).mean(0)

    def within(self, crop: Crop, units: tuple[tuple[int, ...], ...]) -> Aim:
        """The same aim at a crop of the image, where the units have other indices."""
        top, left = crop.origin
        windows = tuple((y0 - top, y1 - top, x0 - left, x1 - left) for y0, y1, x0, x1 in self.windows)
        return Aim(units, windows)


@lru_cache(maxsize=256)
def _on_device(units: tuple[tuple[int, ...], ...], device: torch.device) -> tuple[Tensor, ...]:
    """Rows and columns of units, kept: lists as indices would be copied, and waited for, with every batch."""
    return tuple(upload(torch.tensor(index), device) for index in zip(*units, strict=True))
