"""Every kind of figure that a result draws of itself, and what is refused in words."""

from pathlib import Path

import pytest
import torch
from nets import small_net

import erflab
from erflab.config import RuntimeConfig
from erflab.errors import ResultError
from erflab.figures.style import COLUMN
from erflab.plots import KINDS
from erflab.result import Result

RUNTIME = RuntimeConfig(progress=False, device="cpu")


@pytest.fixture(scope="module")
def result() -> Result:
    torch.manual_seed(0)
    return erflab.measure(small_net(), torch.randn(8, 3, 24, 24), method=["gradient", "occlusion"], runtime=RUNTIME)


@pytest.mark.parametrize("kind", [kind for kind, row in KINDS.items() if row.least == 1])
def test_every_kind_is_drawn_of_one_result_at_the_width_of_a_column(result, kind, tmp_path: Path):
    figure = result.plot(tmp_path / "deep" / kind, kind=kind)
    assert figure.get_figwidth() == COLUMN
    assert {file.name for file in (tmp_path / "deep").iterdir()} == {f"{kind}.pdf", f"{kind}.png"}


def test_several_results_share_a_figure(result):
    grid = result.plot(kind="grid", others=[result])
    assert len([axes for axes in grid.axes if axes.images]) == 4
    areas = result.plot(kind="areas", others=[result])
    assert len(areas.axes[0].containers[1]) == 2
    pair = result.plot(kind="pair", others=[result])
    assert [axes.get_title() for axes in pair.axes[:2]] == ["before", "after"]


def test_a_pair_is_named_by_what_differs(result):
    other = erflab.measure(small_net(), torch.randn(4, 3, 24, 24), "stem", runtime=RUNTIME)
    pair = other.plot(kind="pair", others=[result])
    assert [axes.get_title() for axes in pair.axes[:2]] == [other.labels[0], result.labels[0]]


def test_what_cannot_be_drawn_is_refused_in_words(result):
    with pytest.raises(ResultError, match=r"no kind of figure 'radical'; choose from erf, .*radial"):
        result.plot(kind="radical")
    with pytest.raises(ResultError, match="kind 'pair' is drawn of 2 results, and was given 1"):
        result.plot(kind="pair")
    with pytest.raises(ResultError, match="kind 'erf' is drawn of 1 results, and was given 2"):
        result.plot(kind="erf", others=[result])
    alone = erflab.measure(small_net(), torch.randn(2, 3, 24, 24), method="gradient", runtime=RUNTIME)
    with pytest.raises(ResultError, match="this figure needs gradient and occlusion; the result has gradient"):
        alone.plot(kind="comparison")
    with pytest.raises(ResultError, match=r"no method in common: gradient and occlusion"):
        alone.plot(kind="pair", others=[Result((result.dataset.drop_vars("gradient"),))])
    parts = Result((*alone.parts, *alone.parts))
    with pytest.raises(ResultError, match="this result has 2 parts"):
        parts.plot(kind="erf")
    assert len(parts.plot(kind="grid").axes) > 1
