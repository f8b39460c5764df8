"""Figures of many numbers and of many maps: what is drawn where, and what is refused."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from erflab.analysis.jackknife import Estimate
from erflab.errors import MeasurementError
from erflab.figures.forest import draw_forest
from erflab.figures.gallery import draw_gallery
from erflab.figures.panel import ErfPanel


def test_a_forest_has_a_row_a_name_and_intervals_as_they_are():
    axes = Figure().add_subplot()
    numbers = {"a": Estimate(1.0, 0.1, (0.7, 1.2)), "b": Estimate(2.0)}
    draw_forest(axes, {"one": numbers, "two": {"b": Estimate(3.0, 0.1, (2.5, 3.5))}}, reference=1)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim() == (1.5, -0.5)  # the first row on top
    points, _, (bars,) = axes.containers[0]
    assert points.get_xdata().tolist() == [1.0, 2.0]
    assert bars.get_segments()[0][:, 0].tolist() == pytest.approx([0.7, 1.2])
    second = axes.containers[1][0].get_ydata()
    assert second[0] > points.get_ydata()[1] > 0.5  # in the same row, apart
    assert [line.get_gid() for line in axes.lines].count("reference") == 1


def test_a_number_that_is_not_there_is_refused():
    with pytest.raises(MeasurementError, match="'a' has no value; leave it out"):
        draw_forest(Figure().add_subplot(), {"one": {"a": Estimate(None)}})


def panel(title: str, half: int) -> ErfPanel:
    offsets = np.arange(-half, half + 1.0)
    values = np.exp(-(offsets[:, None] ** 2 + offsets**2) / 8)
    return ErfPanel(title, xr.DataArray(values, {"y": offsets, "x": offsets}, ("y", "x")), box=(-3, 3, -3, 3))


def test_a_gallery_shows_every_map_on_one_extent():
    figure = draw_gallery([panel("a", 5), panel("b", 10), panel("c", 7)], columns=2)
    maps = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in maps] == ["a", "b", "c"]
    assert {axes.get_xlim() for axes in maps} == {(-10.5, 10.5)}
    assert figure.get_figwidth() == 6.875
    with pytest.raises(MeasurementError, match="there is no map to draw; give at least one"):
        draw_gallery([])
