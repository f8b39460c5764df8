"""The figures of a run: the kinds that were asked for, each in a file of its own name. What cannot be drawn is a warning."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from erflab.errors import MeasurementError, ResultError
from erflab.plots import KINDS
from erflab.result import Result, beside

log = logging.getLogger("erflab")


def draw_figures(result: Result, wanted: bool | Sequence[str], folder: Path) -> list[str]:
    """Draw what `folder` lacks as KIND.pdf and .png; a kind for one part, of several parts, as KIND_LABEL of each.

    Args:
        wanted: kinds, or true for `result.plot`'s own choice, named erf.

    Returns:
        A warning for each figure that does not apply to the result: the result stands without it.
    """
    warnings = []
    for stem, subject, kind in _figures(result, wanted, folder):
        try:
            if not stem.with_name(f"{stem.name}.png").exists():
                _draw(subject, stem, kind)
        except (MeasurementError, ResultError) as error:
            warnings.append(f"figure {stem.name} is not drawn: {error}")
            log.warning("%s", warnings[-1])
    return warnings


def remove_figures(folder: Path) -> None:
    """Remove the figures of a run from a folder, which may hold others too: the user's own."""
    for kind in KINDS:
        for pattern in (f"{kind}.*", f"{kind}_*"):
            for file in folder.glob(pattern):
                if file.suffix in (".pdf", ".png"):
                    file.unlink()
    with contextlib.suppress(OSError):  # there is none, or it holds something else
        folder.rmdir()


def _draw(subject: Result, stem: Path, kind: str | None) -> None:
    """Draw aside and move, the stem's own picture last: where that is, nothing is missing or cut short."""
    aside = stem.with_name(".unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        subject.plot(aside / stem.name, kind)
        for file in sorted(aside.iterdir(), key=lambda file: file.name == f"{stem.name}.png"):
            file.rename(stem.with_name(file.name))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _figures(result: Result, wanted: bool | Sequence[str], folder: Path) -> Iterator[tuple[Path, Result, str | None]]:
    """Stem, what it is drawn of, and the kind."""
    if isinstance(wanted, bool):
        if wanted:
            yield folder / "erf", result, None
        return
    for kind in wanted:
        if KINDS[kind].parts or len(result) == 1:
            yield folder / kind, result, kind
        else:
            for label, part in zip(result.labels, result, strict=True):
                yield beside(folder / kind, label), part, kind
