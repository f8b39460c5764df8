"""The files of a result: NetCDF parts and JSON, each written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from erflab.errors import ResultError

FORMAT = 2
_ENCODING = {"zlib": True, "shuffle": True, "complevel": 4}


def write_parts(file: Path, parts: Mapping[str, xr.Dataset]) -> None:
    """One part at the root of a NetCDF file; several in a group each, named by their labels."""
    write_atomically(file, lambda to: _write_parts(to, parts))


def _write_parts(file: Path, parts: Mapping[str, xr.Dataset]) -> None:
    if len(parts) == 1:
        _write_part(next(iter(parts.values())), file)
        return
    root = xr.Dataset(attrs={"format": FORMAT, "parts": as_json(list(parts))})
    root.to_netcdf(file, engine="h5netcdf")
    for label, part in parts.items():
        _write_part(part, file, mode="a", group=label)


def _write_part(part: xr.Dataset, file: Path, **where: Any) -> None:
    encoding = {str(n): _ENCODING for n, v in part.data_vars.items() if v.ndim}
    part.to_netcdf(file, engine="h5netcdf", encoding=encoding, **where)


def read_parts(file: Path) -> tuple[xr.Dataset, ...]:
    """The parts of a file, in order. Raises ResultError if it cannot be read, or has another format."""
    try:
        root = _read(file, None)
        labels: Sequence[str | None] = json.loads(root.attrs["parts"]) if "parts" in root.attrs else [None]
        parts = tuple(root if label is None else _read(file, label) for label in labels)
    except Exception as error:  # h5py and h5netcdf raise many kinds on damaged files
        raise ResultError(f"{file} cannot be read as a result: {error}") from error
    if root.attrs.get("format") != FORMAT:
        raise ResultError(f"{file} has result format {root.attrs.get('format')}; this version reads format {FORMAT}.")
    return parts


def _read(file: Path, group: str | None) -> xr.Dataset:
    with xr.open_dataset(file, engine="h5netcdf", group=group) as opened:
        return opened.load()


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
