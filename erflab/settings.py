"""What the classes of settings are made of: a field with its help, and checks of ranges that say what to give instead."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from erflab.errors import ConfigError, closest


def option(default: Any, help: str) -> Any:
    """A dataclass field with its default and the sentence that `erflab options` prints for it."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


def one_of(name: str, value: object, valid: tuple[object, ...]) -> None:
    """Raise ConfigError, with the closest word, for a value that is none of the valid ones."""
    if value not in valid:
        words = [str(v) for v in valid]
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(words)}.{closest(str(value), words)}")


def at_least(name: str, value: object, least: int, *, or_word: str | None = None) -> None:
    """Raise ConfigError for a value that is no number, or one below `least`, and not the word that may stand in its place."""
    if or_word is not None and value == or_word:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
        word = f" or {or_word!r}" if or_word else ""
        raise ConfigError(f"{name} is {value!r}; give a number of at least {least}{word}.")


def pair(name: str, value: object) -> tuple[int, int] | None:
    """`value` as two integers, or None if it is no sequence. Raises ConfigError for a sequence of anything else."""
    if not isinstance(value, (list, tuple)):
        return None
    if len(value) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        raise ConfigError(f"{name} is {value!r}; a list must hold two integers, [y, x].")
    return int(value[0]), int(value[1])
