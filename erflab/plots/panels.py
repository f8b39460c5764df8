"""What every figure of a result is drawn of: its maps as panels, its title."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erflab.figures.panel import ErfPanel

if TYPE_CHECKING:
    from erflab.result import Result


def panels(result: Result) -> list[ErfPanel]:
    """Every map of one part, with what is known about it."""
    made = []
    for method in result.methods:
        known = result.known_sizes(method)
        made.append(
            ErfPanel(
                title=method.replace("_", " "),
                map=result.map(method),
                fit=known.fit if known else None,
                moments=known.moments if known else None,
                box=result.box,
                notes=tuple(dict.fromkeys(f.code for f in result.flags if f.method in (None, method))),
                groups=result.grouped(method),
            )
        )
    return made


def title_of(result: Result) -> str:
    """Model and layer of one part."""
    return f"{result.name}, {result.labels[0]}"


def strip_of(result: Result) -> float:
    """The stride in px: rows averaged over it show no checkerboard."""
    return float(max((s for s in result.attribute("theory")["stride"] if s is not None), default=1))
