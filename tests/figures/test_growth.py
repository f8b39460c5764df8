"""The growth figure: points, laws and what the legend says of them."""

import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from erflab.analysis import fit_linear, fit_power_law
from erflab.figures.growth import Growth, draw_growth
from erflab.figures.style import paper

DEPTHS = np.array([5.0, 10, 20, 40])
NOISE = np.array([0.1, -0.1, 0.2, -0.1])


def drawn(*series: Growth, **options) -> Axes:
    with paper():
        axes = Figure().add_subplot()
        draw_growth(axes, series, **options)
    return axes


def linear(label: str = "ReLU", reach: np.ndarray | None = None) -> Growth:
    y = DEPTHS * 2 / 3 + NOISE
    return Growth(label, DEPTHS, y, reach, fit_linear(DEPTHS, y))


def power() -> Growth:
    y = 4 * np.sqrt(DEPTHS) + NOISE
    return Growth("tanh", DEPTHS, y, law=fit_power_law(DEPTHS, y))


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [found.get_title().get_text(), *(text.get_text() for text in found.get_texts())]


def test_points_bars_and_law_are_where_the_numbers_are():
    grown = linear(reach=np.full(4, 0.5))
    axes = drawn(grown)
    (bars,) = axes.containers
    points, _, (segments,) = bars.lines
    assert np.array_equal(points.get_xydata(), np.stack([grown.x, grown.y], axis=1))
    heights = [np.ptp(segment[:, 1]) for segment in segments.get_segments()]
    assert heights == pytest.approx([1.0] * 4)
    (law,) = (line for line in axes.lines if line.get_gid() == "law")
    assert np.allclose(law.get_ydata(), grown.law.at(law.get_xdata()))
    assert (law.get_xdata().min(), law.get_xdata().max()) == (5, 40)


def test_a_power_law_is_straight_on_logarithmic_axes_with_plain_numbers():
    axes = drawn(power(), logarithmic=True)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    (law,) = (line for line in axes.lines if line.get_gid() == "law")
    slopes = np.diff(np.log(law.get_ydata())) / np.diff(np.log(law.get_xdata()))
    assert np.allclose(slopes, power().law.exponent.value)
    axes.figure.draw_without_rendering()
    labels = [text.get_text() for text in axes.get_xticklabels() if text.get_text()]
    assert len(labels) >= 2
    assert all(label.isdigit() for label in labels)


def test_the_legend_tells_the_coefficient_and_half_its_interval():
    grown = linear()
    low, high = grown.law.slope.interval
    assert legend(drawn(grown)) == ["slope", f"ReLU {grown.law.slope.value:.3f} ± {(high - low) / 2:.3f}"]
    title, text = legend(drawn(power(), logarithmic=True))
    assert title == "exponent"
    assert text.startswith(f"tanh {power().law.exponent.value:.3f} ± ")


def test_a_law_without_interval_or_no_law_is_told_as_such():
    two = Growth("two", DEPTHS[:2], DEPTHS[:2], law=fit_linear(DEPTHS[:2], DEPTHS[:2]))
    assert legend(drawn(two)) == ["slope", "two 1.000"]
    assert legend(drawn(Growth("points", DEPTHS, DEPTHS))) == ["", "points"]
    assert legend(drawn(two, power()))[0] == ""  # a slope and an exponent have no common name


def test_series_differ_in_colour_and_marker():
    axes = drawn(*(linear(str(i)) for i in range(4)))
    points = [bars.lines[0] for bars in axes.containers]
    assert len({point.get_color() for point in points}) == len({point.get_marker() for point in points}) == 4


def test_what_leaves_the_plain_axes_is_nothing():
    axes = drawn(linear())
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_title()) == ("linear", "", "")
    assert math.isclose(mpl.rcParams["font.size"], mpl.rcParamsDefault["font.size"])
