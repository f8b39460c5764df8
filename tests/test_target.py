"""The tap: layouts, calls of reused modules, channels, and hooks that go away."""

import pytest
import torch
from nets import small_net
from torch import Tensor, nn

from erflab.errors import TargetError
from erflab.target import OUTPUT, Layout, Trunk, resolve_layer, token_layout


def hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


class Shared(nn.Module):
    """One module called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.after = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.conv(x)
        return self.after(x)


@pytest.mark.parametrize("call", [0, 1, 2])
def test_a_call_of_a_reused_module(call: int) -> None:
    net, x = Shared(), torch.randn(1, 2, 5, 5)
    expected = x
    for _ in range(call + 1):
        expected = net.conv(expected)
    assert torch.equal(Trunk(net, "conv", call, Layout("nchw", (5, 5)))(x), expected)


def test_the_forward_pass_stops_at_the_target() -> None:
    class Explosive(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("the layer after the target was run")

    net = nn.Sequential(nn.Conv2d(3, 4, 1), Explosive())
    found = Trunk(net, "0", 0, Layout("nchw", (6, 7)))(torch.randn(2, 3, 6, 7))
    assert found.shape == (2, 4, 6, 7)
    assert hooks(net) == 0


def test_a_model_that_catches_exceptions_does_not_catch_the_stop() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.inner(x)
            except Exception:
                return x

    net = Careful()
    assert Trunk(net, "inner", 0, Layout("nchw", (6, 6)))(torch.randn(1, 3, 6, 6)).shape == (1, 4, 6, 6)


def test_hooks_are_gone_after_an_exception() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(5, 4, 1), nn.Conv2d(4, 4, 1))
    with pytest.raises(RuntimeError, match="channels"):
        Trunk(net, "2", 0, Layout("nchw", (6, 6)))(torch.randn(1, 3, 6, 6))
    assert hooks(net) == 0


def test_layouts_fold_to_the_same_units() -> None:
    units = torch.randn(2, 5, 3, 4)
    tokens = torch.cat([torch.randn(2, 1, 5), units.flatten(2).transpose(1, 2)], 1)
    for layout, output in (
        (Layout("nchw", (3, 4)), units),
        (Layout("nhwc", (3, 4)), units.permute(0, 2, 3, 1)),
        (Layout("tokens", (3, 4), 1), tokens),
        (Layout("tokens", (3, 4)), tokens[:, 1:]),
    ):
        assert torch.equal(layout.fold(output), units)


def test_a_shape_that_does_not_fit_its_layout_says_so() -> None:
    with pytest.raises(
        TargetError, match=r"shape \(2, 5, 3, 4\), which is no nchw grid of \(4, 4\) units.*target.layout"
    ):
        Layout("nchw", (4, 4)).fold(torch.zeros(2, 5, 3, 4))


@pytest.mark.parametrize(
    ("tokens", "size", "expected"),
    [
        (197, (224, 224), Layout("tokens", (14, 14), 1)),
        (196, (224, 224), Layout("tokens", (14, 14), 0)),
        (201, (224, 224), Layout("tokens", (14, 14), 5)),
        (14 * 28 + 1, (224, 448), Layout("tokens", (14, 28), 1)),
        (7, (224, 448), Layout("tokens", (1, 2), 5)),
    ],
)
def test_token_grids_follow_the_images_aspect_ratio(tokens: int, size: tuple[int, int], expected: Layout) -> None:
    assert token_layout(tokens, size) == expected


def test_a_given_token_grid_wins() -> None:
    assert token_layout(13, (224, 224), (3, 4)) == Layout("tokens", (3, 4), 1)
    assert token_layout(11, (224, 224), (3, 4)) is None


def test_the_grid_of_rectangular_tokens_is_in_row_order() -> None:
    tokens = torch.arange(6.0)[None, :, None]
    assert Layout("tokens", (2, 3)).fold(tokens)[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_layers_resolve_to_a_module_and_a_call() -> None:
    calls = {"conv": 3, "layer4.1.conv2": 1}
    assert resolve_layer("conv", calls) == ("conv", 2)
    assert resolve_layer("conv:0", calls) == ("conv", 0)
    with pytest.raises(
        TargetError, match=r"no layer 'layer4.1.conv3' among the 2 that the model runs. Did you mean 'layer4.1.conv2'"
    ):
        resolve_layer("layer4.1.conv3", calls)
    with pytest.raises(TargetError, match=r"'conv' runs 3 time\(s\); give conv:0 to conv:2"):
        resolve_layer("conv:3", calls)


def test_wrong_modules_channels_and_outputs_are_refused() -> None:
    layout = Layout("nchw", (8, 8))
    with pytest.raises(TargetError, match=r"no layer 'boddy' in the model. Did you mean 'body'"):
        Trunk(small_net(), "boddy", 0, layout)
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with pytest.raises(TargetError, match="channel 9 of layer 'body', which has 4 channels"):
        Trunk(small_net(), "body", 0, layout, channel=9)(x)
    with pytest.raises(TargetError, match="call 1 of layer 'body' was not reached"):
        Trunk(small_net(), "body", 1, layout)(x)

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> list[str]:
            return ["no tensor"]

    with pytest.raises(TargetError, match="returns a str, not a tensor"):
        Trunk(nn.Sequential(Odd()), "0", 0, layout)(x)


def test_the_models_own_output_may_be_a_dictionary() -> None:
    class Segmenter(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": x, "aux": x[:, :1]}

    assert Trunk(Segmenter(), OUTPUT, 0, Layout("nchw", (4, 4)))(torch.randn(1, 3, 4, 4)).shape == (1, 3, 4, 4)
