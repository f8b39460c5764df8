"""How every figure looks, and how it is saved: for one column of a paper, the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from matplotlib.typing import LineStyleType

COLUMN = 3.25
"""Width in inches of a column of a CVPR paper; figures are drawn at this size and never rescaled."""

PAGE = 6.875
"""Width in inches of both columns, for figures of more maps than a column holds."""

TEXT = 5.5
"""Width in inches of the text of a NeurIPS paper."""

COLORMAP = "magma"
"""Perceptually uniform, and monotone in grey."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#8C8C8C")
"""Line colours that stay apart under the common colour blindnesses (Okabe and Ito 2008), and a grey."""

OVERLAY = "#56B4E9"
"""Marks on a map: Okabe and Ito's sky blue is no colour of the map's."""

DIVERGING = "RdBu_r"
"""Of signed differences, white at zero; monotone in grey on either side."""

TRF = COLORS[2]
"""The theoretical field, in every figure."""

DASHES: LineStyleType = (0, (3, 1.5))
"""Fits and second contours."""

SERIES = tuple(color for color in COLORS if color != TRF)
"""Colours of methods, in the order in which they are drawn."""

RESOLUTION = 300
"""Dots per inch of the PNG."""

_SETTINGS: Any = {  # matplotlib's own type of it changes between versions
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine embeds the same
    "mathtext.fontset": "dejavusans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "ps.fonttype": 42,
    "savefig.bbox": None,  # "tight" would change the figure's width
    "savefig.dpi": RESOLUTION,
    "figure.dpi": 100,
}


@contextmanager
def paper() -> Iterator[None]:
    """Draw in the paper's style inside the context; the user's own settings are back after it."""
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change a stored figure
        mpl.rcParams.update(_SETTINGS)
        yield


@contextmanager
def paper_figure(width: float, height: float, pad: float = 0.04167) -> Iterator[Figure]:
    """A figure to draw in inside the context, in the paper's style; its layout is constrained, and frozen at the end.

    Args:
        width, height: inches.
        pad: inches left about each of the axes, by default as many as matplotlib leaves.
    """
    with paper():
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=pad, h_pad=pad))
        yield figure
        freeze_layout(figure)


def freeze_layout(figure: Figure) -> None:
    """Lay the figure out once and for all.

    A constrained layout moves a little at each drawing: kept, the second save of a figure would differ from the first.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


DENSE, SPARSE = (1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5)
"""The multiples of a power of ten that logarithmic axes of about one decade, and of more, are labelled at."""


def plain_ticks(axis: Axis, multiples: Sequence[float]) -> None:
    """Label a logarithmic axis with plain numbers in place of powers of ten."""
    axis.set_major_locator(LogLocator(subs=multiples))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.pdf and `stem`.png, each at once or not at all, and return their paths.

    No date goes into the files: the same figure gives the same bytes under the same matplotlib.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    # Not with_suffix: it would cut "layer4.1" at the dot.
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("pdf", "png")]
    with paper():
        _write(figure, paths[0], {"CreationDate": None})
        _write(figure, paths[1], {})
    return paths


def _write(figure: Figure, path: Path, metadata: dict[str, Any]) -> None:
    """Beside the target first, so that a reader never finds half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
