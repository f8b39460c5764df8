"""What goes wrong in erflab, each kind once. Every message says what was wrong, the value seen, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class ErflabError(Exception):
    """The base of every error that erflab raises on purpose."""


class ConfigError(ErflabError, ValueError):
    """A setting that cannot be used: a typo, a wrong type, a value out of range."""


class ModelError(ErflabError):
    """A model that cannot be built, or weights that do not fit it."""


class ImageError(ErflabError):
    """Images that cannot be found, read or used."""


class TargetError(ErflabError):
    """A layer, unit or channel that the model does not have."""


class TheoryError(ErflabError):
    """A theoretical field that cannot be derived."""


class UnknownOperationError(TheoryError):
    """An operation without a rule in the theory's table."""


class MeasurementError(ErflabError):
    """A measurement that gave no usable number (non-finite gradients, a map of zeros)."""


class FlaggedError(MeasurementError):
    """A result with flags that runtime.strict does not let pass; it is complete, and kept in `result`."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class UnfinishedError(ErflabError):
    """A measurement that was ended from outside: cancelled, killed, out of time."""


class ResultError(ErflabError):
    """A result that cannot be read or written."""


class InUseError(ResultError):
    """A directory that another process measures into."""


class RefusedError(ResultError):
    """A directory that holds a result or a checkpoint of another configuration, and is left as it is."""


class ProcessFailedError(ErflabError):
    """Another process of the run has failed, and has told all why."""


class ProcessDiedError(ErflabError):
    """Another process of the run is no more there."""


def foreseen(error: BaseException) -> str | None:
    """The message, on one line, of the ErflabError that `error` is or was caused by; None if there is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ErflabError):
        cause = cause.__cause__ or cause.__context__
    return None if cause is None else " ".join(str(cause).split())


def closest(name: str, valid: Iterable[str], count: int = 3) -> str:
    """The sentence that offers the valid names nearest to `name`, nearest first; empty if none is near."""
    names = [str(v) for v in valid]
    near = difflib.get_close_matches(str(name), names, n=count, cutoff=0.5)
    # A part of a dotted path ("conv1" for "layer1.0.conv1") is no close match by edit distance, but is what users type.
    near += [n for n in names if str(name).lower() in n.lower() and n not in near]
    return f" Did you mean {', '.join(map(repr, near[:count]))}?" if near else ""
