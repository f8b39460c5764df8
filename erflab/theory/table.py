"""How the columns of the theory's table are written down: many operations a rule, no operation twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def rows(rule: T, names: str, *, inplace: bool = False) -> dict[str, T]:
    """The rows of several ATen operations with one rule; `inplace` adds the forms that write to their first argument."""
    return {f"aten.{name}{suffix}": rule for name in names.split() for suffix in (("", "_") if inplace else ("",))}


def table(*parts: Mapping[str, T]) -> dict[str, T]:
    """All rows together. Raises ValueError for an operation that stands in two of them: one would silently win."""
    joined: dict[str, T] = {}
    for part in parts:
        if twice := joined.keys() & part.keys():
            raise ValueError(f"operations {sorted(twice)} have two rows in the table; keep one.")
        joined.update(part)
    return joined
