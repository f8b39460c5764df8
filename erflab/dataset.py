"""What was measured, as one labelled dataset: the content of `result.nc`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from erflab.accumulate import MapSums
from erflab.analysis.jackknife import GroupedMap
from erflab.attribution.base import Aim, Frame
from erflab.config import ErflabConfig
from erflab.convergence import Convergence
from erflab.flags import Flag
from erflab.groups import packed_sums
from erflab.identity import identity
from erflab.images import ImageSource
from erflab.jsonfiles import as_json
from erflab.models import LoadedModel
from erflab.provenance import versions
from erflab.storage import FORMAT
from erflab.theory.field import TheoreticalField


@dataclass(frozen=True)
class Measured:
    """One method's sums over images, where their map lies, and how they converged.

    The sums cover the part `covered` of the frame; elsewhere the map is zero.
    """

    frame: Frame
    covered: Frame
    sums: MapSums
    convergence: Convergence
    magnitude: str
    unit: str
    readings: Tensor | None = None
    flags: tuple[Flag, ...] = ()
    patch: int | None = None
    """Side of the occluding patch in px."""
    computed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How it was computed, as attributes of the map: its precision, what that changes, a batch that was halved."""

    @property
    def grouped(self) -> GroupedMap:
        """The map so far, where it is not zero throughout, by groups of scenes."""
        axes = {"y": list(self.covered.y), "x": list(self.covered.x)}
        mean = xr.DataArray(self.sums.mean.cpu().numpy(), axes, ("y", "x"))
        return GroupedMap(mean, self.sums.group_sums.cpu().numpy(), np.array(self.sums.group_counts))

    def placed(self, covered: Tensor) -> Tensor:
        """A map of what the sums cover, [v, u], on the whole frame, [y, x]."""
        if tuple(covered.shape) == self.frame.shape:
            return covered
        placed = covered.new_zeros(self.frame.shape)
        top, left = self.frame.y.index(self.covered.y[0]), self.frame.x.index(self.covered.x[0])
        placed[top : top + covered.shape[0], left : left + covered.shape[1]] = covered
        return placed


def as_dataset(
    maps: dict[str, Measured],
    field: TheoreticalField,
    aim: Aim,
    loaded: LoadedModel,
    images: ImageSource,
    config: ErflabConfig,
    flags: list[Flag],
    crop: dict[str, Any],
    processes: int = 1,
) -> xr.Dataset:
    """The labelled maps of all methods, with theory, model, images, configuration, crop, flags and versions as JSON.

    The numbers of threads and of processes that measured stand among the versions.
    """
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for name, measured in maps.items():
        suffix = "" if name == "gradient" else f"{name}_"
        dims = (f"{suffix}y", f"{suffix}x")
        whole = measured.covered == measured.frame
        covered = dims if whole else (f"{suffix}computed_y", f"{suffix}computed_x")
        for names, frame in ((dims, measured.frame), (covered, measured.covered)):
            for dim, values in zip(names, (frame.y, frame.x), strict=True):
                coordinates[dim] = (dim, list(values), {"units": "px", "long_name": "offset from the unit's centre"})
        variables.update(_variables(name, measured, dims, covered))
    attributes = {
        "format": FORMAT,
        "theory": as_json({**_theory(field), "units": [list(unit) for unit in aim.units]}),
        "model": as_json(model_record(loaded)),
        "images": as_json(images.record()),
        "config": as_json(identity(config)),
        "crop": as_json(crop),
        "flags": as_json([dataclasses.asdict(f) for f in flags]),
        "versions": as_json({**versions(), "threads": torch.get_num_threads(), "processes": processes}),
    }
    return xr.Dataset(variables, coordinates, attributes)


def _variables(name: str, measured: Measured, dims: tuple[str, str], covered: tuple[str, str]) -> dict[str, Any]:
    sums = measured.sums
    about = {"units": measured.unit, "magnitude": measured.magnitude, "images": sums.count, "scenes": sums.scenes}
    about |= measured.computed
    if measured.patch is not None:
        about["patch"] = measured.patch
    found: dict[str, Any] = {
        name: (dims, measured.placed(sums.mean).cpu().numpy(), about),
        f"{name}_variance": (
            dims,
            measured.placed(sums.variance).cpu().numpy(),
            {"long_name": "variance over images"},
        ),
        f"{name}_groups": packed_sums(sums.group_sums, ("group", *covered)),
        f"{name}_group_images": (("group",), sums.group_counts, {"long_name": "images in the group"}),
        f"{name}_equal_groups": (
            ("group", *covered),
            sums.equal_sums.float().cpu().numpy(),
            {"long_name": "sum over the group's images, each image's map divided by its own sum"},
        ),
        f"{name}_equal_group_images": (("group",), sums.equal_counts, {"long_name": "images in those sums"}),
        f"{name}_totals": ((f"{name}_image",), sums.totals, {"long_name": "sum of each image's map"}),
    }
    found.update(_convergence(name, measured.convergence))
    if measured.readings is not None:
        found[f"{name}_readings"] = (
            dims,
            measured.readings.cpu().numpy(),
            {"long_name": "(unit, patch) readings an image"},
        )
    return found


def _convergence(name: str, convergence: Convergence) -> dict[str, Any]:
    """Sigma and its standard error after 64, 128, 256, ... images; NaN where there was none."""
    about = {"sigma": "px", "standard_error": "px", "images": "1", "effective_images": "1"}
    return {
        f"{name}_convergence_{key}": (
            (f"{name}_look",),
            [math.nan if (value := getattr(look, key)) is None else value for look in convergence.looks],
            {"units": unit},
        )
        for key, unit in about.items()
    }


def _theory(field: TheoreticalField) -> dict[str, Any]:
    return {
        "layer": field.layer,
        "call": field.call,
        "calls": 1 if field.graph is None else field.graph.calls[field.layer],
        "unit": list(field.unit),
        "grid": list(field.grid),
        "layout": field.layout.kind,
        "input_size": list(field.input_size),
        "size": list(field.size),
        "stride": list(field.stride),
        "padding": list(field.padding),
        "aligned": field.aligned,
        "is_global": field.is_global,
        "causes": list(field.causes),
        "untracked": list(field.untracked),
        "reason": field.reason,
        "local_size": list(field.local.size),
        "box": field.box(),
        "clipped_box": field.clipped_box(),
        "center": list(field.center()),
        "center_rule": field.center_rule,
    }


def model_record(loaded: LoadedModel) -> dict[str, Any]:
    """Which model was measured, with the hash of its weights."""
    return {
        "name": loaded.name,
        "library": loaded.library,
        "weights": loaded.weights,
        "weights_sha256": loaded.weights_sha256,
        "mean": loaded.mean,
        "std": loaded.std,
    }
