"""The pattern that units repeat."""

from __future__ import annotations

import math

import torch

from erflab.theory.pattern import find_pattern
from erflab.theory.units import UnitBoxes


def test_fields_that_are_unbounded_for_some_units_only_are_no_pattern() -> None:
    """As by attention over masked tokens: the last units' fields end in the image, those before them do not."""
    first = torch.tensor([0.0] * 3 + [-math.inf] * 5)
    last = torch.tensor([-math.inf] * 6 + [-63.0] * 2)  # minus the last pixel
    assert find_pattern(UnitBoxes((first, last)), (64,)) is None


def test_a_pattern_tells_size_stride_and_padding() -> None:
    """Nearest upsampling by 2 of a stride of 8 and a kernel of 3: pairs of units share a box."""
    first = torch.arange(32).div(2, rounding_mode="floor") * 8.0 - 1
    found = find_pattern(UnitBoxes((first, -first - 2)), (128,))
    assert found is not None
    assert (found.size, found.stride, found.padding, found.period, found.shift) == ((3,), (None,), (None,), (2,), (8,))
    assert found.box((-3,)) == (-17, -15)
