"""Pictures are compared with stored ones, texts left out: fonts are rendered a little differently from machine to machine.

ERFLAB_BASELINES=write stores them anew; look at each before it is committed.
"""

import os
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

BASELINE = Path(__file__).with_name("baseline")
TOLERANCE = 6
"""Root mean square difference of pixels, of 255, that versions of matplotlib may make."""


@pytest.fixture
def difference(tmp_path: Path) -> Callable[[Figure, str], str | None]:
    """How a figure differs from the stored picture of that name, in words; None if it does not."""

    def compare(figure: Figure, name: str) -> str | None:
        for text in figure.findobj(mpl.text.Text):
            text.set_visible(False)
        drawn = tmp_path / f"{name}.png"
        if os.environ.get("ERFLAB_BASELINES") == "write":
            drawn = BASELINE / f"{name}.png"
        drawn.parent.mkdir(exist_ok=True)
        figure.savefig(drawn, dpi=100)
        found: str | None = compare_images(str(BASELINE / f"{name}.png"), str(drawn), TOLERANCE)
        return found

    return compare
