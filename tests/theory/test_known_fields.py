"""Fields of well-known networks, and of small ones worked out by hand."""

from __future__ import annotations

import math

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import erflab


def torchvision_model(name: str) -> nn.Module:
    settings = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):  # only the structure counts
        return torchvision.models.get_model(name, weights=None, **settings)


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("alexnet", "features", 195),
        ("vgg16", "features", 212),
        ("resnet18", "layer4", 435),
        ("resnet50", "layer4", 427),
        ("resnet152", "layer4", 1451),
        ("inception_v3", "Mixed_7c", 1311),
        ("densenet121", "features", 2071),
        ("convnext_tiny", "features", 1688),
    ],
)
def test_known_sizes(name: str, layer: str, size: int) -> None:
    field = erflab.theoretical_field(torchvision_model(name), layer)
    assert field.size == (size, size)
    assert field.stride == (32, 32)
    assert field.aligned


@pytest.mark.parametrize("input_size", [(96, 96), (227, 227), (256, 320)])
def test_the_field_does_not_depend_on_the_input_size(input_size: tuple[int, int]) -> None:
    field = erflab.theoretical_field(torchvision_model("resnet50"), "layer4", input_size)
    assert (field.size, field.stride, field.padding) == ((427, 427), (32, 32), (213, 213))


def test_rows_that_a_pool_leaves_over_are_seen_by_no_unit() -> None:
    """At 227 px conv1 of AlexNet has 56 rows, of which the pool reads 55: the last of them ends at 54 * 4 - 2 + 10 = 224."""
    field = erflab.theoretical_field(torchvision_model("alexnet"), "features", (227, 227))
    assert field.clipped_box((field.grid[0] - 1, field.grid[1] - 1)) == (94, 224, 94, 224)


def test_the_published_boxes_of_fcn() -> None:
    model = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None)
    assert erflab.theoretical_field(model).size == (451, 451)


def test_squeeze_and_excitation_is_global_and_cut_in_the_local_field() -> None:
    field = erflab.theoretical_field(torchvision_model("efficientnet_b0"), "features.2")
    assert field.is_global
    assert field.causes[0].startswith("features.1.0.block.1")
    assert field.local.size == (19, 19)


def test_swin_reports_its_windows() -> None:
    field = erflab.theoretical_field(
        torchvision_model("swin_t"), "features.1.0"
    )  # unshifted 7 x 7 windows of 4 px patches
    assert not field.is_global
    assert not field.aligned
    assert field.size == (28, 28)
    assert field.box((3, 3)) == field.box((0, 6)) == (0, 27, 0, 27)
    assert field.box((7, 13)) == (28, 55, 28, 55)


def test_shifted_windows_grow_the_field_and_wrap_round_at_the_borders_only() -> None:
    field = erflab.theoretical_field(torchvision_model("swin_t"), "features.1.1")
    assert (field.size, field.is_global, field.causes) == ((56, 56), False, ())
    # Token 10 is in the shifted window of tokens 10 to 16, which lie in the windows 7 to 13 and 14 to 20, of 4 px each.
    assert field.box((10, 10)) == (28, 83, 28, 83)


def test_a_vision_transformer_is_global_by_its_attention() -> None:
    model = timm.create_model("test_vit")
    field = erflab.theoretical_field(model, "blocks.0", (160, 160))
    assert field.is_global
    assert field.causes == ("blocks.0.attn",)
    patches = erflab.theoretical_field(model, "patch_embed", (160, 160))
    assert (patches.size, patches.stride) == ((16, 16), (16, 16))


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
def test_detectors_keep_the_layers_before_their_postprocessing(name: str) -> None:
    from erflab.models import frozen
    from erflab.theory.reading import read_boxes
    from erflab.theory.trace import trace

    model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    with frozen(model):
        graph = trace(model, (1, 3, 320, 320))
    heads = [key for key in graph.layers if "head" in key[0]]
    assert graph.failure is not None
    assert heads
    assert len(read_boxes(graph, graph.layers.values())) == len(set(graph.layers.values()))


class Sequence1d(nn.Module):
    """A causal attention over a signal after one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 5, stride=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True).transpose(1, 2)


def test_causal_attention_sees_the_past_only() -> None:
    field = erflab.theoretical_field(Sequence1d(), input_size=(64,))
    assert [field.clipped_box((i,)) for i in (0, 4, 31)] == [(0, 2), (0, 10), (0, 63)]
    assert field.box((4,)) == (-math.inf, 10)


def test_three_dimensions() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, (1, 3, 5)), nn.MaxPool3d((2, 1, 2)))
    field = erflab.theoretical_field(net, input_size=(8, 16, 16))
    assert (field.size, field.stride) == ((2, 3, 6), (2, 1, 2))


LOCAL = {
    "squeeze-excite": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "channel attention over channels": lambda x: (
        x
        * nn.functional.conv1d(x.mean((2, 3)).unsqueeze(1), torch.ones(1, 1, 3), padding=1)
        .transpose(1, 2)
        .unsqueeze(-1)
    ),
    "gather-excite": lambda x: x * nn.functional.interpolate(nn.functional.adaptive_avg_pool2d(x, 1), x.shape[2:]),
    "global context": lambda x: x + (x.flatten(2) @ x.mean(1).flatten(1).softmax(1).unsqueeze(2)).unsqueeze(-1),
    "response normalisation": lambda x: x * x.norm(dim=(2, 3), keepdim=True),
    "whole-image average pool": lambda x: x + nn.functional.avg_pool2d(x, x.shape[2:]),
    "group norm": lambda x: nn.functional.group_norm(x, 2),
    "instance norm": lambda x: nn.functional.instance_norm(x),
}


@pytest.mark.parametrize("name", LOCAL)
def test_reductions_over_the_image_are_global_and_cut_locally(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.gate = Gate()

        def forward(self, x: Tensor) -> Tensor:
            return self.gate(self.conv(x))

    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return LOCAL[name](x)

    field = erflab.theoretical_field(Net(), input_size=(32, 32))
    assert field.is_global
    assert field.causes == ("gate",)
    assert field.local.size == (3, 3)
    assert field.local.causes == ()


def test_a_field_shows_itself_in_a_line() -> None:
    field = erflab.theoretical_field(nn.Conv2d(3, 4, 3, padding=1), input_size=(8, 8))
    numbers = "size=(3, 3), stride=(1, 1), padding=(1, 1), input_size=(8, 8), unit=(3, 3)"
    assert repr(field) == f"TheoreticalField('(output)', {numbers})"
