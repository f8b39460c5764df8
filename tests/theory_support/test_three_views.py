"""Three views of one truth: the box, the exact set and a float64 gradient with positive weights agree for random networks."""

from __future__ import annotations

import copy
import math

from hypothesis import given, settings
from hypothesis import strategies as st
from random_nets import dependence, hull, networks, summed
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
