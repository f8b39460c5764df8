"""The input size at which a field is seen whole."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import nn

from erflab.config import TargetConfig
from erflab.theory.selection import target_fields


def smallest_unclipped_size(
    model: nn.Module,
    target: TargetConfig,
    *,
    fallback: tuple[int, int],
    limit: int,
    channels: int | None = None,
) -> tuple[int, int] | None:
    """The smallest square input, a multiple of the total stride, in which the centre units' fields lie unclipped.

    None if there is none up to `limit` px, or if a field is global or unknown. `fallback` is a size the model takes.
    """
    centers = replace(target, unit="center")
    fields = target_fields(model, centers, fallback, channels)
    sides = [s for field in fields for s in field.size]
    if any(s is None or math.isinf(s) for s in sides) or any(field.is_global for field in fields):
        return None
    stride = math.lcm(*(s for field in fields for s in field.total_stride))
    for side in range(math.ceil(max(s for s in sides if s) / stride) * stride, limit + 1, stride):
        found = target_fields(model, centers, (side, side), channels)
        if all(field.is_clipped() is False for field in found):
            return side, side
    return None
