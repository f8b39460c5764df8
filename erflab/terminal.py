"""Tables on a terminal, in a pipe and in a file."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def print_whole(table: Table) -> None:
    """On a terminal as wide as it is; into a file or a pipe as wide as the table needs, so that no cell is broken."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(80, console.measure(table, options=console.options.update(width=1000)).maximum))
    console.print(table)
