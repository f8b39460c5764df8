"""What cannot be followed says so."""

from __future__ import annotations

import doctest
import re

import pytest
import torch
from torch import Tensor, nn

import erflab
from erflab.errors import TheoryError, UnknownOperationError
from erflab.theory import rules
from erflab.theory.reading import read_boxes
from erflab.theory.rules import RULES, register_rule
from erflab.theory.trace import trace


@torch.library.custom_op("erflab_test::unknown", mutates_args=())
def unknown(x: Tensor) -> Tensor:
    return x * 2


@unknown.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return unknown(x)


def test_an_unknown_operation_names_itself_its_module_its_shapes_and_the_way_out() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Inner())
    text = r"'erflab_test.unknown', met in module '1' on inputs of shape \[1, 4, \d+, \d+\].*register_rule\('erflab_test.unk"
    with pytest.raises(UnknownOperationError, match=text):
        erflab.theoretical_field(net, input_size=(32, 32))


def test_an_unknown_operation_does_not_matter_before_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Inner())
    assert erflab.theoretical_field(net, "0", (32, 32)).size == (3, 3)


def test_the_example_of_register_rule_runs() -> None:
    try:
        (example,) = doctest.DocTestFinder(recurse=False).find(register_rule, "register_rule", globs={})
        assert len(example.examples) >= 7
        assert doctest.DocTestRunner().run(example).failed == 0
    finally:
        RULES.pop("erflab_doc.add_row_above", None)


def test_register_rule_refuses_a_name_without_a_namespace() -> None:
    with pytest.raises(TheoryError, match=re.escape("'conv' has no namespace; give it as 'namespace.name'")):
        register_rule("conv", box=rules.pointwise)


def test_register_rule_replaces_only_when_told_to() -> None:
    with pytest.raises(TheoryError, match=r"'aten.relu' already has a rule; pass replace=True"):
        register_rule("aten.relu", box=rules.pointwise)
    before = RULES["aten.relu"]
    try:
        register_rule("aten.relu", box=rules.pointwise, replace=True)
    finally:
        RULES["aten.relu"] = before


class Escape(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean()
        number = float(mean) if self.kind == "item" else torch.from_numpy(mean.reshape(1).numpy()).to(x)
        return x * number


@pytest.mark.parametrize("kind", ["item", "numpy"])
def test_values_taken_out_of_reach_are_reported(kind: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Escape(kind))
    field = erflab.theoretical_field(net, input_size=(32, 32))
    assert field.untracked == ("1",)


def test_an_escape_marks_what_runs_after_it_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Escape("item"), nn.Conv2d(4, 4, 3), Escape("numpy"))
    fields = [erflab.theoretical_field(net, f"{k}", (32, 32)).untracked for k in range(4)]
    assert fields == [(), ("1",), ("1",), ("1", "3")]


def test_an_escape_in_one_head_leaves_an_earlier_one_alone() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 2, 3), Escape("item")

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.first(x), self.second(x)

    assert erflab.theoretical_field(Heads(), "first", (32, 32)).untracked == ()
    assert erflab.theoretical_field(Heads(), "second", (32, 32)).untracked == ("second",)


def test_a_write_through_a_strange_view_is_refused() -> None:
    class Strange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.clone()
            y.as_strided((1, 3, 32), (3072, 1024, 33)).mul_(2)
            return y

    with pytest.raises(UnknownOperationError, match=r"aten.mul_ in ''.* through a view that cannot be followed"):
        erflab.theoretical_field(Strange(), input_size=(32, 32))


def test_a_trace_leaves_the_model_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    net.add_module("2", net[0].__class__(4, 4, 1))
    net[2].bias = net[0].bias  # a shared parameter
    before = dict(net.state_dict(keep_vars=True))
    trace(net, (1, 3, 16, 16))
    after = dict(net.state_dict(keep_vars=True))
    assert all(after[name] is tensor for name, tensor in before.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_attention_costs_no_memory_for_pairs_of_positions() -> None:
    """At 512 x 512 positions an edge for every pair would have 7e10 numbers."""

    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            logits = tokens @ tokens.transpose(1, 2)
            return (logits.softmax(-1) @ tokens).transpose(1, 2).unflatten(2, x.shape[2:])

    net = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), Attention())
    graph = trace(net, (1, 3, 2048, 2048))
    boxes = read_boxes(graph, [graph.layers["1", 0]])[graph.layers["1", 0]]
    assert all(len(terms) == 1 and float(terms[0].flatten()[0]) == -torch.inf for terms in boxes.terms)
