"""The record of a run that failed: `failure.json`, where its result would be."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from erflab.errors import foreseen
from erflab.jsonfiles import write_json

FAILURE = "failure.json"


def write_failure(error: Exception, directory: Path, overrides: list[str]) -> None:
    """Leave the kind of `error`, its reason on one line, what was asked for, and when."""
    failure = {
        "kind": type(error).__name__,
        "reason": foreseen(error) or _unforeseen(error),
        "overrides": overrides,
        "failed": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
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


def failures(directory: Path) -> Iterator[tuple[Path, str]]:
    """The directories below `directory` whose run failed, with the reasons."""
    for file in sorted(directory.rglob(FAILURE)):
        yield file.parent, read_reason(file.parent) or ""


def _unforeseen(error: Exception) -> str:
    text = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    short = isinstance(error, MemoryError) or "out of memory" in str(error)
    return f"{text}. Lower runtime.batch_size or attribution.occlusion.per_evaluation." if short else text
