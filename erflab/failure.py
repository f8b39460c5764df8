"""The record of a run that failed: `failure.json`, where its result would be."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from erflab.errors import foreseen
from erflab.jsonfiles import write_json

FAILURE = "failure.json"


def write_failure(error: Exception, directory: Path, asked: Mapping[str, Any]) -> None:
    """Leave the kind of `error`, its reason on one line, what was asked for (overrides and config), and when."""
    failure = {
        "kind": type(error).__name__,
        "reason": reason_of(error),
        "failed": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        **asked,
    }
    write_json(directory / FAILURE, failure)


def read_reason(directory: Path) -> str | None:
    """Why the run in a directory failed; None if it did not."""
    file = directory / FAILURE
    if not file.exists():
        return None
    try:
        return str(json.loads(file.read_text())["reason"])
    except (ValueError, KeyError, TypeError):
        return f"failed, and {FAILURE} is damaged; run.log may tell why"


def read_configuration(directory: Path) -> dict[str, Any]:
    """The configuration of the run that failed in a directory; empty if none is known."""
    try:
        return dict(json.loads((directory / FAILURE).read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def failures(directory: Path) -> Iterator[tuple[Path, str]]:
    """The directories below `directory` whose run failed, with the reasons."""
    for file in sorted(directory.rglob(FAILURE)):
        yield file.parent, read_reason(file.parent) or ""


def reason_of(error: Exception) -> str:
    """Why something failed, on one line."""
    return foreseen(error) or _unforeseen(error)


def _unforeseen(error: Exception) -> str:
    text = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    short = isinstance(error, MemoryError) or "out of memory" in str(error)
    return f"{text}. Lower runtime.batch_size or attribution.occlusion.per_evaluation." if short else text
