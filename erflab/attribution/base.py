"""What gradient and occlusion attribution share: the frame of a map, and a batch of normalised images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Normalised images [B, K, H, W] with their indices (which key all randomness) and scenes."""

    images: Float[Tensor, "batch k y x"]
    indices: tuple[int, ...]
    scenes: tuple[str, ...]


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
