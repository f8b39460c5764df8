"""The verb `erflab collect`: the table of many runs, shortened for a terminal and whole in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from erflab.arguments import Arguments
from erflab.collection import gather
from erflab.config import METHODS
from erflab.errors import ConfigError
from erflab.terminal import print_whole

if TYPE_CHECKING:
    import pandas as pd

USAGE = "erflab collect DIR [DIR ...] [--csv FILE] [--parquet FILE]"

SHOWN = ("sigma", "radius_0.9")
"""Numbers of each method that the terminal shows; the files have all."""


def print_collection(arguments: list[str]) -> None:
    """Print the runs below the directories, name those left out, and write the whole table where asked.

    Raises ConfigError for wrong arguments, and for --parquet without pyarrow; ResultError where there is no run.
    """
    parser = Arguments("collect", USAGE, __doc__)
    parser.add_argument("paths", nargs="+", metavar="DIR", help="a run, a sweep, or any directory above some")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="write the table as Parquet")
    options = parser.parse_intermixed_args(arguments)
    table, left_out = gather(options.paths)
    if options.csv:
        table.to_csv(options.csv, index=False)
    if options.parquet:
        _write_parquet(table, options.parquet)
    print_whole(render(table))
    for run, reason in left_out.items():
        print(f"left out: {run}: {reason}", file=sys.stderr)


def _write_parquet(table: pd.DataFrame, file: Path) -> None:
    try:
        table.to_parquet(file, index=False, engine="pyarrow")
    except ImportError as error:
        raise ConfigError(
            "--parquet needs the package pyarrow; pip install 'erflab[parquet]', or use --csv."
        ) from error


def render(table: pd.DataFrame) -> Table:
    """Run, part, the options that vary, and a few numbers with their standard errors; the reason of a failed run."""
    counts = ", ".join(f"{count} {status}" for status, count in table.groupby("status")["run"].nunique().items())
    made = Table(title=f"{table['run'].nunique()} runs: {counts}", title_justify="left", box=SIMPLE_HEAD, padding=0)
    varying = list(table.columns[table.columns.get_loc("part") + 1 : _first_number(table)])
    numbers = [f"{method}.{name}" for method in METHODS for name in SHOWN if f"{method}.{name} (px)" in table]
    for heading in ("run", "part", *varying, *(f"{name} (px)" for name in numbers), "flags or reason"):
        made.add_column(heading, overflow="fold")
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        texts = [row.get(name) for name in ("run", "part", *varying)]
        cells = [_quoted(row.get(f"{n} (px)"), row.get(f"{n}_error (px)")) for n in numbers]
        last = row["flags"] if row["status"] == "finished" else f"{row['status']}: {row['reason']}"
        made.add_row(*("-" if text is None else str(text) for text in texts), *cells, last)
    return made


def _first_number(table: pd.DataFrame) -> int:
    """Where the summary's columns begin: after the options that vary."""
    return int(table.columns.get_loc("model")) if "model" in table else len(table.columns) - 1


def _quoted(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")
