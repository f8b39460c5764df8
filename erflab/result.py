"""The result of a measurement: maps with coordinates in px, and every number derived from them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from erflab.analysis.fields import against_theory, gradient_against_occlusion, predicted_against
from erflab.analysis.jackknife import Estimate, GroupedMap
from erflab.analysis.sizes import Quantity, Sizes, measure_sizes
from erflab.errors import MeasurementError, ResultError
from erflab.flags import Flag
from erflab.groups import equal_weight_map, equal_weight_sigma, grouped_map, image_weights, weight_flags

METHODS = ("gradient", "occlusion")
FORMAT = 2
_ENCODING = {"zlib": True, "shuffle": True, "complevel": 4}


@dataclass(frozen=True, eq=False)
class Result:
    """Maps and numbers of one measurement.

    `dataset` holds, for each method measured, the mean map over images `METHOD` (float64), its per-image `METHOD_variance`,
    the sums of each group of scenes `METHOD_groups` and the same of the images' maps each divided by its own sum,
    `METHOD_equal_groups`, on (y, x) in px from the unit's centre (occlusion on coordinates of its own, with readings per
    offset in `occlusion_readings`), and in its attributes the theoretical field, the configuration, images, flags and
    versions as JSON. `provenance` holds what varies from run to run.
    """

    dataset: xr.Dataset
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods measured."""
        return tuple(m for m in METHODS if m in self.dataset)

    def attribute(self, name: str) -> Any:
        """A JSON attribute: "config", "images", "flags", "versions", "theory" or "model"."""
        return json.loads(self.dataset.attrs[name])

    def map(self, method: str | None = None) -> xr.DataArray:
        """The mean map over images, dims (y, x), px from the unit's centre; by default of the first method."""
        return self._variable(method or self.methods[0])

    def variance(self, method: str | None = None) -> xr.DataArray | None:
        """Variance of the mean map; None for fewer than two images."""
        name = method or self.methods[0]
        count = int(self.dataset[name].attrs["images"])
        return self._variable(f"{name}_variance", name) / count if count > 1 else None

    def _variable(self, name: str, method: str | None = None) -> xr.DataArray:
        method = method or name
        if method not in self.methods:
            raise ResultError(f"no method {method!r} in this result; it has {', '.join(self.methods)}.")
        found = self.dataset[name]
        names = {str(d): str(d).rsplit("_", 1)[-1] for d in found.dims}
        return found.rename({old: new for old, new in names.items() if old != new})

    def grouped(self, method: str | None = None) -> GroupedMap:
        """The mean map with the sums of its groups of scenes, from which every error is computed."""
        name = method or self.methods[0]
        return grouped_map(self.dataset, self.map(name), name)

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """The theoretical field as offsets (y0, y1, x0, x1) from the unit's centre, inclusive; None if unknown."""
        theory = self.attribute("theory")
        if theory["box"] is None:
            return None
        center = [c for c in theory["center"] for _ in range(2)]
        y0, y1, x0, x1 = (float(b) - c for b, c in zip(theory["box"], center, strict=True))
        return y0, y1, x0, x1

    @cached_property
    def _analysed(self) -> dict[str, Sizes | MeasurementError]:
        falloff = self.attribute("config")["falloff"]
        theory = self.attribute("theory")
        found: dict[str, Sizes | MeasurementError] = {}
        for method in self.methods:
            try:
                found[method] = measure_sizes(
                    self.grouped(method),
                    variance=self.variance(method),
                    box=self.box,
                    trf_size=[None if s is None else float(s) for s in theory["size"]],
                    input_size=(theory["input_size"][0], theory["input_size"][1]),
                    replknet=self._magnitude(method) == "replknet",
                    **falloff,
                )
            except MeasurementError as error:
                found[method] = error
        return found

    def _magnitude(self, method: str) -> str:
        return str(self.dataset[method].attrs["magnitude"])

    def weights(self, method: str | None = None) -> dict[str, Quantity]:
        """How many images there are and how they weigh: images, effective_images, largest_image_share, equal_weight_sigma."""
        name = method or self.methods[0]
        return {
            "images": Quantity(int(self.dataset[name].attrs["images"]), "1"),
            **{n: Quantity(value, "1") for n, value in image_weights(self.dataset, name).items()},
            "equal_weight_sigma": Quantity.of(self._equal_weight_sigma[name], "px"),
        }

    @cached_property
    def _equal_weight_sigma(self) -> dict[str, Estimate]:
        return {name: equal_weight_sigma(equal_weight_map(self.dataset, self.map(name), name)) for name in self.methods}

    def agreement(self, predicted: xr.DataArray | None = None) -> dict[str, dict[str, Quantity]]:
        """How far the fields agree, as NAME -> number -> quantity, with errors over images.

        `METHOD_vs_theory`, and where both were measured `gradient_vs_occlusion` and `blurred_gradient_vs_occlusion`: equal
        for linear networks and white images. With a predicted energy map on (y, x), such as `predicted_field(...).map`, also
        `predicted_vs_METHOD`. The numbers are those of `erflab.analysis.fields`. Maps that have no size are left out.
        """
        known = {method: sizes for method in self.methods if (sizes := self.known_sizes(method))}
        found = {f"{method}_vs_theory": against_theory(sizes) for method, sizes in known.items()}
        if len(known) == len(METHODS):
            found |= self._gradient_vs_occlusion
        if predicted is not None:
            found |= predicted_against(predicted, {method: self.grouped(method) for method in known}, self._patch)
        return found

    @cached_property
    def _gradient_vs_occlusion(self) -> dict[str, dict[str, Quantity]]:
        assert self._patch is not None  # occlusion was measured; this tells the type checker
        return gradient_against_occlusion(self.grouped("gradient"), self.grouped("occlusion"), self._patch)

    @property
    def _patch(self) -> int | None:
        return int(self.dataset["occlusion"].attrs["patch"]) if "occlusion" in self.dataset else None

    def sizes(self, method: str | None = None) -> Sizes:
        """All sizes and the falloff fit of one method's map. Raises MeasurementError if the map has none."""
        found = self._analysed[method or self.methods[0]]
        if isinstance(found, MeasurementError):
            raise found
        return found

    def known_sizes(self, method: str) -> Sizes | None:
        """As `sizes`, but None if the map has none."""
        found = self._analysed[method]
        return found if isinstance(found, Sizes) else None

    @property
    def flags(self) -> list[Flag]:
        """What may mislead: raised while measuring, and by the analysis."""
        flags = [Flag(**f) for f in self.attribute("flags")]
        for method, sizes in self._analysed.items():
            flags += weight_flags(self.dataset, method)
            if self._magnitude(method) == "replknet":
                flags.append(Flag("scale_dependent", method))
            if isinstance(sizes, MeasurementError):
                flags.append(Flag("no_size", method, str(sizes)))
            else:
                flags += [Flag("fit", method, code) for code in sizes.fit.flags]
        return flags

    def summary(self) -> dict[str, Any]:
        """Flat scalars, ready for JSON: identity, theory, and each size as {value, unit, standard_error, interval}."""
        theory, model = self.attribute("theory"), self.attribute("model")
        flat: dict[str, Any] = {
            "model": model["name"],
            "weights": model["weights"],
            **{
                key: theory[key]
                for key in ("layer", "unit", "input_size", "grid", "is_global", "aligned", "center_rule")
            },
            **_axes("trf_size", theory["size"], "px"),
            **_axes("trf_local_size", theory["local_size"], "px"),
            **_axes("stride", theory["stride"], "px"),
            **_axes("center", theory["center"], "px"),
            "flags": [asdict(f) for f in self.flags],
        }
        for method, sizes in self._analysed.items():
            flat[f"{method}.magnitude"] = self._magnitude(method)
            flat.update(_flat(method, self.weights(method)))
            if isinstance(sizes, Sizes):
                flat.update(_flat(method, sizes.quantities))
        for name, numbers in self.agreement().items():
            flat.update(_flat(name, numbers))
        return flat

    def plot(self, path: str | Path | None = None) -> Figure:
        """The paper figure; with `path` (a stem) also written as .pdf and .png."""
        from erflab.figures.erf import ErfPanel, draw_erf
        from erflab.figures.style import save

        panels = []
        for method in self.methods:
            known = self.known_sizes(method)
            codes = tuple(dict.fromkeys(f.code for f in self.flags if f.method in (None, method)))
            panels.append(
                ErfPanel(
                    title=method,
                    map=self.map(method),
                    fit=known.fit if known else None,
                    moments=known.moments if known else None,
                    box=self.box,
                    notes=codes,
                )
            )
        theory = self.attribute("theory")
        stride = max((s for s in theory["stride"] if s is not None), default=1)
        title = f"{self.attribute('model')['name']}, {theory['layer']}"
        figure = draw_erf(panels, title=title, strip=float(stride))
        if path is not None:
            save(figure, Path(path))
        return figure

    def save(self, path: str | Path) -> Path:
        """Write `result.nc`, `summary.json` and `provenance.json` into a directory, each atomically. Returns the directory."""
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        encoding = {str(n): _ENCODING for n, v in self.dataset.data_vars.items() if v.ndim}
        write_atomically(
            directory / "result.nc", lambda to: self.dataset.to_netcdf(to, engine="h5netcdf", encoding=encoding)
        )
        write_json(directory / "summary.json", self.summary())
        write_json(directory / "provenance.json", dict(self.provenance))
        return directory


def load(path: str | Path) -> Result:
    """Read a result from its directory or its `result.nc`. Raises ResultError if there is none or it cannot be read."""
    where = Path(path)
    file = where / "result.nc" if where.is_dir() else where
    if not file.exists():
        raise ResultError(f"no result at {where}; give a run directory or its result.nc.")
    try:
        with xr.open_dataset(file, engine="h5netcdf") as opened:
            dataset = opened.load()
    except Exception as error:  # h5py and h5netcdf raise many kinds on damaged files
        raise ResultError(f"{file} cannot be read as a result: {error}") from error
    if dataset.attrs.get("format") != FORMAT:
        raise ResultError(
            f"{file} has result format {dataset.attrs.get('format')}; this version reads format {FORMAT}."
        )
    provenance = file.with_name("provenance.json")
    return Result(dataset, json.loads(provenance.read_text()) if provenance.exists() else {})


def as_json(value: Any) -> str:
    """JSON with sorted keys and infinities as strings, the form that result attributes and files hold."""
    return json.dumps(_to_json(value), sort_keys=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, in the order given."""
    write_atomically(path, lambda to: to.write_text(json.dumps(_to_json(value), indent=2) + "\n"))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary neighbour, then put it in place: a reader sees the whole file or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _flat(subject: str, quantities: Mapping[str, Quantity]) -> dict[str, Any]:
    return {f"{subject}.{name}": asdict(quantity) for name, quantity in quantities.items()}


def _axes(name: str, values: list[Any], unit: str) -> dict[str, Any]:
    return {f"{name}_{axis}": asdict(Quantity(v, unit)) for axis, v in zip("yx", values, strict=True)}
