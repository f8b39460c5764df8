"""Sizes and falloff of receptive-field maps: arrays in, numbers out."""

from erflab.analysis.ellipse import Ellipse
from erflab.analysis.falloff import FLAGS, FalloffFit, fit_falloff
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
from erflab.analysis.scaling import LinearLaw, PowerLaw, fit_linear, fit_power_law, replicate_means, uniform_variance

__all__ = [
    "FLAGS",
    "LINE_SHAPES",
    "Ellipse",
    "FalloffFit",
    "LineShape",
    "LinearLaw",
    "Moments",
    "PowerLaw",
    "RadialProfile",
    "ShapeParameter",
    "as_density",
    "contribution_area",
    "contribution_square",
    "fit_falloff",
    "fit_linear",
    "fit_power_law",
    "luo_size",
    "moments",
    "radial_profile",
    "radius_at",
    "replicate_means",
    "section",
    "share_outside",
    "spacing",
    "uniform_variance",
]
