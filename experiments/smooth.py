"""Noise that is as smooth as one likes: what photographs have, and white noise lacks, without their other properties."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import Dataset


class SmoothNoise(Dataset[Tensor]):
    """White Gaussian noise blurred by a Gaussian and brought back to variance 1.

    Args:
        blur: standard deviation in px; 0 for white noise.
        seed: with the index, what each image is drawn from.
        size: side of the images in px; they are periodic.
        length: how many there are.
    """

    def __init__(self, blur: float, seed: int = 0, size: int = 48, length: int = 64) -> None:
        self.blur, self.seed, self.size, self.length = blur, seed, size, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        """[3, size, size], float32."""
        white = np.random.default_rng([self.seed, index]).standard_normal((3, self.size, self.size))
        smooth = gaussian_filter(white, (0, self.blur, self.blur), mode="wrap")
        spike = np.zeros((self.size, self.size))
        spike[0, 0] = 1
        gain = np.sqrt(np.square(gaussian_filter(spike, self.blur, mode="wrap")).sum())
        return torch.from_numpy(smooth / gain).float()
