"""TensorBoard's event files of a run, told from those of others in the same folder: a training's, for example."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".erflab"
"""What the names of a run's own event files end with."""


def remove_events(folder: Path) -> None:
    """Remove a run's own event files from a folder, where there are any."""
    for file in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
        file.unlink()
