"""Figures: labelled arrays and numbers in, matplotlib figures out."""

from erflab.figures.bars import draw_bars
from erflab.figures.comparison import draw_difference, draw_shares
from erflab.figures.convergence import draw_convergence
from erflab.figures.curves import draw_curve
from erflab.figures.depth import DepthPoint, draw_depth
from erflab.figures.erf import draw_erf
from erflab.figures.forest import draw_forest
from erflab.figures.gallery import draw_gallery
from erflab.figures.grid import draw_map_grid, draw_map_row
from erflab.figures.growth import Growth, draw_growth
from erflab.figures.legends import legend_above, legend_below
from erflab.figures.maps import draw_map
from erflab.figures.outlines import draw_box
from erflab.figures.pairs import draw_pair
from erflab.figures.panel import ErfPanel
from erflab.figures.points import draw_points
from erflab.figures.radial import draw_encircled, draw_radial
from erflab.figures.replicates import draw_replicates
from erflab.figures.residual import draw_residual
from erflab.figures.sections import draw_sections
from erflab.figures.spectrum import draw_spectrum
from erflab.figures.style import COLORS, COLUMN, DASHES, PAGE, TEXT, paper, paper_figure, save

__all__ = [
    "COLORS",
    "COLUMN",
    "DASHES",
    "PAGE",
    "TEXT",
    "DepthPoint",
    "ErfPanel",
    "Growth",
    "draw_bars",
    "draw_box",
    "draw_convergence",
    "draw_curve",
    "draw_depth",
    "draw_difference",
    "draw_encircled",
    "draw_erf",
    "draw_forest",
    "draw_gallery",
    "draw_growth",
    "draw_map",
    "draw_map_grid",
    "draw_map_row",
    "draw_pair",
    "draw_points",
    "draw_radial",
    "draw_replicates",
    "draw_residual",
    "draw_sections",
    "draw_shares",
    "draw_spectrum",
    "legend_above",
    "legend_below",
    "paper",
    "paper_figure",
    "save",
]
