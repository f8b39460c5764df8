"""A batch that does not fit in memory is halved and repeated, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from erflab.attribution.base import Batch
from erflab.errors import MeasurementError

EXHAUSTED = (
    "out of memory",  # of CUDA itself, for pinned memory or a library's own
    "can't allocate memory",  # of torch's CPU allocator
    "ALLOC_FAILED",  # of cuBLAS, cuFFT, cuSOLVER
    "ALLOCATION_FAILED",  # of cuDNN
    "unable to find an engine",  # of cuDNN, where no algorithm's workspace fits
    "Unable to find a valid cuDNN algorithm",
)
"""Words of errors of memory that ran out."""


@dataclass
class Halving:
    """Runs `maps` on a batch; where memory runs out on its halves, and on batches no larger from then on.

    most: images that are run at once, None until memory has run out. A batch's maps are complete or not there at all, so
    that repeating it counts no image twice.
    """

    maps: Callable[[Batch], list[Tensor]]
    most: int | None = None

    def __call__(self, batch: Batch) -> list[Tensor]:
        """The maps of all images of the batch. Raises MeasurementError if a single image does not fit."""
        done, waiting = [], batch.split(self.most or len(batch.indices))
        while waiting:
            maps = self._attempt(waiting[0])
            if maps is None:
                waiting = [half for part in waiting for half in part.split(self.most or 1)]
            else:
                done.append(maps)
                waiting = waiting[1:]
        return [torch.cat(maps) for maps in zip(*done, strict=True)]

    def _attempt(self, batch: Batch) -> list[Tensor] | None:
        """The maps of a batch, or None, and a smaller `most`, if memory runs out."""
        try:
            return self.maps(batch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if self.most == 1:
                size = " x ".join(str(side) for side in batch.images.shape[2:])
                raise MeasurementError(
                    f"one image of {size} px does not fit in the memory of {batch.images.device} ({error}); make "
                    "images.size smaller, choose a layer nearer to the input, or another runtime.device."
                ) from error
        # Out of the handler: the error's traceback kept the tensors of the failed pass alive.
        self.most = max(1, len(batch.indices) // 2)
        if batch.images.is_cuda:
            torch.cuda.empty_cache()
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU, in Python, or in torch's CPU allocator.

    Only torch's own allocator on a GPU has an error of its own kind; the rest are plain RuntimeErrors, known by their words.
    """
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in EXHAUSTED)
