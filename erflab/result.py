"""The result of a measurement: maps with coordinates in px, and every number derived from them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from matplotlib.figure import Figure

from erflab.analysis.sizes import Sizes, measure_sizes
from erflab.config import METHODS
from erflab.errors import MeasurementError, ResultError, closest
from erflab.flags import Flag

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
_ENCODING = {"zlib": True, "shuffle": True, "complevel": 4}


@dataclass(frozen=True, eq=False)
class Result:
    """Maps and numbers of one measurement: of one unit of one layer, or a part for each of several.

    A part's `dataset` holds, for each method measured, the mean map over images `METHOD` (float64), its per-image
    `METHOD_variance` and the sums of each group of scenes `METHOD_groups`, on (y, x) in px from the unit's centre (occlusion
    on coordinates of its own, with readings per offset in `occlusion_readings`), and in its attributes the theoretical
    field, the configuration, images, flags and versions as JSON. `provenance` holds what varies from run to run.

    Iterating gives the parts in execution order, each a Result; maps, sizes and flags are those of a single part.
    """

    parts: tuple[xr.Dataset, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> xr.Dataset:
        """The only part. Raises ResultError if there are several: choose one with `at`."""
        if len(self.parts) != 1:
            raise ResultError(
                f"this result has {len(self.parts)} parts: {', '.join(self.labels[:8])}; choose one: result.at("
                f"{self.labels[0]!r})."
            )
        return self.parts[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each part: its layer, with the unit where a layer has several."""
        theories = [json.loads(part.attrs["theory"]) for part in self.parts]
        names = [t["layer"] if t["call"] == t["calls"] - 1 else f"{t['layer']}:{t['call']}" for t in theories]
        return tuple(
            name if names.count(name) == 1 else f"{name}[{','.join(map(str, theory['unit']))}]"
            for name, theory in zip(names, theories, strict=True)
        )

    def at(self, label: str) -> Result:
        """One part by its label, "layer3" or "layer3[0,0]". Raises ResultError with the closest labels."""
        if label not in self.labels:
            raise ResultError(f"no part {label!r} in this result of {len(self)}.{closest(label, self.labels)}")
        return Result((self.parts[self.labels.index(label)],), self.provenance)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Result]:
        return (Result((part,), self.provenance) for part in self.parts)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods measured."""
        return tuple(m for m in METHODS if m in self.parts[0])

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

    def convergence(self, method: str | None = None) -> xr.Dataset:
        """Sigma and its standard error in px after 64, 128, 256, ... images (dim "look"), with N_eff; NaN without a size."""
        name = method or self.methods[0]
        keys = ("images", "sigma", "standard_error", "effective_images")
        return xr.Dataset({key: self._variable(f"{name}_convergence_{key}", name) for key in keys})

    def _variable(self, name: str, method: str | None = None) -> xr.DataArray:
        method = method or name
        if method not in self.methods:
            raise ResultError(f"no method {method!r} in this result; it has {', '.join(self.methods)}.")
        found = self.dataset[name]
        names = {str(d): str(d).rsplit("_", 1)[-1] for d in found.dims}
        return found.rename({old: new for old, new in names.items() if old != new})

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
                    self.map(method),
                    variance=self.variance(method),
                    box=self.box,
                    trf_size=[None if s is None else float(s) for s in theory["size"]],
                    **falloff,
                )
            except MeasurementError as error:
                found[method] = error
        return found

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
            flat[f"{method}.magnitude"] = self.dataset[method].attrs["magnitude"]
            flat[f"{method}.images"] = _scalar(int(self.dataset[method].attrs["images"]), "1")
            if isinstance(sizes, Sizes):
                flat.update(
                    {f"{method}.{n}": _scalar(q.value, q.unit, q.standard_error) for n, q in sizes.quantities.items()}
                )
        return flat

    def rows(self) -> list[dict[str, Any]]:
        """The summary of each part."""
        return [part.summary() for part in self]

    def table(self) -> pd.DataFrame:
        """A row a part; each number with columns for its standard error and the ends of its interval."""
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.rows()], index=pd.Index(self.labels, name="part"))

    def plot(self, path: str | Path | None = None) -> Figure:
        """The paper figure: the maps of one part, or of several the sizes against depth. With `path` (a stem) also written
        as .pdf and .png, and then each part's maps beside it, the part's label added to the stem.
        """
        from erflab.figures.style import save

        figure = self._plot_maps() if len(self) == 1 else self._plot_depth()
        if path is not None:
            save(figure, Path(path))
            for label, part in zip(self.labels, self, strict=True) if len(self) > 1 else ():
                part.plot(
                    Path(path).with_name(f"{Path(path).name}_{re.sub(r'[^A-Za-z0-9.-]+', '_', label).strip('_')}")
                )
        return figure

    def _plot_depth(self) -> Figure:
        from erflab.figures.depth import DepthPoint, draw_depth

        lines = {
            method: [DepthPoint.of(part.known_sizes(method), part.attribute("theory")["size"]) for part in self]
            for method in self.methods
        }
        return draw_depth(self.labels, lines, title=self.name)

    @property
    def name(self) -> str:
        """The model's name."""
        return str(json.loads(self.parts[0].attrs["model"])["name"])

    def _plot_maps(self) -> Figure:
        from erflab.figures.erf import ErfPanel, draw_erf

        panels = []
        for method in self.methods:
            known = self.known_sizes(method)
            codes = tuple(dict.fromkeys(f.code for f in self.flags if f.method in (None, method)))
            panels.append(
                ErfPanel(
                    title=method.replace("_", " "),
                    map=self.map(method),
                    fit=known.fit if known else None,
                    moments=known.moments if known else None,
                    box=self.box,
                    notes=codes,
                )
            )
        theory = self.attribute("theory")
        stride = max((s for s in theory["stride"] if s is not None), default=1)
        return draw_erf(panels, title=f"{self.name}, {self.labels[0]}", strip=float(stride))

    def save(self, path: str | Path) -> Path:
        """Write `result.nc`, `summary.json` and `provenance.json` into a directory, each atomically. Returns the directory.

        One part stands at the root of `result.nc`; several stand in a group each, named by their labels.
        `summary.json` is one part's summary, or a list of several.
        """
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(directory / "result.nc", self._write)
        rows = self.rows()
        write_json(directory / "summary.json", rows[0] if len(self) == 1 else rows)
        write_json(directory / "provenance.json", dict(self.provenance))
        return directory

    def _write(self, file: Path) -> None:
        if len(self) == 1:
            _write_part(self.dataset, file)
            return
        xr.Dataset(attrs={"format": FORMAT, "parts": as_json(self.labels)}).to_netcdf(file, engine="h5netcdf")
        for label, part in zip(self.labels, self.parts, strict=True):
            _write_part(part, file, mode="a", group=label)


def _write_part(part: xr.Dataset, file: Path, **where: Any) -> None:
    encoding = {str(n): _ENCODING for n, v in part.data_vars.items() if v.ndim}
    part.to_netcdf(file, engine="h5netcdf", encoding=encoding, **where)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A summary with one key a number."""
    flat: dict[str, Any] = {}
    for name, entry in row.items():
        if not isinstance(entry, Mapping):
            flat[name] = entry
            continue
        flat[name] = entry["value"]
        if entry["standard_error"] is not None:
            low, high = entry["interval"] or (None, None)
            flat |= {f"{name}_error": entry["standard_error"], f"{name}_low": low, f"{name}_high": high}
    return flat


def load(path: str | Path) -> Result:
    """Read a result from its directory or its `result.nc`. Raises ResultError if there is none or it cannot be read."""
    where = Path(path)
    file = where / "result.nc" if where.is_dir() else where
    if not file.exists():
        raise ResultError(f"no result at {where}; give a run directory or its result.nc.")
    try:
        parts = _read_parts(file)
    except ResultError:
        raise
    except Exception as error:  # h5py and h5netcdf raise many kinds on damaged files
        raise ResultError(f"{file} cannot be read as a result: {error}") from error
    provenance = file.with_name("provenance.json")
    return Result(parts, json.loads(provenance.read_text()) if provenance.exists() else {})


def _read_parts(file: Path) -> tuple[xr.Dataset, ...]:
    def read(group: str | None) -> xr.Dataset:
        with xr.open_dataset(file, engine="h5netcdf", group=group) as opened:
            return opened.load()

    root = read(None)
    if root.attrs.get("format") != FORMAT:
        raise ResultError(f"{file} has result format {root.attrs.get('format')}; this version reads format {FORMAT}.")
    return tuple(map(read, json.loads(root.attrs["parts"]))) if "parts" in root.attrs else (root,)


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


def _scalar(value: float | None, unit: str, standard_error: float | None = None) -> dict[str, Any]:
    return {"value": value, "unit": unit, "standard_error": standard_error, "interval": None}


def _axes(name: str, values: list[Any], unit: str) -> dict[str, Any]:
    return {f"{name}_{axis}": _scalar(v, unit) for axis, v in zip("yx", values, strict=True)}
