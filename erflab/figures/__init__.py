"""Figures: labelled arrays and numbers in, matplotlib figures out."""

from erflab.figures.erf import draw_erf
from erflab.figures.panel import ErfPanel
from erflab.figures.style import paper, save

__all__ = ["ErfPanel", "draw_erf", "paper", "save"]
