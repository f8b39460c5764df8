"""What went wrong, on one line: of errors that erflab, Hydra or the system foresees, with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from erflab.compose import choices, option_names, options
from erflab.errors import closest, foreseen

_EXTRAS = {"joblib": " (pip install 'erflab[joblib]' brings it)"}
"""Options that a package brings along with their configuration, so that without it there is nothing that could say so."""


def one_line(error: Exception, overrides: Sequence[str]) -> str | None:
    """The message of a foreseen error, on one line; None for any other. `overrides`: what the command line gave."""
    if (message := foreseen(error)) is not None:
        return message
    if isinstance(error, BrokenProcessPool):
        return (
            "a process of the sweep was killed from outside, perhaps for want of memory; finished jobs are kept. The same "
            "command with the same hydra.sweep.dir runs what is missing, with hydra.launcher.n_jobs=N fewer at a time."
        )
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read as OPTION=VALUE; a value that holds any of = , ( ) [ ] {{ }} is quoted once "
            "more within the shell's quotes: 'OPTION=\"VALUE\"'."
        )
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = f": {error.__cause__}" if str(error).startswith("Error merging override") else ""
        return explain(f"{error}{cause}", overrides)
    if isinstance(error, OSError):
        return f"{error}; give directories and files that can be read and written (hydra.run.dir, hydra.sweep.dir)."
    if isinstance(error, AssertionError) and "Unexpected type for root" in str(error):
        return explain_unchosen(overrides)
    return None


def explain(message: str, overrides: Iterable[str]) -> str:
    """One line for an error of Hydra's or OmegaConf's: what it says first, and the closest valid names."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    first = lines[0] if lines else message
    missing = re.search(r"Could not (?:find|load) '([\w/]+)/([^'/]+)'", message)
    if missing and (known := choices().get(missing[1]) or _listed(lines)):
        install = _EXTRAS.get(missing[2], "")
        near = closest(missing[2], known)
        return f"{missing[1]} has no option {missing[2]!r}{install}; choose from {', '.join(known)}.{near}"
    details = [line for line in lines[1:] if not _is_noise(line)]
    names = option_names()
    seen = [key for key in map(_key, overrides) if key and key in message]
    wrong = [key for key in seen if key not in names and not _is_free(key)]
    hint = "".join(f" No option {k!r}.{closest(k, names)}" for k in wrong)
    if first.startswith("Could not override"):
        hint += "".join(map(_elsewhere, seen))
    return " ".join([first, *details[:3]]) + hint


def explain_unchosen(overrides: Iterable[str]) -> str:
    """One line for settings of a method that is not measured, on which Hydra fails without saying which."""
    given = dict(override.partition("=")[::2] for override in overrides)
    chosen = given.get("attribution", "gradient,occlusion")
    keys = [key for key in given if key.startswith("attribution.") and key.split(".")[1] not in chosen]
    return f"a setting of a method that is not chosen.{''.join(map(_elsewhere, keys))}"


def _elsewhere(key: str) -> str:
    """The sentence that says with which choice of its group an option is there; empty for no such option."""
    found = [heading for heading, name, _ in options() if name == key and "=" in heading]
    return f" {key} is an option of {' and '.join(found)}." if found else ""


def _listed(lines: list[str]) -> list[str]:
    """The choices that a message of Hydra's lists."""
    heading = next((n for n, line in enumerate(lines) if line.startswith("Available options in")), len(lines))
    return [line for line in lines[heading + 1 :] if re.fullmatch(r"[\w.-]+", line)]


def _is_noise(line: str) -> bool:
    """Whether a line of a message says nothing to a user, or advises to add an option that will be refused."""
    return re.match(r"(full_key|object_type|reference_type|To append to your config|Key ')", line) is not None


def _key(override: str) -> str:
    return re.split(r"[=@]", override, maxsplit=1)[0].lstrip("+~")


def _is_free(key: str) -> bool:
    """Keys that no schema lists: Hydra's own, and those of dictionaries."""
    return key.startswith(("hydra", "experiment")) or ".arguments." in key
