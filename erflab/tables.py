"""Tables for papers: what `collect` gathers, with intervals in the cells, as text or LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from erflab.errors import ResultError, closest

if TYPE_CHECKING:
    import pandas as pd


def quoted(table: pd.DataFrame, columns: Mapping[str, str], digits: int = 3) -> pd.DataFrame:
    """Some columns of a table as text for a reader.

    A number whose 95 % interval the table holds too, as NAME_low and NAME_high (see `collect`), is written with it:
    "15.1 [14.6, 15.6]". What is missing is a dash, an infinite size "global".

    Args:
        table: such as `collect` gives.
        columns: column of the table -> its heading.
        digits: significant digits of a number; the ends of its interval have as many decimals.

    Raises:
        ResultError: if the table has no such column.
    """
    import pandas as pd

    for column in columns:
        if column not in table:
            raise ResultError(f"no column {column!r} in the table.{closest(column, list(table))}")
    rows = table.to_dict("records")
    return pd.DataFrame({heading: [_cell(row, column, digits) for row in rows] for column, heading in columns.items()})


def latex_table(table: pd.DataFrame, columns: Mapping[str, str], digits: int = 3) -> str:
    """The same as a LaTeX tabular with booktabs' rules; names are escaped. Arguments and errors as `quoted`."""
    latex: str = quoted(table, columns, digits).to_latex(index=False, escape=True)
    return latex


def _cell(row: Mapping[Any, Any], column: str, digits: int) -> str:
    value = row[column]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "--" if value is None else str(value)
    if math.isnan(value):
        return "--"
    if math.isinf(value):
        return "global"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else digits - 1
    ends = [row.get(_end(column, end)) for end in ("low", "high")]
    known = [end for end in ends if isinstance(end, (int, float)) and math.isfinite(end)]
    interval = " [{:.{d}f}, {:.{d}f}]".format(*known, d=decimals) if len(known) == 2 else ""
    return f"{value:.{decimals}f}{interval}"


def _end(column: str, end: str) -> str:
    """The column of an end of the interval: the unit stays last, "gradient.sigma_low (px)"."""
    return re.sub(r"( \(.*\))?$", rf"_{end}\1", column, count=1)
