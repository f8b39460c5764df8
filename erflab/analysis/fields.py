"""The fields of one measurement against each other: gradient, occlusion, theory, prediction."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from erflab.analysis.agreement import joint_agreement
from erflab.analysis.jackknife import Estimate, GroupedMap
from erflab.analysis.sizes import Quantity, Sizes

_THEORY = {
    "area_share": "area_0.9545_over_trf",
    "square_ratio": "square_0.9545_over_trf",
    "share_outside": "share_outside_trf",
}


def against_theory(sizes: Sizes) -> dict[str, Quantity]:
    """How much of the theoretical field a map uses.

    area_share: the area that holds 95.45 % of the map, over the field's; square_ratio: the side of the centred square that
    does, over the field's; share_outside: the share of the map beyond the field.
    """
    return {name: sizes.quantities[source] for name, source in _THEORY.items()}


def gradient_against_occlusion(
    gradient: GroupedMap, occlusion: GroupedMap, patch: int
) -> dict[str, dict[str, Quantity]]:
    """The two maps as they are, and the gradient's blurred by the patch, which occlusion cannot help (see `blurred`)."""
    return {
        "gradient_vs_occlusion": _quantities(joint_agreement(gradient, occlusion)),
        "blurred_gradient_vs_occlusion": _quantities(joint_agreement(gradient, occlusion, patch)),
    }


def predicted_against(
    predicted: xr.DataArray, measured: Mapping[str, GroupedMap], patch: int | None
) -> dict[str, dict[str, Quantity]]:
    """A predicted energy map against each measured one, as predicted_vs_METHOD; occlusion sees it blurred by its patch."""
    patches = {"occlusion": patch}
    return {
        f"predicted_vs_{name}": _quantities(joint_agreement(predicted, map, patches.get(name)))
        for name, map in measured.items()
    }


def _quantities(estimates: Mapping[str, Estimate]) -> dict[str, Quantity]:
    return {n: Quantity.of(e, "px" if n == "radial_earth_mover" else "1") for n, e in estimates.items()}
