"""Theoretical fields against values published or measured elsewhere: each case of `trf_cases.json` names its source."""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import erflab
from erflab.theory.field import TheoreticalField
from erflab.theory.layers import theoretical_fields

CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads(Path(__file__).with_name("trf_cases.json").read_text(encoding="utf-8"))
}
GRAPHS = [name for name, case in CASES.items() if "graph" in case]
MODELS = [name for name, case in CASES.items() if "model" in case]
SIZES = {"gr_net3_misaligned": 8, "rfa_vgg16": 224}  # px; the first fits together at this size only
UNBOUNDED = ("gr_net3_misaligned", "se_gate_global")  # without an unclipped set: by the size, by the gate
CHANNELS = 2


class Join(nn.Module):
    """add, mul or cat as a module, so that it has a row of its own."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.op = op

    def forward(self, *operands: Tensor) -> Tensor:
        if self.op == "cat":
            return torch.cat(operands, 1)
        result = operands[0]
        for operand in operands[1:]:
            result = result + operand if self.op == "add" else result * operand
        return result


class GraphNet(nn.Module):
    """A network built from a case's list of operations."""

    def __init__(self, graph: list[dict[str, Any]], output: str) -> None:
        super().__init__()
        self.graph, self.result = graph, output
        channels = {"x": CHANNELS}
        for step in graph:
            name = step["id"]
            self.add_module(name, operation(step, channels[step["in"][0]]))
            channels[name] = CHANNELS if step["op"] != "cat" else sum(channels[i] for i in step["in"])

    def forward(self, x: Tensor) -> Tensor:
        known = {"x": x}
        for step in self.graph:
            known[step["id"]] = getattr(self, step["id"])(*(known[name] for name in step["in"]))
        return known[self.result]


def operation(step: dict[str, Any], channels: int) -> nn.Module:
    def setting(key: str, default: int) -> Any:
        value = step.get(key, default)
        return tuple(value) if isinstance(value, list) else value

    op, window = step["op"], (setting("k", 1), setting("s", 1), setting("p", 0))
    if op == "conv":
        return nn.Conv2d(channels, CHANNELS, *window, dilation=setting("d", 1))
    if op == "convT":
        return nn.ConvTranspose2d(channels, CHANNELS, *window)
    if op == "maxpool":
        return nn.MaxPool2d(*window)
    if op == "pad":
        return nn.ZeroPad2d([step["pad"][side] for side in "lrtb"])
    return {"relu": nn.ReLU(), "gap": nn.AdaptiveAvgPool2d(1)}.get(op) or Join(op)


def built(name: str) -> GraphNet:
    return GraphNet(CASES[name]["graph"], CASES[name]["output"]).eval()


def field_of(name: str) -> TheoreticalField:
    size = SIZES.get(name, 64)
    return erflab.theoretical_field(built(name), CASES[name]["output"], (size, size))


def as_numbers(values: list[Any]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def check_numbers(field: TheoreticalField, expected: dict[str, Any]) -> None:
    assert field.aligned is expected["aligned"]
    for key, found in (("rf", field.size), ("stride", field.stride), ("padding", field.padding)):
        if expected.get(key) is not None:
            assert found == as_numbers(expected[key]), key
    if "local_path_rf" in expected:
        assert field.is_global
        assert field.causes
        assert field.local.size == as_numbers(expected["local_path_rf"])
        assert field.local.aligned
    for key, found in (("local_path_stride", field.local.stride), ("local_path_padding", field.local.padding)):
        if key in expected:
            assert found == as_numbers(expected[key]), key


@pytest.mark.parametrize("name", GRAPHS)
def test_size_stride_padding_alignment(name: str) -> None:
    check_numbers(field_of(name), CASES[name]["expected"])


@pytest.mark.parametrize("name", [n for n in GRAPHS if n not in UNBOUNDED])
def test_sets(name: str) -> None:
    expected = CASES[name]["expected"]
    support = field_of(name).support(clipped=False)
    if "holes" in expected:
        assert support.holes is expected["holes"]
    if "filled" in expected:
        assert (support.count, support.area) == (expected["filled"], expected["total"])
        assert not support.is_product  # the note says: a plus
    if "hole_fraction" in expected:
        assert 1 - support.density == pytest.approx(expected["hole_fraction"], abs=5e-6)
    if "per_axis_offsets" in expected:
        for axis in (0, 1):
            rows = support.offsets(axis)
            first = expected["per_axis_offsets"][0]
            assert [r - rows[0] + first for r in rows] == expected["per_axis_offsets"]
        assert support.is_product


def test_the_first_units_interval() -> None:
    box = field_of("distill_fig_two_layer").box("corner")
    assert box is not None
    assert list(box[:2]) == list(box[2:]) == CASES["distill_fig_two_layer"]["expected"]["first_unit_interval"]


@pytest.mark.parametrize("name", [n for n in GRAPHS if "per_layer_rf" in CASES[n]["expected"]])
def test_every_layer(name: str) -> None:
    size = SIZES.get(name, 64)
    table = theoretical_fields(built(name), (size, size))
    for layer, expected in CASES[name]["expected"]["per_layer_rf"].items():
        assert table[layer].size == (expected, expected), layer


def test_the_smallest_and_the_largest_field_through_two_branches() -> None:
    """The field is that of the longer branch; a network with the shorter branch alone has the smaller one."""
    case = CASES["rfa_two_branch"]
    found = []
    for left_out in ("c3", "c2"):
        graph = [copy.deepcopy(step) for step in case["graph"] if step["id"] != left_out]
        for step in graph:
            step["in"] = [name for name in step["in"] if name != left_out]
        found.append(theoretical_fields(GraphNet(graph, "c5").eval(), (64, 64)))
    whole = theoretical_fields(built("rfa_two_branch"), (64, 64))
    for layer, (smallest, largest) in case["expected"]["per_layer_min_max"].items():
        assert whole[layer].size == (largest, largest)
        if layer not in ("c2", "c3"):
            assert [table[layer].size[0] for table in found] == [smallest, largest]


def test_a_fully_connected_layer_sees_everything() -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = built("rfa_vgg16")
            self.fc = nn.Linear(CHANNELS * 7 * 7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.features(x).flatten(1))

    assert CASES["rfa_vgg16"]["expected"]["then_fc"] == "inf"
    assert theoretical_fields(Classifier(), (224, 224))["fc"].size == (math.inf, math.inf)


def test_the_misaligned_figure() -> None:
    """The article's figure: unit 1 uses 6 samples, unit 2 uses 5."""
    field = field_of("gr_net3_misaligned")
    boxes = [field.clipped_box((unit, unit)) for unit in (1, 2)]
    assert boxes == [(0, 5, 0, 5), (2, 6, 2, 6)]
    assert [field.support((unit, unit)).box for unit in (1, 2)] == boxes
    assert field.stride == (None, None)


def test_upsampling_moves_in_steps() -> None:
    """Stride 1 overall, in steps of 0 and 2 px: the interval depends on the unit's parity."""
    field = field_of("convT_after_stride")
    firsts = [box[0] for unit in range(10, 15) if (box := field.box((unit, unit))) is not None]
    assert {b - a for a, b in itertools.pairwise(firsts)} == {0, 2}


def test_the_tutorials_recursion_is_wrong() -> None:
    assert (
        CASES["tutorial_wrong_recursion"]["expected"]["wrong_answer"] not in field_of("tutorial_wrong_recursion").size
    )


@pytest.mark.parametrize("name", MODELS)
def test_torchvision(name: str) -> None:
    case = CASES[name]
    expected, size = case["expected"], case["min_input"]
    model = getattr(torchvision.models, case["model"].split(":")[1])
    keywords = {"init_weights": False} if "inception" in name else {}
    field = erflab.theoretical_field(model(weights=None, **keywords), None, (size, size))
    check_numbers(field, expected)
    support = field.local.support()
    assert field.local.is_clipped() is False
    assert support.box == field.local.box()
    if "holes" in expected:
        assert (support.holes, support.is_product) == (expected["holes"], expected["set_is_product"])
