"""Many runs as one table: a row a part a run, failed and unfinished runs beside the finished ones."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erflab.errors import ResultError
from erflab.failure import FAILURE, UNFINISHED, read_configuration, read_ending
from erflab.identity import flat, relevant, without_paths
from erflab.storage import read_attributes
from erflab.summary import one_key_a_number, part_labels

if TYPE_CHECKING:
    import pandas as pd

MARKS = {"result.nc", "summary.json", FAILURE, ".hydra"}
"""A directory that holds one of these is a run's."""

INFINITIES = {"inf": float("inf"), "-inf": -float("inf"), "nan": float("nan")}

Paths = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class Run:
    """What one directory gives to the table: its rows, without configuration columns, and its configuration."""

    rows: list[dict[str, Any]]
    configuration: dict[str, Any]


def collect(paths: Paths) -> pd.DataFrame:
    """The runs at and below `paths` as a tidy table: a row a part (layer or unit) a run, in the order of their paths.

    Columns: `run`, `status` (finished, failed, unfinished), `reason`, `part`; each option of the configuration that varies,
    by its dotted name; what the summary holds, with NAME_error, NAME_low and NAME_high for the standard error and the 95 %
    interval, units in parentheses where there are any; `flags`. Infinite sizes are `inf`. A directory that holds
    both a result and the record of a failure (refused by `runtime.strict`) has rows for both; what a sweep was refused
    in a directory that holds another's result has a row of its own, with `.refused` in its `run`.

    A result that is damaged is left out with a warning that names it, and listed in `table.attrs["left_out"]`. Only
    `summary.json` and the metadata of `result.nc` are read: what is damaged inside a map is found by `load`.

    Args:
        paths: a directory that is searched, a run's directory, a `result.nc`, or several of these.

    Raises:
        ResultError: no such path, or no run below any of them.
    """
    table, left_out = gather(paths)
    for run, reason in left_out.items():
        warnings.warn(f"{run} is left out: {reason}", stacklevel=2)
    return table


def gather(paths: Paths) -> tuple[pd.DataFrame, dict[str, str]]:
    """As `collect`, but silent: the table, and why the runs that are left out are."""
    import pandas as pd

    found, left_out = [], {}
    for directory in _directories([paths] if isinstance(paths, (str, Path)) else paths):
        try:
            found.append(_read(directory))
        except ResultError as error:
            left_out[str(directory)] = str(error)
    varying = _varying([run.configuration for run in found])
    rows = [{**row, **_cells(run.configuration, varying)} for run in found for row in run.rows]
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in (*varying, "flags")))
    order = dict.fromkeys(["run", "status", "reason", "part", *varying, *columns, "flags"])
    table = pd.DataFrame(rows, columns=list(order))
    # Whole numbers that some runs lack would become 4.0.
    table = table.astype(dict.fromkeys([name for name in varying if _is_whole([row[name] for row in rows])], "Int64"))
    table.attrs["left_out"] = left_out
    return table, left_out


def _directories(paths: Iterable[str | Path]) -> list[Path]:
    """The runs' directories at and below `paths`, each once."""
    found: dict[Path, None] = {}
    for given in map(Path, paths):
        if not given.exists():
            raise ResultError(f"no such directory or result: {given}.")
        root = given if given.is_dir() else given.parent
        below = (Path(at) for at, folders, files in sorted(os.walk(root)) if MARKS & {*folders, *files})
        here = list(below) if given.is_dir() else [root]
        if not here:
            raise ResultError(f"no run at or below {given}; a run's directory holds one of {', '.join(sorted(MARKS))}.")
        found |= dict.fromkeys(here)
    return list(found)


def _read(directory: Path) -> Run:
    """One directory. Raises ResultError if what it holds is damaged."""
    ending = read_ending(directory)
    status = {"run": str(directory), "status": "finished", "reason": None}
    if (directory / "result.nc").exists():
        parts = read_attributes(directory / "result.nc")
        rows = [{**status, **row} for row in _parts(directory, parts)]
        configuration = parts[0]["config"]
    elif ending is None and (directory / "summary.json").exists():
        raise ResultError("it has a summary.json and no result.nc.")
    else:
        rows, configuration = [], read_configuration(directory)
        ending = ending or UNFINISHED
    if ending is not None:
        rows.append({**status, "status": ending[0], "reason": ending[1]})
    return Run(rows, flat(without_paths(relevant(configuration))))


def _parts(directory: Path, parts: tuple[dict[str, Any], ...]) -> Iterator[dict[str, Any]]:
    """The rows of a finished run. Raises ResultError if the summary is not that of the result beside it."""
    summaries = _summaries(directory / "summary.json")
    theories = [part["theory"] for part in parts]
    if [(s.get("layer"), s.get("unit")) for s in summaries] != [(t["layer"], t["unit"]) for t in theories]:
        raise ResultError("its summary.json is not that of its result.nc; erflab.load(DIR).save(DIR) writes it anew.")
    for label, summary in zip(part_labels(theories), summaries, strict=True):
        flags = "; ".join(f"{f['method']}: {f['code']}" if f["method"] else f["code"] for f in summary["flags"])
        numbers = {name: value for name, value in summary.items() if name != "flags"}
        yield {"part": label, **_cells(one_key_a_number(numbers, units=True)), "flags": flags}


def _summaries(file: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ResultError(
            f"its summary.json cannot be read ({error}); erflab.load(DIR).save(DIR) writes it anew."
        ) from error
    return content if isinstance(content, list) else [content]


def _varying(configurations: list[dict[str, Any]]) -> list[str]:
    """The options that differ between runs, in the order of the configuration. Of runs that left no configuration, none."""
    known = [configuration for configuration in configurations if configuration]
    names = dict.fromkeys(name for configuration in known for name in configuration)
    return [name for name in names if len({json.dumps(c.get(name), sort_keys=True) for c in known}) > 1]


def _is_whole(values: Iterable[Any]) -> bool:
    """Whether all are integers that fit into 64 bits, or missing."""
    return all(value is None or (type(value) is int and abs(value) < 2**63) for value in values)


def _cells(values: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    return {name: _cell(values.get(name)) for name in (values if names is None else names)}


def _cell(value: Any) -> Any:
    """A scalar: lists as JSON, and the infinities that JSON holds as strings as numbers."""
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return INFINITIES.get(value, value) if isinstance(value, str) else value
