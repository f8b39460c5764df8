"""The verb `erflab rerun`: the overrides that compose the configuration stored in a result once more."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from erflab.config import METHODS, WEIGHTS_WITHOUT_FILE, DatasetConfig, FolderConfig, NoiseConfig, PhotographsConfig
from erflab.errors import ConfigError, ResultError
from erflab.storage import read_attributes

USAGE = "erflab rerun RESULT [OVERRIDES]"

# Images by the options that only their kind has.
KINDS = (
    ("dataset", DatasetConfig),
    ("folder", FolderConfig),
    ("noise", NoiseConfig),
    ("photographs", PhotographsConfig),
)

LIBRARY_NAME = r"[A-Za-z0-9][\w.-]*"

FILES = (("model.weights", "weights file"), ("images.path", "folder of images"))


def rerun_overrides(arguments: list[str]) -> list[str]:
    """Overrides for `erflab` that repeat the measurement in a result, then those of the command line.

    Raises ConfigError for arguments that are none, and where a file or folder that the result was measured with must be given
    again; ResultError if there is no result, or one of a model or images that were given in Python.
    """
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError(f"give a run's directory or its result.nc first. Usage: {USAGE}")
    where, given = Path(arguments[0]), arguments[1:]
    file = where / "result.nc" if where.is_dir() else where
    if not file.exists():
        raise ResultError(f"no result at {where}; give a run directory or its result.nc.")
    stored = read_attributes(file)[0]["config"]
    kind = _kind(stored["images"])
    if kind is None:
        raise ResultError(f"{where} was measured from Python with images given there; repeat it with erflab.measure.")
    names = {override.split("=")[0].lstrip("+~") for override in given}
    _require_files(stored, names)
    return [*(o for o in _overrides(stored, kind) if not _replaced(o.split("=")[0].lstrip("+"), names)), *given]


def _replaced(name: str, given: set[str]) -> bool:
    """Whether an override gives way to one on the command line: of its whole group, or of the seed that all share."""
    return name.split(".")[0] in given or ("seed" in given and name.endswith(".seed"))


def _kind(images: Mapping[str, Any]) -> str | None:
    """The option of the group `images` whose fields these are; None for images given in Python."""
    for name, node in KINDS:
        if set(images) == {field.name for field in dataclasses.fields(node)}:
            return name
    return None


def _require_files(stored: Mapping[str, Any], given: set[str]) -> None:
    """A result holds names and hashes, not paths."""
    weights, folder = stored["model"]["weights"], stored["images"].get("path")
    names = {"model.weights": None if weights in WEIGHTS_WITHOUT_FILE else weights, "images.path": folder}
    missing = [
        f"{option}=PATH (the {what} {names[option]!r})"
        for option, what in FILES
        if names[option] and not {option, option.split(".")[0]} & given
    ]
    if missing:
        raise ConfigError(f"a result holds no paths; give again {' and '.join(missing)}.")


def _overrides(stored: Mapping[str, Any], kind: str) -> Iterator[str]:
    """The groups first, then every option of each."""
    name = stored["model"]["name"] or ""
    chosen = [method for method in METHODS if stored["attribution"].get(method)]
    # As an option of the group, so that the run's directory bears the name.
    yield f"model={name if re.fullmatch(LIBRARY_NAME, name) else 'custom'}"
    yield f"images={kind}"
    yield f"attribution=[{','.join(chosen)}]"
    for group in ("model", "images", "target", "falloff", "runtime"):
        for key, value in stored[group].items():
            yield f"++{group}.{key}={_value(value)}"
    for method in chosen:
        for key, value in stored["attribution"][method].items():
            yield f"++attribution.{method}.{key}={_value(value)}"
    yield f"seed={_value(stored['seed'])}"


def _value(value: Any) -> str:
    """A value in the grammar of Hydra's overrides: JSON, with strings in single quotes and keys without."""
    if isinstance(value, str):
        return "'" + value.replace("'", r"\'") + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_value, value)) + "]"
    return json.dumps(value)
