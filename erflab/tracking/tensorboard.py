"""TensorBoard: scalars over parts, hyperparameters, flags and configuration as text, figures as images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from erflab.config import TensorBoardConfig
from erflab.tracking.events import SUFFIX, remove_events
from erflab.tracking.record import Record


@dataclass(frozen=True)
class TensorBoard:
    """Writes event files into `tensorboard/` of the run's directory, or below the one given, under the run's name."""

    settings: TensorBoardConfig

    def __call__(self, run: Record) -> dict[str, str]:
        """Write one run. The step of a scalar is the part: of several layers, sigma is drawn against depth."""
        own = run.directory / "tensorboard"
        to = Path(self.settings.directory).expanduser() / run.name if self.settings.directory else own
        remove_events(to)  # of a run that was overwritten, or of an attempt that failed
        with SummaryWriter(str(to), filename_suffix=SUFFIX) as writer:
            _write(writer, run)
        return {"events": str(to)}


def _write(writer: SummaryWriter, run: Record) -> None:
    for step, numbers in enumerate(run.numbers):
        for name, value in numbers.items():
            writer.add_scalar(_tag(name), value, step, new_style=True, double_precision=True)
    for summary in hparams(_hyperparameters(run), {_tag(name): value for name, value in run.numbers[0].items()}):
        # What add_hparams does, without its second event file with the same scalars. (Typed as None until it is opened.)
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]
    writer.add_text("parts", _listed(run.parts))
    writer.add_text("flags", _listed(run.flags))
    writer.add_text("configuration", f"```\n{json.dumps(run.options, indent=1)}\n```")
    for figure in run.figures:
        with Pillow.open(figure) as image:
            writer.add_image(f"figures/{figure.stem}", np.asarray(image.convert("RGB")), dataformats="HWC")


def _tag(name: str) -> str:
    """Tags are grouped by what stands before the first slash: the method."""
    return name.replace(".", "/", 1)


def _listed(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "none"


def _hyperparameters(run: Record) -> dict[str, str | bool | float]:
    """The options; numbers, truths and words as they are, anything else as JSON."""
    return {k: v if isinstance(v, (str, bool, int, float)) else json.dumps(v) for k, v in run.options.items()}
