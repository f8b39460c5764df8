"""Completeness: attributions to all pixels sum to the output's change from the baseline. Where they do not, none is given."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from erflab.attribution.gradient import Selector
from erflab.errors import MeasurementError
from erflab.target import Trunk


def completeness_gap(
    trunk: Trunk,
    images: Tensor,
    baseline: Tensor,
    selector: Selector,
    attributions: Float[Tensor, "batch k y x"],
) -> Float[Tensor, " batch"]:
    """|sum a - (s(x) - s(b))| / sum |a| of each image: at least this share of the attribution is wrong.

    Completeness is proposition 1 of Sundararajan et al. 2017 (DeepLift's summation to delta). Zero where all is zero.
    """
    with torch.no_grad():
        change = selector(trunk(images)) - selector(trunk(baseline))
    missed = (attributions.sum((1, 2, 3)) - change).abs()
    return missed / attributions.abs().sum((1, 2, 3)).clamp(min=torch.finfo(missed.dtype).tiny)


def refuse_incomplete(gap: Float[Tensor, " batch"], tolerance: float, subject: str, advice: str) -> None:
    """Raise MeasurementError if an image's gap is above the tolerance. (NaN passes: non-finite maps have their own error.)"""
    worst = float(gap.nan_to_num(0.0, 0.0).max())
    if worst > tolerance:
        raise MeasurementError(
            f"{subject} sums to something else than the output's change from the baseline: {worst:.2g} of it is missing or "
            f"too much, and {tolerance:.2g} is allowed. {advice}"
        )
