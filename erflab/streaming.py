"""The loop over images that every method shares: batches, memory, precision, sums, and when to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from erflab.aiming import Target
from erflab.attribution.base import Batch
from erflab.checkpoint import Checkpoint
from erflab.config import RuntimeConfig
from erflab.dataset import Measured
from erflab.errors import MeasurementError
from erflab.loader import Loader
from erflab.memory import Halving
from erflab.precision import Maps, Precision, first_maps


@dataclass
class Progress:
    """How far a method has come with its targets: sums and looks, and what was decided on the way.

    stopped: whether every map was known well enough before the images ended.
    """

    found: Sequence[Measured]
    compute: Halving
    precision: Precision | None = None
    stopped: bool = False

    def state(self) -> dict[str, Any]:
        """All that the rest of the images needs, for `restore`."""
        return {
            "images": self.found[0].sums.count,
            "stopped": self.stopped,
            "out_of_memory_batch": self.compute.most,
            "precision": None if self.precision is None else self.precision.state(),
            "targets": [{"sums": m.sums.state(), "looks": m.convergence.state()} for m in self.found],
        }

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a `state`."""
        self.stopped, self.compute.most = state["stopped"], state["out_of_memory_batch"]
        if state["precision"] is not None:
            self.precision = Precision.restored(state["precision"], device)
        for measured, saved in zip(self.found, state["targets"], strict=True):
            measured.sums.restore(saved["sums"])
            measured.convergence.restore(saved["looks"])


def stream(
    method: str,
    targets: Sequence[Target],
    found: Sequence[Measured],
    loader: Loader,
    maps: Maps,
    runtime: RuntimeConfig,
    at_once: int | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Measured]:
    """Add the maps of the images to what was found of each target, until they end or are enough.

    A checkpoint that holds some of them is gone on from, to the same bits, and written between batches. Nothing else is
    read back from the device between two looks (`look_counts`).

    Raises MeasurementError naming the images whose map is not finite, at the next look.
    """
    progress, checkpoint = Progress(found, Halving(maps)), checkpoint or Checkpoint()
    if (saved := checkpoint.follow(_name(method, targets), progress.state)) is not None:
        progress.restore(saved, loader.device)
    for batch in loader.batches(method, at_once, len(loader.images) if progress.stopped else found[0].sums.count):
        for measured, made in zip(found, _maps(progress, method, runtime, loader.device, batch), strict=True):
            measured.sums.update(made, batch.scenes)
        progress.stopped = _enough(method, targets, found)
        checkpoint.write_if_due()
        if progress.stopped:
            break
    return [_noted(method, place, measured, progress) for place, measured in enumerate(found)]


def _name(method: str, targets: Sequence[Target]) -> str:
    """What one stream of images measures, as no other of the same measurement does."""
    return f"{method} {targets[0].field.layer}:{targets[0].field.call} {list(targets[0].field.unit)}"


def _maps(progress: Progress, method: str, runtime: RuntimeConfig, device: torch.device, batch: Batch) -> list[Tensor]:
    if progress.precision is not None:
        return progress.precision.maps(progress.compute, batch)
    frames = [measured.frame for measured in progress.found]
    progress.precision, maps = first_maps(method, runtime, device, progress.compute, batch, frames)
    return maps


def _enough(method: str, targets: Sequence[Target], found: Sequence[Measured]) -> bool:
    """Whether to stop here: where a look is due, and every map is known well enough."""
    satisfied = []
    for target, measured in zip(targets, found, strict=True):
        if measured.convergence.due(measured.sums.count):
            totals = measured.sums.totals
            _refuse_non_finite(method, target.trunk.layer, totals)
            satisfied.append(measured.convergence.look(measured.grouped, totals))
    return bool(satisfied) and all(satisfied)


def _refuse_non_finite(method: str, layer: str, totals: Sequence[float]) -> None:
    # A map with a value that is not finite has no finite sum.
    bad = np.flatnonzero(~np.isfinite(totals)).tolist()
    if bad:
        raise MeasurementError(
            f"{method} of layer {layer!r} is not finite for image(s) {bad[:8]}; check the weights and the normalisation, "
            "or try runtime.precision=float64."
        )


def _noted(method: str, place: int, measured: Measured, progress: Progress) -> Measured:
    precision, most = progress.precision, progress.compute.most
    assert precision is not None  # there is always a first batch
    halved = {} if most is None else {"out_of_memory_batch": most}
    return dataclasses.replace(
        measured,
        flags=(*measured.flags, *precision.flags(method, place)),
        computed={**precision.about(place), **halved},
    )
