"""Three views of one truth: the box, the exact set and a float64 gradient with positive weights agree for random networks."""

from __future__ import annotations

import copy
import math

from hypothesis import given, settings
from hypothesis import strategies as st
from random_nets import Branches, dependence, hull, networks, summed
from torch import nn

import erflab


@settings(max_examples=120)
@given(networks(), st.data())
def test_box_set_and_gradient(network: tuple[nn.Module, tuple[int, int]], data: st.DataObject) -> None:
    net, size = network
    field = erflab.theoretical_field(net, f"{len(net) - 1}", size, channels=2)
    truth = summed(copy.deepcopy(net))
    rows, columns = field.grid
    drawn = (data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1)))
    for unit in {(0, 0), (rows - 1, 0), (rows - 1, columns - 1), drawn, field.unit}:
        seen = dependence(truth, size, unit)
        support = field.support(unit)
        assert (support.pixels.values == seen.numpy()).all()
        assert support.box == hull(seen)
        assert field.clipped_box(unit) == hull(seen)


@settings(max_examples=40)
@given(networks(stages=4, sparse=True), st.data())
def test_where_units_see_nothing_the_set_is_exact_and_the_box_holds_it(
    network: tuple[nn.Module, tuple[int, int]], data: st.DataObject
) -> None:
    net, size = network
    field = erflab.theoretical_field(net, f"{len(net) - 1}", size, channels=2)
    truth = summed(copy.deepcopy(net))
    drawn = tuple(data.draw(st.integers(0, n - 1)) for n in field.grid)
    for unit in {(0, 0), drawn, field.unit}:
        seen = dependence(truth, size, unit)
        assert (field.support(unit).pixels.values == seen.numpy()).all()
        inner, outer = hull(seen), field.clipped_box(unit)
        if inner is not None:
            assert outer is not None
            assert all(a <= b for a, b in zip(outer[::2], inner[::2], strict=True))
            assert all(a >= b for a, b in zip(outer[1::2], inner[1::2], strict=True))


def test_a_unit_that_is_empty_by_its_rows_may_widen_a_box_by_its_columns() -> None:
    """Row 0 of the first branch lies in the padding; its columns are still in the box of the sum."""
    wide = nn.Sequential(nn.ZeroPad2d((0, 0, 1, 0)), nn.Conv2d(2, 2, (1, 3), padding=(0, 1)))
    narrow = nn.Sequential(nn.ZeroPad2d((0, 0, 0, 1)), nn.Conv2d(2, 2, 1))
    net = nn.Sequential(Branches(wide, narrow, add=True), nn.Identity())
    field = erflab.theoretical_field(net, "1", (9, 9))
    assert field.support((0, 4)).box == (0, 0, 4, 4)
    assert field.clipped_box((0, 4)) == (0, 0, 3, 5)


@settings(max_examples=40)
@given(networks(stages=4), st.data())
def test_unclipped_box_and_set(network: tuple[nn.Module, tuple[int, int]], data: st.DataObject) -> None:
    net, size = network
    field = erflab.theoretical_field(net, f"{len(net) - 1}", size, channels=2)
    unit = tuple(data.draw(st.integers(0, n - 1)) for n in field.grid)
    whole = field.box(unit)
    if field.pattern is None or whole is None:
        return
    support = field.support(unit, clipped=False)
    assert support.box == whole
    assert math.isclose(support.density * support.area, support.count)
