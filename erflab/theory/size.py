"""The input size at which a field is seen whole."""

from __future__ import annotations

import math

from torch import nn

from erflab.config import TargetConfig
from erflab.theory.field import TheoreticalField, theoretical_field


def smallest_unclipped_size(
    model: nn.Module,
    layer: str | None,
    *,
    fallback: tuple[int, int],
    limit: int,
    channels: int | None = None,
    target: TargetConfig | None = None,
) -> tuple[int, int] | None:
    """The smallest square input, a multiple of the total stride, in which the centre unit's field lies unclipped.

    None if there is none up to `limit` px, or if the field is global or unknown. `fallback` is a size the model takes.
    """
    spec = target or TargetConfig()

    def at(size: tuple[int, int]) -> TheoreticalField:
        return theoretical_field(model, layer, size, channels=channels, layout=spec.layout, grid=spec.grid)

    field = at(fallback)
    sides = [s for s in field.size if s is not None and math.isfinite(s)]
    if len(sides) < len(field.size) or field.is_global:
        return None
    stride = math.lcm(*field.total_stride)
    for side in range(math.ceil(max(sides) / stride) * stride, limit + 1, stride):
        if at((side, side)).is_clipped() is False:
            return side, side
    return None
