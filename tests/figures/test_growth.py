"""The growth figure: points, laws and what the legend says of them."""

import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from erflab.analysis import fit_linear, fit_power_law
from erflab.analysis.scaling import Coefficient
from erflab.figures.depth import DepthPoint, draw_depth
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


def test_numbers_with_intervals_are_points_with_bars():
    numbers = [Coefficient(2.0, 0.1, (1.5, 3.0)), Coefficient(4.0)]
    (bars,) = drawn(Growth.of("ReLU", [5, 10], numbers)).containers
    points, _, (segments,) = bars.lines
    assert points.get_xydata().tolist() == [[5, 2], [10, 4]]
    assert [segment[:, 1].tolist() for segment in segments.get_segments() if len(segment)] == [[1.5, 3.0]]


def test_a_power_law_is_straight_on_logarithmic_axes_with_plain_numbers():
    axes = drawn(power(), logarithmic=True)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    (law,) = (line for line in axes.lines if line.get_gid() == "law")
    slopes = np.diff(np.log(law.get_ydata())) / np.diff(np.log(law.get_xdata()))
    assert np.allclose(slopes, power().law.exponent.value)
    axes.figure.draw_without_rendering()
    labels = {float(text.get_text()) for text in axes.get_xticklabels()}  # no powers of ten
    assert labels >= {5, 10, 20, 30, 40}


def test_the_legend_tells_the_coefficient_and_half_its_interval():
    grown = linear()
    low, high = grown.law.slope.interval
    assert legend(drawn(grown)) == [
        "slope, 95 % interval",
        f"ReLU {grown.law.slope.value:.3f} ± {(high - low) / 2:.3f}",
    ]
    title, text = legend(drawn(power(), logarithmic=True))
    assert title == "exponent, 95 % interval"
    assert text.startswith(f"tanh {power().law.exponent.value:.3f} ± ")


def test_a_law_without_interval_or_no_law_is_told_as_such():
    two = Growth("two", DEPTHS[:2], DEPTHS[:2], law=fit_linear(DEPTHS[:2], DEPTHS[:2]))
    assert legend(drawn(two)) == ["slope, 95 % interval", "two 1.000"]
    assert legend(drawn(Growth("points", DEPTHS, DEPTHS))) == ["", "points"]
    assert legend(drawn(two, power()))[0] == ""  # a slope and an exponent have no common name


def test_a_falling_law_has_a_minus_and_no_hyphen():
    law = fit_power_law([1, 4], [2, 1])
    falling = Growth("ratio", np.array([1.0, 4]), np.array([2.0, 1]), law=law)
    assert legend(drawn(falling, logarithmic=True))[1] == "ratio −0.500"


def test_the_reference_is_a_dashed_line_ahead_of_the_series():
    reference = Growth("limit", DEPTHS, DEPTHS * 2 / 3)
    axes = drawn(linear(), reference=reference)
    (line,) = (line for line in axes.lines if line.get_gid() == "reference")
    assert line.get_linestyle() == "--"
    assert np.array_equal(line.get_xydata(), np.stack([reference.x, reference.y], axis=1))
    assert legend(axes)[1] == "limit"


def test_series_differ_in_colour_and_marker():
    axes = drawn(*(linear(str(i)) for i in range(4)))
    points = [bars.lines[0] for bars in axes.containers]
    assert len({point.get_color() for point in points}) == len({point.get_marker() for point in points}) == 4


def test_what_leaves_the_plain_axes_is_nothing():
    axes = drawn(linear())
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_title()) == ("linear", "", "")
    assert math.isclose(mpl.rcParams["font.size"], mpl.rcParamsDefault["font.size"])


def test_sizes_against_depth_are_labelled_with_plain_numbers():
    lines = {"gradient": [DepthPoint(2.0, None, 6.0), DepthPoint(4.0, None, 600.0)]}
    figure = draw_depth(["conv1", "layer1"], lines)
    assert {"2", "5", "10", "20", "500"} <= {label.get_text() for label in figure.axes[0].get_yticklabels()}
