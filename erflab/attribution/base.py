"""What gradient and occlusion attribution share: the frame of a map, and a batch of normalised images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


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


@dataclass(frozen=True)
class Frame:
    """Where the pixels of a map lie: offsets from the unit's centre in px, evenly spaced, per axis."""

    y: Sequence[float]
    x: Sequence[float]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.y), len(self.x)


def pixel_frame(input_size: tuple[int, int], center: tuple[float, float]) -> Frame:
    """The frame of a map over all input pixels."""
    y, x = (np.arange(n) - c for n, c in zip(input_size, center, strict=True))
    return Frame(y.tolist(), x.tolist())
