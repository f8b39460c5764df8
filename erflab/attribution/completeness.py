"""Completeness: attributions to all pixels sum to the output's change from the baseline. Where they do not, none is given."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from erflab.attribution.gradient import Selector
from erflab.errors import MeasurementError
from erflab.target import Trunk


def refuse_incomplete(
    trunk: Trunk,
    images: Tensor,
    baseline: Tensor,
    selector: Selector,
    attributions: Float[Tensor, "batch k y x"],
    tolerance: float,
    advice: str,
) -> None:
    """Raise MeasurementError, with `advice`, where an image's attributions miss the output's change by over `tolerance`.

    The gap is |sum a - (s(x) - s(b))| / sum |a|: at least this share of the attribution is wrong. Completeness is proposition 1
    of Sundararajan et al. 2017 (DeepLift's summation to delta). Where all is zero nothing is missing; NaN passes, for
    maps that are not finite have an error of their own.
    """
    with torch.no_grad():
        change = selector(trunk(images)) - selector(trunk(baseline))
    missed = (attributions.sum((1, 2, 3)) - change).abs()
    gap = missed / attributions.abs().sum((1, 2, 3)).clamp(min=torch.finfo(missed.dtype).tiny)
    worst = float(gap.nan_to_num(0.0, 0.0).max())
    if worst > tolerance:
        raise MeasurementError(
            f"the attribution of layer {trunk.layer!r} sums to something else than the output's change from the baseline: "
            f"{worst:.2g} of it is missing or too much, and {tolerance:.2g} is allowed. {advice}"
        )
