"""The loop over images that every method shares: batches, memory, precision, sums, and when to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from erflab.aiming import Target
from erflab.config import RuntimeConfig
from erflab.dataset import Measured
from erflab.errors import MeasurementError
from erflab.loader import Loader, Passed
from erflab.memory import Halving
from erflab.precision import Maps, Precision, audited_maps, exact_precision


def stream(
    method: str,
    targets: Sequence[Target],
    found: Sequence[Measured],
    loader: Loader,
    maps: Maps,
    runtime: RuntimeConfig,
    at_once: int | None = None,
) -> list[Measured]:
    """Add the maps of the images to what was found of each target, until they end or are enough.

    Nothing is read back from the device between two looks (`look_counts`). Several processes are dealt the batches in turn;
    looks are taken at the sums of all, and the first process decides.

    Raises MeasurementError naming the images whose map is not finite, at the next look.
    """
    compute, processes, whole = Halving(maps), loader.processes, list(found)
    precision = exact_precision(method, runtime, loader.device)
    for number, batch in enumerate(loader.batches(method, at_once)):
        new = None
        if isinstance(batch, Passed):
            precision = precision or processes.from_first(None)
        elif precision is None:  # the first batch, which is the first process's
            tried, new = audited_maps(runtime, loader.device, compute, batch, [measured.covered for measured in found])
            precision = processes.from_first(tried)
        else:
            new = precision.maps(compute, batch)
        _add(found, new, batch.scenes)
        if processes.ends_round(number):
            processes.gathered(None)  # so that no process goes on for long when another has failed
        if found[0].convergence.due(found[0].sums.count):
            whole = [dataclasses.replace(m, sums=m.sums.merged(processes)) for m in found]
            if processes.from_first(_enough(method, targets, whole)):
                break
    assert precision is not None  # there is always a first batch
    most = min((most for most in processes.gathered(compute.most) if most is not None), default=None)
    return [_noted(method, place, measured, precision, most) for place, measured in enumerate(whole)]


def _add(found: Sequence[Measured], maps: Sequence[Tensor] | None, scenes: Sequence[str]) -> None:
    """Add the maps of a batch, one an image of each target; None where another process adds them."""
    for place, measured in enumerate(found):
        if maps is None:
            measured.sums.pass_over(scenes)
        else:
            measured.sums.update(maps[place], scenes)


def _enough(method: str, targets: Sequence[Target], found: Sequence[Measured]) -> bool:
    """Whether every map is known well enough."""
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


def _noted(method: str, place: int, measured: Measured, precision: Precision, most: int | None) -> Measured:
    halved = {} if most is None else {"out_of_memory_batch": most}
    return dataclasses.replace(
        measured,
        flags=(*measured.flags, *precision.flags(method, place)),
        computed={**precision.about(place), **halved},
    )
