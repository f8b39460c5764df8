"""Sizes and falloff of receptive-field maps: arrays in, numbers out."""

from erflab.analysis.agreement import agreement, blurred, joint_agreement, resampled
from erflab.analysis.background import above_floor, floor_share
from erflab.analysis.ellipse import Ellipse
from erflab.analysis.falloff import FLAGS, FalloffFit, fit_falloff
from erflab.analysis.families import FamilyComparison, FamilyRow, compare_families
from erflab.analysis.jackknife import Estimate, GroupedMap, effective_images, jackknife, largest_share
from erflab.analysis.lineshapes import LINE_SHAPES, LineShape, ShapeParameter
from erflab.analysis.metrics import (
    ShareCurve,
    contribution_area,
    contribution_square,
    encircled_energy,
    entropy_area,
    luo_size,
    participation_area,
    radius_at,
    ranked_area,
    share_outside,
)
from erflab.analysis.moments import Moments, moments
from erflab.analysis.profile import RadialProfile, as_density, radial_profile, section, spacing
from erflab.analysis.replknet import replknet_area_ratio
from erflab.analysis.scaling import (
    Coefficient,
    LinearLaw,
    PowerLaw,
    fit_linear,
    fit_power_law,
    quotient,
    replicate_mean,
    replicate_means,
    uniform_variance,
)
from erflab.analysis.sizes import Quantity, Sizes, measure_sizes

__all__ = [
    "FLAGS",
    "LINE_SHAPES",
    "Coefficient",
    "Ellipse",
    "Estimate",
    "FalloffFit",
    "FamilyComparison",
    "FamilyRow",
    "GroupedMap",
    "LineShape",
    "LinearLaw",
    "Moments",
    "PowerLaw",
    "Quantity",
    "RadialProfile",
    "ShapeParameter",
    "ShareCurve",
    "Sizes",
    "above_floor",
    "agreement",
    "as_density",
    "blurred",
    "compare_families",
    "contribution_area",
    "contribution_square",
    "effective_images",
    "encircled_energy",
    "entropy_area",
    "fit_falloff",
    "fit_linear",
    "fit_power_law",
    "floor_share",
    "jackknife",
    "joint_agreement",
    "largest_share",
    "luo_size",
    "measure_sizes",
    "moments",
    "participation_area",
    "quotient",
    "radial_profile",
    "radius_at",
    "ranked_area",
    "replicate_mean",
    "replicate_means",
    "replknet_area_ratio",
    "resampled",
    "section",
    "share_outside",
    "spacing",
    "uniform_variance",
]
