"""One measurement by several processes: the first leads, and alone writes; the others measure what it says."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from erflab.config import ErflabConfig
from erflab.distributed import Processes
from erflab.errors import ProcessDiedError, foreseen
from erflab.measurement import run
from erflab.result import Result


def run_together(config: ErflabConfig, directory: Path, processes: Processes) -> Result:
    """The result of a measurement by all processes, of which this is the first; its checkpoint is kept in the directory."""
    processes.lead(config)
    with processes.together():
        return run(config, directory, processes)


def follow(processes: Processes) -> None:
    """Take part in one measurement after another, until the first process ends.

    Raises ProcessDiedError if another process is gone. Other errors are the first process's to tell and to exit with.
    """
    for config in processes.orders():
        try:
            with processes.together():
                run(config, processes=processes)
        except ProcessDiedError:
            raise
        except Exception as error:  # the first process has been told its reason, and records it
            if foreseen(error) is None:
                traceback.print_exc(file=sys.stderr)
