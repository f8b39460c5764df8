"""Every kind of figure on maps whose look is known: against stored pictures, and its numbers against the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from erflab.analysis import GroupedMap, fit_falloff, moments
from erflab.analysis.jackknife import Estimate
from erflab.analysis.sizes import Quantity
from erflab.errors import MeasurementError
from erflab.figures import ErfPanel, draw_erf, paper
from erflab.figures.bars import draw_bars
from erflab.figures.comparison import difference as map_difference
from erflab.figures.comparison import draw_difference, draw_shares
from erflab.figures.convergence import draw_convergence
from erflab.figures.grid import draw_map_grid, draw_map_row
from erflab.figures.pairs import draw_pair
from erflab.figures.points import draw_points
from erflab.figures.radial import draw_encircled, draw_radial
from erflab.figures.replicates import draw_replicates
from erflab.figures.residual import draw_residual
from erflab.figures.sections import draw_sections
from erflab.figures.spectrum import draw_spectrum
from erflab.figures.style import paper_figure


def groups(sigma: float, half: float = 30, step: float = 1.0, cusp: bool = False) -> GroupedMap:
    """Eight images, each a bell of another width, moved a little off the centre."""
    places = np.arange(-half, half + step / 2, step)
    y, x = np.meshgrid(places, places, indexing="ij")
    images = []
    for wider in np.linspace(0.8, 1.2, 8):
        squares = ((y + 1) ** 2 + ((x - 2) / 1.3) ** 2) / (wider * sigma) ** 2
        images.append(np.exp(-np.sqrt(squares) if cusp else -squares / 2))
    sums = np.array(images)
    mean = xr.DataArray(sums.mean(0), coords={"y": places, "x": places}, dims=("y", "x"))
    return GroupedMap(mean, sums, np.ones(8, int))


def panel(title: str, grouped: GroupedMap, family: str = "gaussian") -> ErfPanel:
    fit = fit_falloff(grouped.mean, family)
    about = moments(grouped.mean)
    return ErfPanel(title, grouped.mean, fit, about, (-20, 20, -22, 22), groups=grouped)


GRADIENT = panel("gradient", groups(4, cusp=True), "generalised_gaussian")
OCCLUSION = panel("occlusion", groups(6, 32, 4.0), "exponential")


def one(height: float = 2.0, rows: int = 1) -> tuple[Figure, list]:
    figure = Figure(figsize=(3.25, height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, 1)))


def test_the_erf_figure_with_cusped_fits_and_squares(difference):
    marked = ErfPanel(**{**vars(GRADIENT), "squares": ((0.5, 12.0), (0.9545, 36.0))})
    figure = draw_erf([marked, OCCLUSION], title="a layer")
    assert difference(figure, "erf") is None


def test_a_cusped_fit_is_outlined_at_half_its_peak_and_at_two_of_its_standard_deviations():
    figure = draw_erf([GRADIENT])
    outlines = {a.get_gid(): a for a in figure.axes[0].patches}
    fit = GRADIENT.fit
    assert fit.half_width > 1.3 * fit.sigma  # what one sigma of the family would have hidden
    half, double = (math.hypot(outlines[gid].width, outlines[gid].height) / math.sqrt(8) for gid in NAMES)
    assert half == pytest.approx(fit.half_width)
    assert double == pytest.approx(2 * fit.moment_sigma)
    ellipse = outlines["half maximum"]
    angle, (x, y) = math.radians(ellipse.angle), ellipse.center
    tip = y + ellipse.width / 2 * math.sin(angle), x + ellipse.width / 2 * math.cos(angle)
    assert fit.model(*tip) == pytest.approx(fit.parameters["amplitude"] / 2 + fit.parameters["floor"])


NAMES = "half maximum", "2 sigma"


def test_a_tail_without_variance_has_no_ellipse_of_it():
    places = np.arange(-40.0, 41)
    squares = (places[:, None] ** 2 + places**2) / 4**2
    heavy = xr.DataArray((1 + squares / 3) ** -1.5, coords={"y": places, "x": places}, dims=("y", "x"))
    fit = fit_falloff(heavy, "moffat", floor=False)
    assert fit.moment_sigma is None
    figure = draw_erf([ErfPanel("heavy", heavy, fit)])
    assert {a.get_gid() for a in figure.axes[0].patches} == {"half maximum"}
    assert "fit: 2σ" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_sections_on_both_scales(difference):
    with paper():
        figure, (linear, logarithmic) = one(3.0, 2)
        for axes, scale in ((linear, False), (logarithmic, True)):
            draw_sections(axes, [GRADIENT, OCCLUSION], (-32, 32, -32, 32), 4.0, logarithmic=scale)
    assert [a.get_gid() for a in linear.collections].count("band") == 2
    assert logarithmic.get_yscale() == "log"
    assert difference(figure, "sections") is None


def test_radial_profile_and_encircled_share(difference):
    with paper():
        figure, (profile, share) = one(3.0, 2)
        draw_radial(profile, [GRADIENT, OCCLUSION])
        draw_encircled(share, [GRADIENT, OCCLUSION])
    assert profile.lines[0].get_ydata().max() == pytest.approx(1)
    assert share.lines[0].get_ydata()[-1] == pytest.approx(1)
    assert difference(figure, "radial") is None


def test_a_grid_of_maps(difference):
    figure = draw_map_grid([("layer1", [GRADIENT, OCCLUSION]), ("layer2", [OCCLUSION, GRADIENT])])
    assert len(figure.axes) == 5
    assert len({(a.images[0].norm.vmin, a.images[0].norm.vmax) for a in figure.axes[:4]}) == 1
    assert difference(figure, "grid") is None
    with pytest.raises(MeasurementError, match=r"the rows have \[1, 2\] maps; give at least one row"):
        draw_map_grid([("layer1", [GRADIENT]), ("layer2", [GRADIENT, OCCLUSION])])


def test_a_row_of_maps(difference):
    with paper_figure(3.25, 1.5) as figure:
        row = [*figure.subplots(1, 2)]
        draw_map_row(row, [GRADIENT, OCCLUSION], (-26, 26, -26, 26))
    assert [axes.get_title() for axes in row] == ["gradient", "occlusion"]
    assert {(axes.get_xlim(), axes.get_ylim()) for axes in row} == {((-26, 26), (26, -26))}
    assert [[patch.get_gid() for patch in axes.patches] for axes in row] == [["TRF"], ["TRF"]]
    assert len(figure.axes) == 3  # with one colour bar
    assert difference(figure, "row") is None
    with pytest.raises(MeasurementError, match=r"the map 'empty' has no positive value \(peak 0\)"):
        draw_map_row([*Figure().subplots(1, 2)], [ErfPanel("empty", 0 * GRADIENT.map), GRADIENT])


def test_a_pair(difference):
    sigmas = Quantity(9.0, "px", 0.5), Quantity(None, "px")
    figure = draw_pair(GRADIENT, ErfPanel("gradient", groups(8).mean), ("random", "trained"), sigmas=sigmas)
    notes = [a.get_text() for axes in figure.axes for a in axes.texts if a.get_gid() == "notes"]
    assert notes == ["σ = 9 ± 0.5 px", "no σ"]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["random", "trained"]
    assert difference(figure, "pair") is None


def test_bars_reach_to_their_intervals_and_miss_where_there_is_none(difference):
    values = {
        "gradient": [Quantity(0.2, "1", 0.02, (0.16, 0.25)), None],
        "occlusion": [Quantity(0.3, "1"), Quantity(0.1, "1", 0.01, (0.08, 0.12))],
    }
    with paper():
        figure, (axes,) = one()
        draw_bars(axes, ["layer1", "layer2"], values, "area / TRF area")
    assert [bar.get_height() for bar in axes.containers[1]] == [0.2, pytest.approx(math.nan, nan_ok=True)]
    (stem,) = axes.containers[0].lines[2]
    assert stem.get_segments()[0][:, 1] == pytest.approx([0.16, 0.25])
    assert difference(figure, "bars") is None
    with pytest.raises(MeasurementError, match="series 'gradient' has 2 values for 1 groups; give one each"):
        draw_bars(axes, ["layer1"], values, "")


def test_a_bar_of_a_number_outside_its_interval_reaches_to_one_side_alone():
    axes = Figure().subplots()
    draw_bars(axes, ["layer1"], {"gradient": [Quantity(0.2, "1", 0.02, (0.21, 0.25))]}, "")
    assert axes.containers[0].lines[2][0].get_segments()[0][:, 1] == pytest.approx([0.2, 0.25])


@pytest.mark.parametrize(("count", "angle"), [(4, 0), (5, 35), (9, 60)])
def test_the_names_of_many_groups_are_written_aslant(count, angle):
    axes = Figure().subplots()
    names = [f"layer{number}" for number in range(count)]
    draw_bars(axes, names, {"gradient": [Quantity(1.0, "1")] * count}, "")
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {angle}


def test_replicates_are_points_above_their_group(difference):
    seeds = {"predicted": [[1.0, 1.1], [0.7, 1.0, 1.3]], "gradient": [[1.05, 1.1], [0.8, 1.0, 1.2]]}
    with paper_figure(3.25, 2.0) as figure:
        axes = figure.add_subplot()
        draw_replicates(axes, ["dense", "depthwise"], seeds, "sigma / expected", reference=1)
    predicted, gradient, reference = axes.lines
    assert predicted.get_ydata().tolist() == [1.0, 1.1, 0.7, 1.0, 1.3]
    assert gradient.get_xdata() == pytest.approx([0.15, 0.15, 1.15, 1.15, 1.15])
    assert reference.get_gid() == "reference"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["predicted", "gradient"]
    assert difference(figure, "replicates") is None
    with pytest.raises(MeasurementError, match="series 'predicted' has 2 values for 1 groups; give one each"):
        draw_replicates(axes, ["dense"], seeds, "")


def test_a_size_against_its_cost(difference):
    costs = {f"network {number}": (number, Estimate(number**0.5, 0.1, (0, number))) for number in range(1, 10)}
    with paper_figure(3.25, 2.8) as figure:
        axes = figure.add_subplot()
        draw_points(axes, costs | {"alone": (9.5, Estimate(2.0))})
    points = [bars.lines[0] for bars in axes.containers]
    assert points[3].get_xydata().tolist() == [[4, 2]]
    assert axes.containers[3].lines[2][0].get_segments()[0][:, 1].tolist() == [0, 4]
    assert len({(point.get_color(), point.get_marker()) for point in points}) == 10
    assert difference(figure, "points") is None
    with pytest.raises(MeasurementError, match="'none' has no value; leave it out"):
        draw_points(axes, {"none": (1.0, Estimate(None))})


def test_gradient_against_occlusion(difference):
    gradient, occlusion = GRADIENT.grouped, OCCLUSION.grouped
    with paper():
        figure, (upper, lower) = one(4.0, 2)
        draw_difference(upper, gradient.mean, occlusion.mean, 7)
        draw_shares(lower, {"gradient": gradient, "occlusion": occlusion})
    assert difference(figure, "comparison") is None


def test_equal_maps_do_not_differ_and_moved_mass_is_signed():
    map = groups(5).mean
    assert float(np.abs(map_difference(map, map)).max()) < 1e-12
    wider = map_difference(map, groups(8).mean)
    assert wider.sel(y=0, x=2) < 0 < wider.sel(y=0, x=20)
    assert float(np.abs(wider).max()) <= 1


def test_convergence(difference):
    look = xr.Dataset(
        {
            "images": ("look", [64, 128, 256]),
            "sigma": ("look", [9.0, 10.0, 10.2]),
            "standard_error": ("look", [1.0, 0.6, 0.4]),
        }
    )
    with paper():
        figure, (axes,) = one()
        draw_convergence(axes, {"gradient": look, "occlusion": look.assign(sigma=look["sigma"] + 1)})
    assert axes.get_xticks().tolist() == [64, 128, 256]
    assert difference(figure, "convergence") is None


def test_the_residual_of_an_exact_fit_is_nothing_and_without_a_fit_it_is_refused(difference):
    with paper():
        figure, (axes,) = one(2.8)
        draw_residual(axes, OCCLUSION, (-20, 20, -20, 20))
        exact = ErfPanel("exact", OCCLUSION.fit.evaluate(OCCLUSION.map), OCCLUSION.fit)
        left = draw_residual(Figure().subplots(), exact)
    assert float(np.abs(left.get_array()).max()) < 1e-4
    assert difference(figure, "residual") is None
    with pytest.raises(MeasurementError, match="the map 'bare' has no fit, so no residual; see its flags for why"):
        draw_residual(axes, ErfPanel("bare", OCCLUSION.map))


def test_the_spectrum_marks_the_lattice_of_a_period(difference):
    board = GRADIENT.map.copy()
    board[::2] *= 0.2
    with paper():
        figure, (axes,) = one(2.7)
        draw_spectrum(axes, board, (2,))
    (marks,) = axes.lines
    assert {tuple(place) for place in marks.get_xydata()} == {(0, -0.5), (-0.5, 0), (-0.5, -0.5)}
    assert difference(figure, "spectrum") is None


def test_another_picture_is_noticed(difference):
    """What keeps the tolerance honest: a TRF, a fit and squares that are not drawn are a difference."""
    bare = ErfPanel(**{**vars(GRADIENT), "box": None, "squares": ((0.5, 1.0), (0.9545, 2.0))})
    figure = draw_erf([bare, OCCLUSION], title="a layer")
    assert difference(figure, "erf") is not None
