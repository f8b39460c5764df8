"""JSON as results hold it, and files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def from_json(text: str) -> Any:
    """What `as_json` wrote, infinities still as strings."""
    return json.loads(text)


def as_json(value: Any) -> str:
    """JSON with sorted keys and infinities as strings, the form that result attributes and files hold."""
    return json.dumps(_to_json(value), sort_keys=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, in the order given."""
    write_atomically(path, lambda to: to.write_text(json.dumps(_to_json(value), indent=2) + "\n"))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary neighbour, then put it in place: a reader sees the whole file or none.

    It is on the disk before it is in place, so that this also holds after a power cut.
    """
    temporary = path.with_name(f"{_unfinished(path)}{os.getpid()}")
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what processes that were killed while they wrote a file have left beside it."""
    for temporary in path.parent.glob(f"{_unfinished(path)}*"):
        temporary.unlink(missing_ok=True)


def _unfinished(path: Path) -> str:
    return f".{path.name}."


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
