"""Normalised batches of images, on the device that measures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from threading import Lock

import torch
from torch import Tensor
from tqdm import tqdm

from erflab.attribution.base import Batch
from erflab.convergence import look_counts
from erflab.distributed import ALONE, Processes
from erflab.errors import ImageError
from erflab.hardware import stacked, upload
from erflab.images import Image, ImageSource
from erflab.models import LoadedModel

BASELINE_IMAGES = 256
"""Images whose mean colour the "mean" occlusion baseline is."""

LOADED = 2**27
"""Px of whole images, of which a small part may be computed, that are loaded as one batch: 1.6 GB of three colours."""

READERS = {"cuda": 8}
"""Threads that make the images for a kind of device where their source allows several: one would keep a GPU waiting."""


@lru_cache
def _readers(kind: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS[kind], thread_name_prefix="pixels")


@dataclass(frozen=True)
class Passed:
    """A batch that another process measures: the scenes of its images."""

    scenes: tuple[str, ...]


@dataclass(frozen=True)
class Loader:
    """Normalised batches of the images, in index order, of which several processes are dealt one in turn.

    batch_size: "auto" is about 2^20 px a batch on a CPU, at most 64 images, and 2^25 px on a GPU, at most 256; of which only a
    part is computed, at most 2^27 px are loaded.
    """

    images: ImageSource
    model: LoadedModel
    device: torch.device
    dtype: torch.dtype
    batch_size: int | str
    progress: bool
    channels_last: bool = False
    processes: Processes = ALONE

    @cached_property
    def _reading(self) -> Lock:
        return Lock()

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width in px of every image."""
        channels, height, width = self.images[0].pixels.shape
        return int(channels), int(height), int(width)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.shape[1:]

    def fitting(self, size: Sequence[int]) -> int:
        """Images per batch, of each of which a part of this size (px) is computed."""
        if isinstance(self.batch_size, int):
            return self.batch_size
        budget, most = (2**25, 256) if self.device.type == "cuda" else (2**20, 64)
        return max(1, min(most, budget // math.prod(size), LOADED // math.prod(self.size)))

    def batches(self, what: str, at_once: int | None = None, start: int = 0) -> Iterator[Batch | Passed]:
        """The images from `start` on, `at_once` at a time, with a progress bar named for the method.

        Batches are the same for any number of processes; those of the others come as Passed, unread.

        A batch ends where a look is due (`look_counts`), so that what is looked at does not depend on the batch size. While
        one batch is measured a thread reads the next; an image follows from its index alone, so that changes no pixel.
        """
        total, at_once = len(self.images), at_once or self.fitting(self.size)
        with (
            tqdm(total=total, initial=start, desc=what, unit="image", disable=not self.progress) as bar,
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="images") as reader,
        ):
            ranges = [
                range(first, min(first + at_once, end))
                for begin, end in pairwise([0, *look_counts(total)])
                for first in range(max(begin, start), end, at_once)
            ]
            own = (indices for place, indices in enumerate(ranges) if self.processes.measures(place))
            asked = (reader.submit(self._read, indices) for indices in own)
            waiting = next(asked, None)
            for place, indices in enumerate(ranges):
                if self.processes.measures(place):
                    assert waiting is not None  # asked for when the last one was taken
                    read, waiting = waiting.result(), next(asked, None)
                    yield self._normalised(read)
                else:
                    yield Passed(tuple(self._scenes(indices)))
                bar.update(len(indices))

    def load(self, indices: Sequence[int]) -> Batch:
        """The images with these indices."""
        return self._normalised(self._read(indices))

    def _read(self, indices: Sequence[int]) -> Batch:
        """The images as the source gives them, still on the host."""
        # Sources keep what they read last, and another baseline's images may be asked for meanwhile.
        with self._reading:
            several = self.images.concurrent and self.device.type in READERS
            found = list((_readers(self.device.type).map if several else map)(self.images.__getitem__, indices))
        if self.processes.size > 1:
            self._check_scenes(found)
        pixels = stacked([image.pixels for image in found], self.device)
        return Batch(pixels, tuple(indices), tuple(image.scene for image in found))

    def _check_scenes(self, found: Sequence[Image]) -> None:
        """The other processes know an image's scene from the source's `scene` alone."""
        for image in found:
            if (told := self.images.scene(image.index)) != image.scene:
                raise ImageError(
                    f"image {image.index} shows the scene {image.scene!r}, but {type(self.images).__name__}.scene says "
                    f"{told!r}; several processes need both to be the same."
                )

    def _scenes(self, indices: Sequence[int]) -> list[str]:
        with self._reading:
            return [self.images.scene(i) for i in indices]

    def _normalised(self, read: Batch) -> Batch:
        """What was read, on the device, normalised."""
        images = self._normalise(upload(read.images, self.device).to(self.dtype))
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return replace(read, images=images)

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
        """The pixels, which are this batch's own, in the model's units: in place, for they may fill much of a GPU's memory."""
        if self.images.normalised or self.model.mean is None or self.model.std is None:
            return pixels
        if len(self.model.mean) not in (1, pixels.shape[1]):
            raise ImageError(
                f"images have {pixels.shape[1]} channels and the normalisation {len(self.model.mean)}; "
                "set model.mean and model.std."
            )
        mean, std = (
            upload(torch.tensor(v, dtype=self.dtype), self.device)[:, None, None]
            for v in (self.model.mean, self.model.std)
        )
        return pixels.sub_(mean).div_(std)
