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
from erflab.distributed import Processes
from erflab.errors import MeasurementError
from erflab.loader import Loader, Passed
from erflab.memory import Halving
from erflab.precision import Maps, Precision, audited_maps, exact_precision


@dataclass
class Progress:
    """How far a method has come with its targets: sums and looks, and what was decided on the way.

    stopped: whether every map was known well enough before the images ended.
    """

    found: Sequence[Measured]
    compute: Halving
    processes: Processes
    precision: Precision | None
    stopped: bool = False

    @property
    def whole(self) -> list[Measured]:
        """What was found, with the sums of all processes, all of which must ask for it."""
        return [dataclasses.replace(measured, sums=measured.sums.merged(self.processes)) for measured in self.found]

    def state(self) -> dict[str, Any]:
        """All that the rest of the images needs, for `restore`: the same in all processes, all of which must ask for it."""
        return {
            "images": self.found[0].sums.count,
            "stopped": self.stopped,
            "out_of_memory_batch": self.compute.most,
            "precision": None if self.precision is None else self.precision.state(),
            "targets": [{"sums": m.sums.state(), "looks": m.convergence.state()} for m in self.whole],
        }

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a `state`, which the first process takes over, and the others as what another has added."""
        self.stopped, self.compute.most = state["stopped"], state["out_of_memory_batch"]
        if state["precision"] is not None:
            self.precision = Precision.restored(state["precision"], device)
        for measured, saved in zip(self.found, state["targets"], strict=True):
            measured.sums.restore(saved["sums"], passed=not self.processes.first)
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
    read back from the device between two looks (`look_counts`). Several processes are dealt the batches in turn; looks are
    taken at the sums of all, and the first process decides.

    Raises MeasurementError naming the images whose map is not finite, at the next look.
    """
    processes, checkpoint = loader.processes, checkpoint or Checkpoint()
    progress = Progress(found, Halving(maps), processes, exact_precision(method, runtime, loader.device))
    if (saved := checkpoint.follow(_name(method, targets), progress.state)) is not None:
        progress.restore(saved, loader.device)
    start = len(loader.images) if progress.stopped else found[0].sums.count
    for number, batch in enumerate(loader.batches(method, at_once, start)):
        _add(found, _maps(progress, runtime, loader.device, batch), batch.scenes)
        if found[0].convergence.due(found[0].sums.count):
            progress.stopped = processes.from_first(_enough(method, targets, progress.whole))
        if processes.ends_round(number):
            checkpoint.write_if_due()
        if progress.stopped:
            break
    most = min((most for most in processes.gathered(progress.compute.most) if most is not None), default=None)
    return [_noted(method, place, measured, progress, most) for place, measured in enumerate(progress.whole)]


def _name(method: str, targets: Sequence[Target]) -> str:
    """What one stream of images measures, as no other of the same measurement does."""
    return f"{method} {targets[0].field.layer}:{targets[0].field.call} {list(targets[0].field.unit)}"


def _maps(
    progress: Progress, runtime: RuntimeConfig, device: torch.device, batch: Batch | Passed
) -> list[Tensor] | None:
    """The maps of a batch, one an image of each target; None where another process measures it.

    The precision, where it must be found by trying, is found by the first process on the first batch.
    """
    if isinstance(batch, Passed):
        progress.precision = progress.precision or progress.processes.from_first(None)
        return None
    if progress.precision is not None:
        return progress.precision.maps(progress.compute, batch)
    frames = [measured.covered for measured in progress.found]
    tried, maps = audited_maps(runtime, device, progress.compute, batch, frames)
    progress.precision = progress.processes.from_first(tried)
    return maps


def _add(found: Sequence[Measured], maps: Sequence[Tensor] | None, scenes: Sequence[str]) -> None:
    for place, measured in enumerate(found):
        if maps is None:
            measured.sums.pass_over(scenes)
        else:
            measured.sums.update(maps[place], scenes)


def _enough(method: str, targets: Sequence[Target], found: Sequence[Measured]) -> bool:
    """Whether every map is known well enough to stop."""
    satisfied = []
    for target, measured in zip(targets, found, strict=True):
        totals = measured.sums.totals
        _refuse_non_finite(method, target.trunk.layer, totals)
        satisfied.append(measured.convergence.look(measured.grouped, totals))
    return all(satisfied)


def _refuse_non_finite(method: str, layer: str, totals: Sequence[float]) -> None:
    # A map with a value that is not finite has no finite sum.
    bad = np.flatnonzero(~np.isfinite(totals)).tolist()
    if bad:
        raise MeasurementError(
            f"{method} of layer {layer!r} is not finite for image(s) {bad[:8]}; check the weights and the normalisation, "
            "or try runtime.precision=float64."
        )


def _noted(method: str, place: int, measured: Measured, progress: Progress, most: int | None) -> Measured:
    precision = progress.precision
    assert precision is not None  # there is always a first batch
    halved = {} if most is None else {"out_of_memory_batch": most}
    return dataclasses.replace(
        measured,
        flags=(*measured.flags, *precision.flags(method, place)),
        computed={**precision.about(place), **halved},
    )
