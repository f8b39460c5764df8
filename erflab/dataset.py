"""What was measured, as one labelled dataset: the content of `result.nc`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from erflab.accumulate import MapSums
from erflab.attribution.base import Frame
from erflab.config import ErflabConfig, as_dict
from erflab.flags import Flag
from erflab.images import ImageSource
from erflab.models import LoadedModel
from erflab.provenance import versions
from erflab.result import FORMAT, as_json
from erflab.theory.field import TheoreticalField


@dataclass(frozen=True)
class Measured:
    """One method's sums over images."""

    sums: MapSums
    frame: Frame
    magnitude: str
    unit: str
    readings: Tensor | None = None
    flags: tuple[Flag, ...] = ()
    patch: int | None = None
    """Side of the occluding patch in px."""


def as_dataset(
    maps: dict[str, Measured],
    field: TheoreticalField,
    loaded: LoadedModel,
    images: ImageSource,
    config: ErflabConfig,
    flags: list[Flag],
) -> xr.Dataset:
    """The labelled maps of all methods, with the theory, model, images, configuration, flags and versions as JSON."""
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for name, measured in maps.items():
        suffix = "" if name == "gradient" else f"{name}_"
        dims = (f"{suffix}y", f"{suffix}x")
        for dim, values in zip(dims, (measured.frame.y, measured.frame.x), strict=True):
            coordinates[dim] = (dim, list(values), {"units": "px", "long_name": "offset from the unit's centre"})
        variables.update(_variables(name, measured, dims))
    attributes = {
        "format": FORMAT,
        "theory": as_json(_theory(field)),
        "model": as_json(_model(loaded)),
        "images": as_json(images.record()),
        "config": as_json(_without_paths(config)),
        "flags": as_json([dataclasses.asdict(f) for f in flags]),
        "versions": as_json({**versions(), "threads": torch.get_num_threads()}),
    }
    return xr.Dataset(variables, coordinates, attributes)


def _variables(name: str, measured: Measured, dims: tuple[str, str]) -> dict[str, Any]:
    sums = measured.sums
    about = {"units": measured.unit, "magnitude": measured.magnitude, "images": sums.count, "scenes": sums.scenes}
    if measured.patch is not None:
        about["patch"] = measured.patch
    found: dict[str, Any] = {
        name: (dims, sums.mean.cpu().numpy(), about),
        f"{name}_variance": (dims, sums.variance.cpu().numpy(), {"long_name": "variance over images"}),
        f"{name}_groups": (
            ("group", *dims),
            sums.group_sums.float().cpu().numpy(),
            {"long_name": "sum over the group's images"},
        ),
        f"{name}_group_images": (("group",), sums.group_counts, {"long_name": "images in the group"}),
        f"{name}_equal_groups": (
            ("group", *dims),
            sums.equal_sums.float().cpu().numpy(),
            {"long_name": "sum over the group's images, each image's map divided by its own sum"},
        ),
        f"{name}_equal_group_images": (("group",), sums.equal_counts, {"long_name": "images in those sums"}),
        f"{name}_totals": ((f"{name}_image",), sums.totals, {"long_name": "sum of each image's map"}),
    }
    if measured.readings is not None:
        found[f"{name}_readings"] = (
            dims,
            measured.readings.cpu().numpy(),
            {"long_name": "(unit, patch) readings an image"},
        )
    return found


def _theory(field: TheoreticalField) -> dict[str, Any]:
    return {
        "layer": field.layer,
        "call": field.call,
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


def _model(loaded: LoadedModel) -> dict[str, Any]:
    return {
        "name": loaded.name,
        "library": loaded.library,
        "weights": loaded.weights,
        "weights_sha256": loaded.weights_sha256,
        "mean": loaded.mean,
        "std": loaded.std,
    }


def _without_paths(config: ErflabConfig) -> dict[str, Any]:
    """The configuration as it matters for the result: files and folders by name (their hashes are recorded elsewhere)."""
    plain = as_dict(config)
    for group, key in (("model", "weights"), ("images", "path")):
        if plain[group].get(key):
            plain[group][key] = PurePath(plain[group][key]).name
    return plain
