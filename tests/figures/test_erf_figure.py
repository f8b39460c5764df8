"""The ERF figure: its artists, its size, and the files it becomes."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from erflab.analysis import fit_falloff, moments, section
from erflab.errors import MeasurementError
from erflab.figures import ErfPanel, draw_erf, paper, save
from erflab.figures.maps import FLOOR
from erflab.figures.style import COLUMN, PAGE

BOX = (-20.5, 20.5, -16.5, 16.5)


def panel(title: str = "gradient", half: float = 30.5, step: float = 1.0, box=BOX, notes=(), fitted=True) -> ErfPanel:
    offsets = np.arange(-half, half + step / 2, step)
    y, x = offsets[:, None], offsets[None, :]
    values = np.exp(-((x - 2) ** 2 / 8**2 + (y + 1) ** 2 / 5**2) / 2)
    map = xr.DataArray(values * 1e-9, coords={"y": offsets, "x": offsets}, dims=("y", "x"))
    return ErfPanel(title, map, fit_falloff(map) if fitted else None, moments(map) if fitted else None, box, notes)


@pytest.fixture
def two() -> Figure:
    return draw_erf([panel(), panel("occlusion", 36, 4.0, notes=("clipped",))], title="a layer")


def named(axes, gid: str) -> list:
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


@pytest.mark.parametrize(("count", "width"), [(1, 3.25), (2, 3.25), (3, 3.25), (4, 6.875), (6, 6.875)])
def test_every_figure_is_one_column_or_a_page_wide(count, width):
    figure = draw_erf([panel(f"integrated gradients {i}", fitted=False) for i in range(count)])
    assert figure.get_figwidth() == width
    assert width == (COLUMN if count <= 3 else PAGE)
    assert len(figure.axes) == count + 1
    figure.draw_without_rendering()
    titles = [axes.title.get_window_extent() for axes in figure.axes[:count]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))
    assert len({line.get_color() for line in figure.axes[-1].lines if len(line.get_xdata()) > 2}) == count


def test_maps_share_scale_and_extent(two):
    images = [axes.images[0] for axes in two.axes[:2]]
    for image, axes in zip(images, two.axes, strict=False):
        assert isinstance(image.norm, LogNorm)
        assert (image.norm.vmin, image.norm.vmax) == (FLOOR, 1)
        assert image.get_array().max() == pytest.approx(1)
        assert image.get_array().min() >= FLOOR
        # The union of both maps, half a cell beyond the outermost samples, y downwards.
        assert axes.get_xlim() == (-38, 38)
        assert axes.get_ylim() == (38, -38)
    assert images[0].get_extent() == [-31, 31, 31, -31]
    assert two.axes[2].get_xlim() == (-38, 38)
    assert {"gradient", "occlusion", "a layer", "relative to peak", "x (px)", "y (px)"} <= set(texts(two))


def test_maps_carry_the_box_the_ellipses_and_the_centre(two):
    axes = two.axes[0]
    (outline,) = named(axes, "TRF")
    assert isinstance(outline, Rectangle)
    # Half a px beyond the inclusive pixels, around them.
    assert outline.get_bbox().bounds == (-17, -21, 34, 42)
    (half,), (double,) = named(axes, "half maximum"), named(axes, "2 sigma")
    assert isinstance(half, Ellipse)
    assert half.center == pytest.approx((2, -1), abs=1e-6)
    at_half = math.sqrt(2 * math.log(2))
    assert (half.width, half.height) == pytest.approx((16 * at_half, 10 * at_half))
    assert (double.width, double.height) == pytest.approx((32, 20))
    assert half.angle == pytest.approx(0, abs=1e-6)
    assert named(axes, "center")[0].get_xydata().tolist() == [[0, 0]]
    assert named(axes, "centroid")[0].get_xydata()[0] == pytest.approx((2, -1), abs=1e-2)


def test_the_section_shows_data_fit_and_edges(two):
    section = two.axes[2]
    assert sorted(line.get_xdata()[0] for line in named(section, "TRF")) == [-17, 17]
    data, fit, *_ = section.get_lines()
    assert data.get_label() == "gradient"
    sigma = math.sqrt((8**2 + 5**2) / 2)
    assert fit.get_label() == f"Gaussian fit,\nhalf-width {math.sqrt(2 * math.log(2)) * sigma:.3g}, σ {sigma:.3g} px"
    # A section is relative to its own peak, so that of the row's distance from the map's peak nothing is left.
    at_centre = math.exp(-((2 / 8) ** 2) / 2)
    assert np.interp(0, fit.get_xdata(), fit.get_ydata()) == pytest.approx(at_centre, rel=2e-2)
    assert np.interp(0, data.get_xdata(), data.get_ydata()) == pytest.approx(at_centre, rel=2e-2)
    assert {"TRF", "fit: half maximum", "fit: 2σ", "centroid"} <= set(texts(two))


def test_a_bare_map_is_enough():
    figure = draw_erf([panel(box=None, fitted=False)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gradient"]
    for gid in ("TRF", "half maximum", "2 sigma", "centroid", "notes"):
        assert not named(figure.axes[0], gid)


def test_an_infinite_box_is_noted_and_not_drawn_as_a_line(tmp_path):
    everywhere = (-math.inf, math.inf, -math.inf, math.inf)
    figure = draw_erf([panel(box=everywhere, notes=("clipped",))])
    assert named(figure.axes[0], "notes")[0].get_text() == "clipped\nTRF beyond view"
    assert not named(figure.axes[1], "TRF")
    assert "TRF" not in [text.get_text() for text in figure.legends[0].get_texts()]
    assert all(path.stat().st_size > 1000 for path in save(figure, tmp_path / "infinite"))


def test_a_box_with_one_infinite_side_keeps_its_finite_edges():
    figure = draw_erf([panel(box=(-math.inf, 10, -5, math.inf))])
    left, top, width, height = named(figure.axes[0], "TRF")[0].get_bbox().bounds
    assert left == -5.5
    assert top + height == 10.5
    assert left + width > 31
    assert top < -31
    assert [line.get_xdata()[0] for line in named(figure.axes[1], "TRF")] == [-5.5]
    assert not named(figure.axes[0], "notes")


def test_a_strip_is_shown_with_room_around_it():
    strip = panel(fitted=False).map.isel(y=slice(25, 37))
    figure = draw_erf([ErfPanel("gradient", strip)])
    bottom, top = figure.axes[0].get_ylim()
    left, right = figure.axes[0].get_xlim()
    assert (bottom - top) / (right - left) == pytest.approx(0.75)


def test_long_notes_are_wrapped():
    figure = draw_erf([panel(notes=("a long note that needs several lines of a narrow map",)), panel("occlusion")])
    assert named(figure.axes[0], "notes")[0].get_text().count("\n") == 2


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_cut_off_and_no_text_overlaps(count):
    figure = draw_erf([panel("gradient"), panel("occlusion", 36, 4.0)][:count], title="resnet50, layer3")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    shown = [t for t in figure.findobj(mpl.text.Text) if t.get_text() and t.get_visible()]
    boxes = {
        t.get_text(): t.get_window_extent(renderer) for t in shown if t.axes is None or not _is_tick_out_of_view(t)
    }
    for text, box in boxes.items():
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        assert box.y1 <= figure.bbox.y1 + 1, text
    words = [box.shrunk(0.98, 0.9) for box in boxes.values()]
    clashes = [(i, j) for i in range(len(words)) for j in range(i) if words[i].overlaps(words[j])]
    assert not clashes, [(list(boxes)[i], list(boxes)[j]) for i, j in clashes]


def _is_tick_out_of_view(text) -> bool:
    """Axis ticks beyond the limits keep their label objects, but are not drawn."""
    axes = text.axes
    ticks = {*axes.xaxis.get_ticklabels(which="both"), *axes.yaxis.get_ticklabels(which="both")}
    if text not in ticks:
        return False
    x, y = text.get_position()
    along_x = text in set(axes.xaxis.get_ticklabels(which="both"))
    low, high = sorted(axes.get_xlim() if along_x else axes.get_ylim())
    return not low <= (x if along_x else y) <= high


def pdf_text(path: Path) -> bytes:
    """The PDF with its compressed streams opened."""
    raw = path.read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", raw, re.DOTALL)
    opened = []
    for stream in streams:
        try:
            opened.append(zlib.decompress(stream))
        except zlib.error:
            continue
    return raw + b"".join(opened)


def test_pdf_embeds_truetype_fonts_at_column_width(two, tmp_path):
    pdf, png = save(two, tmp_path / "figures" / "layer4.1")
    assert (pdf.name, png.name) == ("layer4.1.pdf", "layer4.1.png")
    text = pdf_text(pdf)
    assert b"/Type3" not in text
    assert b"/FontFile2" in text, "TrueType, as font type 42 embeds it"
    assert b"/CIDFontType2" in text
    assert b"CreationDate" not in text
    (width,) = {float(w) for w in re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", text)}
    assert width == pytest.approx(3.25 * 72)
    assert np.asarray(mpl.image.imread(png)).shape[1] == 975
    assert sorted(p.name for p in pdf.parent.iterdir()) == ["layer4.1.pdf", "layer4.1.png"]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_erf_figure import panel
from erflab.figures import draw_erf, save
save(draw_erf([panel(), panel("occlusion", 36, 4.0)]), Path(sys.argv[2]))
"""


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    panels = [panel(), panel("occlusion", 36, 4.0)]
    figure = draw_erf(panels)
    first = [path.read_bytes() for path in save(figure, tmp_path / "first")]
    assert [path.read_bytes() for path in save(figure, tmp_path / "again")] == first
    assert [path.read_bytes() for path in save(draw_erf(panels), tmp_path / "anew")] == first
    # In another process, where strings hash differently.
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path / "elsewhere")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "7"}, cwd=Path(__file__).parents[2])
    assert [(tmp_path / f"elsewhere.{kind}").read_bytes() for kind in ("pdf", "png")] == first


def test_a_failed_save_leaves_the_old_file(two, tmp_path, monkeypatch):
    pdf, _ = save(two, tmp_path / "figure")
    before = pdf.read_bytes()

    def fail(path, **_):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(two, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(two, tmp_path / "figure")
    assert pdf.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_users_settings_neither_enter_nor_change():
    with mpl.rc_context({"font.size": 20, "axes.titlesize": 30}):
        figure = draw_erf([panel()])
        assert mpl.rcParams["font.size"] == 20
        assert figure.axes[0].title.get_fontsize() == 8
    with pytest.raises(ZeroDivisionError), paper():
        1 / 0  # noqa: B018
    assert mpl.rcParams["pdf.fonttype"] == mpl.rcParamsDefault["pdf.fonttype"]


def test_pyplot_is_not_needed():
    code = "import sys, erflab.figures; assert not {'matplotlib.pyplot', 'torch', 'captum', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_nothing_to_draw_is_refused():
    with pytest.raises(MeasurementError, match="0 panels to draw; give at least one map"):
        draw_erf([])
    dead = panel(fitted=False).map * 0
    with pytest.raises(
        MeasurementError, match=r"map 'dead' has no positive value \(peak 0\); there is nothing to draw"
    ):
        draw_erf([ErfPanel("dead", dead)])
    with pytest.raises(MeasurementError, match="non-finite values"):
        draw_erf([ErfPanel("broken", dead + math.nan)])


def test_the_section_is_the_mean_over_a_strip_relative_to_its_own_peak():
    board = panel()
    rows = np.arange(board.map.sizes["y"])[:, None] + np.arange(board.map.sizes["x"])
    striped = dataclasses.replace(board, map=board.map * (1 + rows % 3))
    for strip in (1.0, 6.0):
        drawn = draw_erf([striped], strip=strip).axes[1].get_lines()[0].get_ydata()
        expected = section(striped.map, width=strip)
        np.testing.assert_allclose(drawn, expected / expected.max())
