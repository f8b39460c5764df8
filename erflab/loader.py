"""Normalised batches of images, on the device that measures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from erflab.attribution.base import Batch
from erflab.convergence import look_counts
from erflab.errors import ImageError
from erflab.images import ImageSource
from erflab.models import LoadedModel

BASELINE_IMAGES = 256
"""Images whose mean colour the "mean" occlusion baseline is."""


@dataclass(frozen=True)
class Loader:
    """Normalised batches of the images, in index order."""

    images: ImageSource
    model: LoadedModel
    device: torch.device
    dtype: torch.dtype
    batch_size: int | str  # "auto": about 2^20 px a batch on a CPU and 2^22 on a GPU, at most 64 images
    progress: bool

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width in px of every image."""
        channels, height, width = self.images[0].pixels.shape
        return int(channels), int(height), int(width)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.shape[1:]

    @property
    def at_once(self) -> int:
        """Images per batch."""
        if isinstance(self.batch_size, int):
            return self.batch_size
        budget = 2**22 if self.device.type == "cuda" else 2**20
        return max(1, min(64, budget // math.prod(self.size)))

    def batches(self, what: str, at_once: int | None = None) -> Iterator[Batch]:
        """All images, `at_once` at a time, with a progress bar named for the method.

        A batch ends where a look is due (`look_counts`), so that what is looked at does not depend on the batch size.
        """
        total, at_once = len(self.images), at_once or self.at_once
        with tqdm(total=total, desc=what, unit="image", disable=not self.progress) as bar:
            for begin, end in pairwise([0, *look_counts(total)]):
                for start in range(begin, end, at_once):
                    batch = self.load(range(start, min(start + at_once, end)))
                    yield batch
                    bar.update(len(batch.indices))

    def load(self, indices: Sequence[int]) -> Batch:
        """The images with these indices."""
        found = [self.images[i] for i in indices]
        pixels = torch.stack([image.pixels for image in found]).to(device=self.device, dtype=self.dtype)
        return Batch(self._normalise(pixels), tuple(indices), tuple(image.scene for image in found))

    def next_images(self, batch: Batch) -> Tensor:
        """For each image of the batch the next one (the first after the last): the "image" baseline."""
        return self.load([(i + 1) % len(self.images) for i in batch.indices]).images

    def mean_colour(self) -> list[float]:
        """Channel means over the first images, in normalised units."""
        count = min(len(self.images), BASELINE_IMAGES)
        total = torch.zeros(self.shape[0], dtype=torch.float64)
        for index in range(count):
            total += self.load([index]).images[0].to(torch.float64).mean((1, 2)).cpu()
        return [float(v) for v in total / count]

    def _normalise(self, pixels: Tensor) -> Tensor:
        if self.images.normalised or self.model.mean is None or self.model.std is None:
            return pixels
        if len(self.model.mean) not in (1, pixels.shape[1]):
            raise ImageError(
                f"images have {pixels.shape[1]} channels and the normalisation {len(self.model.mean)}; "
                "set model.mean and model.std."
            )
        mean, std = (
            torch.tensor(v, dtype=self.dtype, device=self.device)[:, None, None]
            for v in (self.model.mean, self.model.std)
        )
        return (pixels - mean) / std
