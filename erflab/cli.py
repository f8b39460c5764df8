"""The console entry: hands the command line to Hydra, and turns every expected error into one line."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from erflab.placement import read_placement

FULL_ERROR = "HYDRA_FULL_ERROR"
INTERRUPTED = 130
"""The exit code of what Ctrl-C ended, as shells have it."""

_failed: list[Exception] = []
"""What the run of this process has raised: kept from Hydra, which would print all overrides before it is told."""


def main() -> None:
    """`erflab [VERB] [OVERRIDES]`: exits with 1 and one line on any error that erflab or Hydra foresees."""
    show_all = os.environ.get(FULL_ERROR, "0") not in ("", "0")
    os.environ[FULL_ERROR] = "1"  # Hydra then raises instead of exiting, and the line below is ours to write
    sys.path.insert(0, str(Path.cwd()))  # a console script lacks it, and a user's own module must import
    try:
        _start(sys.argv[1:])
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from erflab.explanation import one_line

        message = one_line(error, sys.argv[1:])
        if show_all or message is None:
            raise
        print(f"erflab: error: {message}", file=sys.stderr)
        sys.exit(1)


def _start(arguments: list[str]) -> None:
    """Do what the arguments say; of several processes the first does, and the others measure with it."""
    if read_placement(os.environ).size == 1:
        _dispatch(arguments)
        return
    from erflab.distributed import joined
    from erflab.team import follow

    with joined() as processes:
        if processes.first:
            _dispatch(arguments)
        else:
            follow(processes)


def _dispatch(arguments: list[str]) -> None:
    verb = VERBS.get(arguments[0]) if arguments else None
    if verb is not None:
        verb(arguments[1:])
    elif arguments and arguments[0].isidentifier():
        _refuse_verb(arguments[0])
    else:
        _hydra(arguments)


def _refuse_verb(word: str) -> None:
    from erflab.errors import ConfigError, closest

    raise ConfigError(
        f"no verb {word!r}; there are {', '.join(VERBS)}, and options as OPTION=VALUE: erflab --help.{closest(word, VERBS)}"
    )


def _hydra(arguments: list[str]) -> None:
    import hydra

    from erflab.compose import config_directory, register

    register()
    sys.argv[1:] = arguments
    _failed.clear()
    hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="config")(_job)()
    for error in _failed:
        raise error


def _job(composed: Any) -> None:
    """What Hydra runs, here or in a process of a launcher's: one job."""
    try:
        _task(composed)
    except KeyboardInterrupt:
        print(
            f"erflab: interrupted; the same command with {_directory()} goes on from what was saved.", file=sys.stderr
        )
        raise
    except Exception as error:
        if _sweeping():
            raise
        _failed.append(error)


def _task(composed: Any) -> None:
    """One job: measure into its directory. In a sweep a failure is left there, and stops no other job."""
    from hydra.core.hydra_config import HydraConfig

    from erflab.compose import as_plain, hydra_files, to_config
    from erflab.distributed import joined
    from erflab.errors import InUseError, RefusedError
    from erflab.failure import refusal, write_failure
    from erflab.job import run_job
    from erflab.team import follow

    hydra = HydraConfig.get()
    asked = {"overrides": list(hydra.overrides.task), "config": as_plain(composed)}
    directory = Path(hydra.runtime.output_dir)
    with joined() as processes:  # by now, but in a job that a launcher has started as several tasks
        if not processes.first:
            follow(processes)
            return
        shutil.rmtree(refusal(directory), ignore_errors=True)
        try:
            run_job(lambda: to_config(composed), directory, hydra_files(composed), asked, processes)
        except Exception as error:
            if not _sweeping():  # a launcher may stop the sweep at what a job raises
                raise
            if isinstance(error, InUseError):  # of which nothing is left where another process measures
                print(f"erflab: error: {error}", file=sys.stderr)
            if isinstance(error, RefusedError):
                refusal(directory).mkdir(parents=True, exist_ok=True)
                write_failure(error, refusal(directory), asked)


def _sweeping() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _directory() -> str:
    """The option that gives the same directory again: its default bears the time."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    return f"hydra.sweep.dir={hydra.sweep.dir}" if _sweeping() else f"hydra.run.dir={hydra.runtime.output_dir}"


def _version(arguments: list[str]) -> None:
    from erflab import __version__

    print(f"erflab {__version__}")


def _options(arguments: list[str]) -> None:
    from erflab.options import print_options

    print_options(arguments)


def _theory(arguments: list[str]) -> None:
    from erflab.listing import print_fields

    print_fields(arguments)


def _collect(arguments: list[str]) -> None:
    from erflab.gathering import print_collection

    print_collection(arguments)


def _diff(arguments: list[str]) -> None:
    from erflab.difference import print_differences

    print_differences(arguments)


def _rerun(arguments: list[str]) -> None:
    from erflab.rerun import rerun_overrides

    _hydra(rerun_overrides(arguments))


VERBS: dict[str, Callable[[list[str]], None]] = {
    "collect": _collect,
    "diff": _diff,
    "options": _options,
    "rerun": _rerun,
    "theory": _theory,
    "--version": _version,
}
