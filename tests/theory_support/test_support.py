"""The exact set of pixels that a unit sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torchvision
from random_nets import dependence, positive
from torch import Tensor, nn
from torch.nn import functional

import erflab
from erflab.errors import TheoryError, UnknownOperationError
from erflab.theory.box_rules.call import Call
from erflab.theory.graph import Node, Value
from erflab.theory.rules import RULES
from erflab.theory.support import as_support, rule_for
from erflab.theory.support_rules.back import Back, Marks


def lines(pixels: list[str]) -> Tensor:
    return torch.tensor([[c == "#" for c in line] for line in pixels])


class Applied(nn.Module):
    """A function between two 3x3 convolutions of a 2-channel image."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.function = nn.Conv2d(2, 4, 3, padding=1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.before(x))


# --- the set as an object -------------------------------------------------------------------------------------------------


def test_a_plus_is_no_product_and_has_holes() -> None:
    support = as_support(lines(["....", ".#..", "###.", ".#.."]), (10, 20))
    assert support.box == (11, 13, 20, 22)
    assert (support.count, support.area, support.density) == (5, 9, 5 / 9)
    assert support.holes
    assert not support.is_product
    assert support.offsets(0) == (11, 12, 13)
    assert support.pixels.dims == ("y", "x")
    assert support.pixels.sel(y=12, x=20)


def test_a_grid_with_gaps_is_a_product() -> None:
    support = as_support(lines(["#.#", "...", "#.#"]))
    assert support.holes
    assert support.is_product
    assert support.offsets(1) == (0, 2)


def test_the_empty_set() -> None:
    support = as_support(torch.zeros(3, 3, dtype=torch.bool))
    assert support.box is None
    assert (support.count, support.area, support.holes, support.is_product) == (0, 0, False, True)
    assert math.isnan(support.density)


# --- exact, operation by operation ------------------------------------------------------------------------------------------


def assigned(x: Tensor, to: slice | list[int], origin: slice | list[int]) -> Tensor:
    result = x.clone()
    result[:, 1:, to] = x[:, 1:, origin]
    return result


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "fold of unfold": lambda x: functional.fold(functional.unfold(x, 3, dilation=2, padding=1), x.shape[2:], 3, 2, 1),
    "rows joined by a softmax": lambda x: x.softmax(3),
    "column means": lambda x: x - x.mean(2, keepdim=True),
    "cumulative sum": lambda x: x.cumsum(2),
    "advanced index": lambda x: x[:, [3, 0]][:, :, [5, 2, 2, 7]],
    "assignment through a slice": lambda x: assigned(x, slice(1, 3), slice(4, 6)),
    "assignment by index": lambda x: assigned(x, [7, 1], [4, 0]),
    "sum by index": lambda x: x.index_add(2, torch.tensor([7, 1, 1]), x[:, :, 4:7]),
    "copy by index": lambda x: x.index_copy(3, torch.tensor([2]), x[:, :, :, :1]),
    "lower triangle": lambda x: x.tril(),
    "choice by a mask": lambda x: torch.where(torch.eye(x.shape[2], x.shape[3], dtype=torch.bool), x, x.flip(2)),
    "matrix product": lambda x: x @ x.transpose(2, 3),
    "layer norm over channels": lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    "adaptive pooling": lambda x: functional.adaptive_avg_pool2d(x, (3, 5)),
    "bicubic": lambda x: functional.interpolate(x, scale_factor=1.5, mode="bicubic"),
    "bilinear with corners": lambda x: functional.interpolate(x, (13, 17), mode="bilinear", align_corners=True),
    "antialiased": lambda x: functional.interpolate(x, (5, 7), mode="bilinear", antialias=True),
    "three dimensions": lambda x: functional.conv3d(x[:, None], torch.ones(1, 1, 2, 2, 1, dtype=x.dtype))[:, 0],
    "gated halves": lambda x: functional.glu(x, 1),
    "windows": lambda x: x.unfold(2, 4, 2).amax(-1),
    "repeat": lambda x: x.repeat(1, 1, 2, 1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_against_the_gradient(name: str) -> None:
    """The set holds every pixel with a gradient; at random weights and pixels a gradient vanishes nowhere else."""
    torch.manual_seed(0)
    net = Applied(OPERATIONS[name]).double().eval().requires_grad_(False)
    field = erflab.theoretical_field(net, "(output)", (10, 10), channels=2, layout="nchw")
    image = torch.randn(8, 2, 10, 10, dtype=torch.float64, requires_grad=True)
    for unit in {(0, 0), (2, 3), tuple(n - 1 for n in field.grid)}:
        output = net(image)[:, :, unit[0], unit[1]]
        (gradient,) = torch.autograd.grad((output * torch.randn_like(output)).sum(), image)
        seen = (gradient.abs() > 1e-13 * gradient.abs().max()).any(0).any(0)
        assert (field.support(unit).pixels.values == seen.numpy()).all(), unit


def test_channels_are_followed() -> None:
    """The first half of the channels sees one pixel, the second nine; a unit of one half alone has its own set."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.point, self.wide = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            left, right = (
                torch.cat([self.point(x), self.wide(x)], 1)
                .unflatten(1, (2, 2))
                .transpose(1, 2)
                .flatten(1, 2)
                .split(2, 1)
            )
            return left[:, :1] if self.first else right[:, 1:] + left[:, 1:]

    net = Halves()
    counts = []
    for first in (True, False):
        net.first = first
        counts.append(erflab.theoretical_field(net, "(output)", (9, 9), channels=2).support((4, 4)).count)
    assert counts == [1, 9]


def test_a_mask_of_minus_infinity_blocks_and_a_finite_one_does_not() -> None:
    class Windowed(nn.Module):
        """Attention of the rows in each half of the image, by a mask."""

        def __init__(self, fill: float) -> None:
            super().__init__()
            half = torch.arange(8) // 4
            self.register_buffer("mask", torch.where(half[:, None] == half[None], 0.0, fill))

        def forward(self, x: Tensor) -> Tensor:
            scores = x.transpose(2, 3) @ x  # [B, C, W, W]
            return x @ (scores + self.mask).softmax(-1).transpose(2, 3)

    boxes = []
    for fill in (-math.inf, -100.0):
        field = erflab.theoretical_field(Windowed(fill), "(output)", (8, 8), channels=2, layout="nchw")
        boxes.append(field.support((3, 1)).box)
    assert boxes == [(0, 7, 0, 3), (0, 7, 0, 7)]


def test_the_local_set_leaves_the_gate_out() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(2, 4, 3, padding=1)
            self.norm, self.gate = (
                nn.GroupNorm(2, 4),
                nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid()),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.body(x))
            return self.body(x[:, :2] * self.gate(x)[:, :2])

    field = erflab.theoretical_field(positive(Gated()), "(output)", (20, 20), channels=2)
    assert field.support((9, 9)).count == 400
    assert field.local.support((9, 9)).box == (7, 11, 7, 11)
    assert field.local.support((9, 9), clipped=False).count == 25
    with pytest.raises(TheoryError, match=r"no unclipped set: its field is global, by norm.* or for \.local"):
        field.support((9, 9), clipped=False)


def test_units_at_the_border() -> None:
    """Clipped to the image, and beyond it."""
    net = positive(nn.Sequential(nn.Conv2d(2, 2, 3, padding=2, dilation=2), nn.Conv2d(2, 2, 3, padding=1)).double())
    field = erflab.theoretical_field(net, "1", (12, 12))
    assert field.support("corner", clipped=False).box == field.box("corner") == (-3, 3, -3, 3)
    assert (field.support("corner").pixels.values == dependence(net, (12, 12), (0, 0)).numpy()).all()
    assert field.support("corner").box == (0, 3, 0, 3)


def test_tokens_and_channels_last() -> None:
    class Patches(nn.Module):
        def __init__(self, *, tokens: bool) -> None:
            super().__init__()
            self.embed, self.tokens = nn.Conv2d(3, 4, 4, stride=4), tokens

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            return x.flatten(2).transpose(1, 2) if self.tokens else x.permute(0, 2, 3, 1)

    for tokens in (True, False):
        field = erflab.theoretical_field(Patches(tokens=tokens), "(output)", (32, 32))
        assert field.layout.kind == ("tokens" if tokens else "nhwc")
        assert field.support((1, 2)).box == (4, 7, 8, 11)


def test_every_operation_with_boxes_has_sets() -> None:
    for op in RULES:
        if op.split(".")[0] not in ("aten", "torchvision"):
            continue  # a user's own
        assert rule_for(Node(op, (), {}, (), "")), op


def test_an_operation_without_a_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "aten.convolution", replace(RULES["aten.convolution"], support=None))
    field = erflab.theoretical_field(nn.Conv2d(3, 3, 3), "(output)", (8, 8))
    with pytest.raises(UnknownOperationError, match=r"no support rule for operation 'aten.convolution', met in module"):
        field.support()


def test_a_users_own_operation() -> None:
    """Known by its box rule alone, it has boxes and no sets; with a support rule it has both."""

    @torch.library.custom_op("erflab_test::mirrored", mutates_args=())
    def mirrored(x: Tensor) -> Tensor:
        return x + x.flip(3)

    @mirrored.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return mirrored(x)

    def box_rule(call: Call, x: Value) -> Tensor:
        return torch.minimum(call.edge(x), call.edge(x).flip(3))

    def support_rule(back: Back, x: Value) -> Marks:
        yield x, back.mark
        yield x, back.mark.flip(3)

    name = "erflab_test.mirrored"
    try:
        erflab.register_rule(name, box=box_rule)
        field = erflab.theoretical_field(Net(), None, (8, 8))
        with pytest.raises(UnknownOperationError, match=rf"no support rule for operation '{name}'.*register_rule"):
            field.support((2, 1))
        erflab.register_rule(name, box=box_rule, support=support_rule, replace=True)
        support = field.support((2, 1))
        assert (support.box, support.count) == ((2, 2, 1, 6), 2)
        assert field.clipped_box((2, 1)) == support.box
    finally:
        RULES.pop(name, None)


def test_the_local_field_at_the_border_of_an_image_that_fields_nearly_cover() -> None:
    """At 224 px the units of EfficientNet's stage 5 see 339 px: the gates are told from windows at a larger size."""
    field = erflab.theoretical_field(torchvision.models.efficientnet_b0(weights=None), "features.5").local
    assert field.box("corner") == (-169, 169, -169, 169)
    assert field.clipped_box("corner") == field.support("corner").box == (0, 169, 0, 169)
