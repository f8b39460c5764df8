"""The loop over images that every method shares: batches, memory, precision, sums, and when to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from erflab.aiming import Target
from erflab.config import RuntimeConfig
from erflab.dataset import Measured
from erflab.errors import MeasurementError
from erflab.loader import Loader
from erflab.memory import Halving
from erflab.precision import Maps, Precision, first_maps


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

    Nothing is read back from the device between two looks (`look_counts`).

    Raises MeasurementError naming the images whose map is not finite, at the next look.
    """
    compute, precision = Halving(maps), None
    for batch in loader.batches(method, at_once):
        if precision is None:
            frames = [measured.covered for measured in found]
            precision, new = first_maps(method, runtime, loader.device, compute, batch, frames)
        else:
            new = precision.maps(compute, batch)
        for measured, made in zip(found, new, strict=True):
            measured.sums.update(made, batch.scenes)
        if _enough(method, targets, found):
            break
    assert precision is not None  # there is always a first batch
    return [_noted(method, place, measured, precision, compute) for place, measured in enumerate(found)]


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


def _noted(method: str, place: int, measured: Measured, precision: Precision, compute: Halving) -> Measured:
    halved = {} if compute.most is None else {"out_of_memory_batch": compute.most}
    return dataclasses.replace(
        measured,
        flags=(*measured.flags, *precision.flags(method, place)),
        computed={**precision.about(place), **halved},
    )
