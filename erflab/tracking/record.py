"""A run as trackers see it: names, numbers with their units, options, flags and files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erflab.identity import flat
from erflab.result import Result
from erflab.summary import one_key_a_number


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        directory: the run's own.
        name: the directory as seen from the working directory; its last part where it lies elsewhere.
        parts: labels of the layers or units, in execution order: a part's place in it is its step.
        numbers: of each part, every finite number by "NAME (UNIT)", with NAME_error for its standard error and NAME_low and
            NAME_high for the ends of its 95 % interval. (Infinite sizes are in `summary.json`; few trackers take them.)
        options: the configuration as it matters for the result, by dotted names; it holds no paths.
        flags: "PART: METHOD: what it means and what to do", as raised.
        figures: the PNG files.
    """

    directory: Path
    name: str
    parts: tuple[str, ...]
    numbers: tuple[dict[str, float], ...]
    options: dict[str, Any]
    flags: tuple[str, ...]
    figures: tuple[Path, ...]


def recorded(result: Result, directory: Path) -> Record:
    """The record of a result that is written in `directory`."""
    parts = list(zip(result.labels, result, strict=True))
    return Record(
        directory,
        _name(directory),
        result.labels,
        tuple(_numbers(part.summary()) for part in result),
        flat(parts[0][1].attribute("config")),
        tuple(f"{label}: {flag}" for label, part in parts for flag in part.flags),
        tuple(sorted((directory / "figures").glob("*.png"))),
    )


def _name(directory: Path) -> str:
    absolute, here = directory.resolve(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else absolute.name


def _numbers(summary: dict[str, Any]) -> dict[str, float]:
    cells = one_key_a_number(summary, units=True)
    numbers = {name: value for name, value in cells.items() if isinstance(value, (int, float))}
    return {name: float(n) for name, n in numbers.items() if not isinstance(n, bool) and math.isfinite(n)}
