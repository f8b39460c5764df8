"""One run in its directory: measured once, refused if another's result lies there, recorded if it fails."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from erflab.checks import refuse_flags
from erflab.config import ErflabConfig
from erflab.distributed import ALONE, Processes
from erflab.drawing import draw_figures
from erflab.errors import ResultError
from erflab.failure import FAILURE, write_failure
from erflab.identity import changed_files, differences, identity, relevant, told
from erflab.report import run_and_save
from erflab.result import Result, load
from erflab.tracking import TRACKED, refuse_missing, track

RESULT_FILES = ("result.nc", "summary.json", "provenance.json", TRACKED)

log = logging.getLogger("erflab")


def run_job(
    read: Callable[[], ErflabConfig],
    directory: Path,
    hydra_files: Mapping[str, str],
    asked: Mapping[str, Any],
    processes: Processes = ALONE,
) -> None:
    """Measure into `directory`, unless the same measurement is there already; leave `failure.json` if it fails.

    Args:
        read: gives the configuration; its errors are recorded too.
        directory: the run's own.
        hydra_files: what `.hydra/` is to hold, by file name. Written before measuring, and only where no result is kept, so
            that it always describes the result beside it.
        asked: what the configuration was composed from, for the record of a failure.
        processes: those that measure; this is the first of them.

    Raises:
        ResultError: the directory holds a result of another configuration, or of files that have changed since.
        ErflabError: what the measurement raises.
    """
    try:
        if not (directory / "result.nc").exists():
            _describe(directory, hydra_files)
        config = read()
        refuse_missing(config.tracking)
        found = None if config.runtime.overwrite else finished(config, directory)
        if found is None:
            _clear(directory)
            _describe(directory, hydra_files)
            run_and_save(config, directory, processes)
        else:
            _tell(found, config, directory)
    except Exception as error:
        log.error("failed", exc_info=error)
        write_failure(error, directory, asked)
        raise
    (directory / FAILURE).unlink(missing_ok=True)


def finished(config: ErflabConfig, directory: Path) -> Result | None:
    """The result of this very measurement, if it is in the directory; None if there is none, or a damaged one.

    Raises:
        ResultError: the directory holds a result of another configuration, or of files that have changed since.
    """
    if not (directory / "result.nc").exists():
        return None
    try:
        found = load(directory)
    except (ResultError, json.JSONDecodeError) as error:
        log.warning("measured anew, for what was there is damaged: %s", error)
        return None
    first = next(iter(found))
    changed = differences(relevant(first.attribute("config")), identity(config))
    changed |= changed_files(config, first.attribute("model"), first.attribute("images"))
    if changed:
        raise ResultError(
            f"{directory} holds a result of another configuration ({told(changed)}); choose another directory "
            "(hydra.run.dir, hydra.sweep.dir), or replace it: runtime.overwrite=true."
        )
    return found


def _tell(result: Result, config: ErflabConfig, directory: Path) -> None:
    """The outcome of a finished run, as if it had been run again; what it lacks beside its maps is made."""
    if not _whole(directory / "summary.json"):
        result.save(directory)
    draw_figures(result, config.runtime.figures, directory / "figures")
    track(result, config.tracking, directory)
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
    for name in ("figures", "tensorboard"):
        shutil.rmtree(directory / name, ignore_errors=True)


def _describe(directory: Path, hydra_files: Mapping[str, str]) -> None:
    folder = directory / ".hydra"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in hydra_files.items():
        (folder / name).write_text(text)
