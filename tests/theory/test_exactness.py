"""Boxes against exact gradients: inside for every net, equal for nets in which nothing can cancel."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from clipped import clipped_output
from small_nets import NETS

from erflab.theory.check import check_by_gradient


def grid_units(grid: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Both borders, their neighbours and the middle of each axis."""
    return list(product(*(sorted({0, 1, n // 2, n - 2, n - 1} & set(range(n))) for n in grid)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", NETS)
def test_the_gradient_fills_the_clipped_box_of_every_unit(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]()
    field = clipped_output(net, (16, 12))
    for check in check_by_gradient(net, field, grid_units(field.grid), positive=True):
        assert check.outside == 0, check
        assert check.exact, check
