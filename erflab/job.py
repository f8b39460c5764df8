"""One run in its directory: measured once, gone on with, refused if another's lies there, recorded if it fails."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from erflab.checkpoint import FILE as CHECKPOINT
from erflab.checkpoint import read_about
from erflab.checks import refuse_flags
from erflab.config import ErflabConfig
from erflab.distributed import ALONE, Processes, stop_as_error
from erflab.drawing import remove_figures
from erflab.errors import RefusedError, ResultError
from erflab.failure import FAILURE, write_failure
from erflab.identity import Differences, changed_files, differences, identity, refuse_another, relevant
from erflab.jsonfiles import remove_unfinished
from erflab.lock import alone_in
from erflab.report import make_the_rest, run_and_save
from erflab.result import Result, load
from erflab.tracking import TRACKED, refuse_missing
from erflab.tracking.events import remove_events

RESULT_FILES = ("provenance.json", "result.nc", "summary.json", TRACKED)

_MEASURED = ("config", "model", "images")

log = logging.getLogger("erflab")


def run_job(
    read: Callable[[], ErflabConfig],
    directory: Path,
    hydra_files: Mapping[str, str],
    asked: Mapping[str, Any],
    processes: Processes = ALONE,
) -> None:
    """Measure into `directory`, unless the same measurement is there already; leave `failure.json` if it fails.

    A measurement that was killed goes on from its checkpoint.

    Args:
        read: gives the configuration; its errors are recorded too.
        directory: the run's own.
        hydra_files: what `.hydra/` is to hold, by file name. Written before measuring, and only where no result or checkpoint
            is kept, so that it always describes what lies beside it.
        asked: what the configuration was composed from, for the record of a failure.
        processes: those that measure; this is the first of them.

    Raises:
        InUseError: another process measures into the directory, which is left as it is.
        RefusedError: the directory holds a result or a checkpoint of another configuration, or of files that have changed
            since; it is left as it is.
        ErflabError: what the measurement raises.
    """
    with alone_in(directory):
        try:
            with stop_as_error():
                _run(read, directory, hydra_files, processes)
        except RefusedError:
            raise
        except Exception as error:
            log.error("failed", exc_info=error)
            _record(error, directory, asked)
            raise
        (directory / FAILURE).unlink(missing_ok=True)


def _run(
    read: Callable[[], ErflabConfig], directory: Path, hydra_files: Mapping[str, str], processes: Processes
) -> None:
    if not any((directory / name).exists() for name in ("result.nc", CHECKPOINT)):
        _describe(directory, hydra_files)
    config = read()
    refuse_missing(config.tracking)
    if config.runtime.overwrite:
        (directory / CHECKPOINT).unlink(missing_ok=True)
    found = None if config.runtime.overwrite else finished(config, directory)
    if found is None:
        _refuse_another_checkpoint(config, directory)
        _clear(directory)
        _describe(directory, hydra_files)
        run_and_save(config, directory, processes)
    else:
        _tell(found, config, directory)


def _record(error: Exception, directory: Path, asked: Mapping[str, Any]) -> None:
    try:
        write_failure(error, directory, asked)
    except OSError as second:  # on a full disk; what went wrong first is what matters
        log.error("%s could not be written: %s", FAILURE, second)


def finished(config: ErflabConfig, directory: Path) -> Result | None:
    """The result of this very measurement, if it is in the directory; None if there is none, or a damaged one.

    Raises:
        RefusedError: the directory holds a result of another configuration, or of files that have changed since.
    """
    if not (directory / "result.nc").exists():
        return None
    try:
        found = load(directory)
    except (ResultError, json.JSONDecodeError) as error:
        log.warning("measured anew, for what was there is damaged: %s", error)
        return None
    first = next(iter(found))
    refuse_another(directory, "result", _changed(config, {key: first.attribute(key) for key in _MEASURED}))
    return found


def _refuse_another_checkpoint(config: ErflabConfig, directory: Path) -> None:
    try:
        found = read_about(directory / CHECKPOINT)
    except ResultError:  # there is none, or it is of no use, which the measurement will say
        return
    refuse_another(directory, "checkpoint", _changed(config, found))


def _changed(config: ErflabConfig, measured: Mapping[str, Any]) -> Differences:
    """What is to be measured that was not, by what was recorded of it."""
    changed = differences(relevant(measured["config"]), identity(config))
    return changed | changed_files(config, measured["model"], measured["images"])


def _tell(result: Result, config: ErflabConfig, directory: Path) -> None:
    """The outcome of a finished run, as if it had been run again; what it lacks beside its maps is made."""
    if not _whole(directory / "summary.json"):
        result.save(directory)
    make_the_rest(result, config, directory)
    log.info("finished already; runtime.overwrite=true measures anew")
    print(directory, flush=True)
    refuse_flags(result, config.runtime)


def _whole(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_text()))
    except (OSError, ValueError):
        return False


def _clear(directory: Path) -> None:
    """Remove what another measurement left, the summary first: it must never stand beside a newer result."""
    for name in reversed(RESULT_FILES):
        (directory / name).unlink(missing_ok=True)
    for name in (*RESULT_FILES, CHECKPOINT):
        remove_unfinished(directory / name)
    remove_figures(directory / "figures")
    remove_events(directory / "tensorboard")


def _describe(directory: Path, hydra_files: Mapping[str, str]) -> None:
    folder = directory / ".hydra"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in hydra_files.items():
        (folder / name).write_text(text)
