"""Sizes and falloff of receptive-field maps: arrays in, numbers out."""

from erflab.analysis.ellipse import Ellipse
from erflab.analysis.falloff import FLAGS, FalloffFit, fit_falloff
from erflab.analysis.families import FamilyComparison, FamilyRow, compare_families
from erflab.analysis.lineshapes import LINE_SHAPES, LineShape, ShapeParameter
from erflab.analysis.metrics import (
    Moments,
    contribution_area,
    contribution_square,
    luo_size,
    moments,
    radius_at,
    share_outside,
)
from erflab.analysis.profile import RadialProfile, as_density, radial_profile, section, spacing

__all__ = [
    "FLAGS",
    "LINE_SHAPES",
    "Ellipse",
    "FalloffFit",
    "FamilyComparison",
    "FamilyRow",
    "LineShape",
    "Moments",
    "RadialProfile",
    "ShapeParameter",
    "as_density",
    "compare_families",
    "contribution_area",
    "contribution_square",
    "fit_falloff",
    "luo_size",
    "moments",
    "radial_profile",
    "radius_at",
    "section",
    "share_outside",
    "spacing",
]
