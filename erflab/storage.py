"""The NetCDF file of a result and its parts, written whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import xarray as xr
from xarray.backends import H5NetCDFStore

from erflab.errors import ResultError
from erflab.jsonfiles import as_json, from_json, write_atomically

FORMAT = 3
ATTRIBUTES = ("config", "flags", "images", "model", "theory", "versions")
"""The attributes of a part that hold JSON."""

_ENCODING = {"zlib": True, "shuffle": True, "complevel": 4}


def write_parts(file: Path, parts: Mapping[str, xr.Dataset]) -> None:
    """One part at the root of a NetCDF file; several in a group each, named by their labels."""
    content = _content(parts)
    write_atomically(file, lambda to: to.write_bytes(content))


def _content(parts: Mapping[str, xr.Dataset]) -> bytes:
    """The file in memory: HDF5 crashes the process where a disk that is full cuts it short."""
    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        if len(parts) == 1:
            _store(next(iter(parts.values())), file)
        else:
            _store(xr.Dataset(attrs={"format": FORMAT, "parts": as_json(list(parts))}), file)
            for label, part in parts.items():
                _store(part, file.create_group(label))
    return buffer.getvalue()


def _store(part: xr.Dataset, where: h5netcdf.File | h5netcdf.Group) -> None:
    encoding = {str(n): _ENCODING for n, v in part.data_vars.items() if v.ndim}
    part.dump_to_store(H5NetCDFStore(where), encoding=encoding)


def read_parts(file: Path) -> tuple[xr.Dataset, ...]:
    """The parts of a file, in order. Raises ResultError if it cannot be read, or has another format."""
    try:
        root = _read(file, None)
        labels: Sequence[str | None] = json.loads(root.attrs["parts"]) if "parts" in root.attrs else [None]
        parts = tuple(root if label is None else _read(file, label) for label in labels)
    except Exception as error:  # h5py and h5netcdf raise many kinds on damaged files
        raise ResultError(f"{file} cannot be read as a result: {error}") from error
    _check_format(file, root.attrs.get("format"))
    return parts


def _read(file: Path, group: str | None) -> xr.Dataset:
    with xr.open_dataset(file, engine="h5netcdf", group=group) as opened:
        return opened.load()


def read_attributes(file: Path) -> tuple[dict[str, Any], ...]:
    """The attributes of each part, decoded from JSON, without reading a map: about a millisecond a file.

    Raises ResultError as `read_parts`; what is damaged inside a map is not seen here.
    """
    try:
        with h5py.File(file) as opened:
            _check_format(file, opened.attrs.get("format"))
            labels = json.loads(opened.attrs["parts"]) if "parts" in opened.attrs else ["/"]
            return tuple({name: _decoded(opened[label].attrs[name]) for name in ATTRIBUTES} for label in labels)
    except ResultError:
        raise
    except Exception as error:  # h5py raises many kinds on damaged files
        raise ResultError(f"{file} cannot be read as a result: {error}") from error


def _decoded(text: Any) -> Any:
    return from_json(text.decode() if isinstance(text, bytes) else str(text))


def _check_format(file: Path, found: Any) -> None:
    if found != FORMAT:
        raise ResultError(f"{file} has result format {found}; this version reads format {FORMAT}.")
