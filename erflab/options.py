"""The verb `erflab options`: every option with its meaning and default."""

from __future__ import annotations

from erflab.compose import options
from erflab.errors import ConfigError, closest


def print_options(groups: list[str]) -> None:
    """Every option with its meaning and default, of all groups or of those named."""
    rows = list(options())
    known = {heading.split("=")[0] for heading, _, _ in rows}
    for group in groups:
        if group not in known:
            raise ConfigError(f"no group {group!r}; groups: {', '.join(sorted(known))}.{closest(group, known)}")
    heading = ""
    for head, name, text in rows:
        if groups and head.split("=")[0] not in groups:
            continue
        if head != heading:
            print(f"\n{head}")
            heading = head
        print(f"  {name}\n      {text}")
