"""What Hydra tells erflab about a sweep: when it has ended, so that its failures are told and set the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from erflab.failure import failures


class SweepReport(Callback):
    """A callback of Hydra's (conf/config.yaml): ends the process with 1 if a job of the sweep has failed.

    The failures are read from the sweep's directory: it holds those of other processes and of earlier starts too.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell each failed job with its reason. SystemExit, because Hydra turns other exceptions into warnings."""
        directory = Path(config.hydra.sweep.dir)
        failed = list(failures(directory))
        if not failed:
            return
        jobs = sum(1 for _ in directory.glob("**/.hydra"))
        for folder, reason in failed:
            print(f"erflab: failed: {folder}: {reason}", file=sys.stderr)
        print(
            f"erflab: error: {len(failed)} of {jobs} jobs in {directory} failed; the others are finished. The same "
            f"command with hydra.sweep.dir={directory} runs those again, and `erflab collect {directory}` lists all.",
            file=sys.stderr,
        )
        sys.exit(1)
