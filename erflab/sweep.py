"""What Hydra tells erflab about a sweep: when it has ended, so that its failures are told and set the exit code."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from erflab.failure import endings, jobs


class SweepReport(Callback):
    """A callback of Hydra's (conf/config.yaml): ends the process with 1 if a job of the sweep has no result.

    The failures are read from the sweep's directory: it holds those of other processes and of earlier starts too.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell each job without a result with its reason. SystemExit, because Hydra turns other exceptions into warnings."""
        directory = Path(config.hydra.sweep.dir)
        ended = list(endings(directory))
        if not ended:
            return
        for folder, status, reason in ended:
            print(f"erflab: {status}: {folder}: {reason}", file=sys.stderr)
        (status, count), *others = sorted(Counter(status for _, status, _ in ended).items())
        told = [f"{count} of {len(jobs(directory))} jobs in {directory} {status}", *(f"{n} {s}" for s, n in others)]
        print(
            f"erflab: error: {', '.join(told)}; the others are finished. The same command with hydra.sweep.dir={directory} "
            f"runs those again, and `erflab collect {directory}` lists all.",
            file=sys.stderr,
        )
        sys.exit(1)
