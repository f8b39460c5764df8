"""A crop gives what the whole image gives, in float64, or is refused with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from random_nets import networks
from torch import Tensor, nn
from torch.nn import functional

import erflab
from erflab.errors import TheoryError
from erflab.theory.crop import Crop, find_crop
from erflab.theory.field import TheoreticalField

Size = tuple[int, int]


def convolution(*arguments: int, **options: object) -> nn.Module:
    return nn.Conv2d(*arguments, **options)


class SamePadding(nn.Module):
    """TensorFlow's padding: how much, and on which side more, depends on the input's size modulo the stride."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.convolution = nn.Conv2d(3, 3, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        missing = [max(0, (-(-n // self.stride) - 1) * self.stride + self.kernel - n) for n in x.shape[:1:-1]]
        return self.convolution(functional.pad(x, [side for n in missing for side in (n // 2, n - n // 2)])).relu()


class Decoder(nn.Module):
    """Down by four and up again, with skips: output stride 1, total stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.bottom, self.up = nn.Conv2d(3, 3, 3, padding=1), nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1)
        self.head = nn.Conv2d(9, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        full = self.first(x).relu()
        half = self.second(functional.max_pool2d(full, 2)).tanh()
        quarter = self.up(self.bottom(functional.avg_pool2d(half, 2)).relu())
        up = [functional.interpolate(part, scale_factor=2.0, mode="bilinear") for part in (half, quarter)]
        return self.head(torch.cat([full, *up], 1))


def resnet_stages(last: int) -> nn.Module:
    return nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[: 4 + last])


NETS: dict[str, tuple[Callable[[], nn.Module], Size]] = {
    "ResNet-18 layer1": (lambda: resnet_stages(1), (120, 161)),
    "ResNet-18 layer2": (lambda: resnet_stages(2), (232, 219)),
    "ResNet-18 layer3": (lambda: resnet_stages(3), (416, 432)),
    "SAME padding": (lambda: nn.Sequential(SamePadding(3, 2), SamePadding(5, 1), SamePadding(5, 2)), (95, 102)),
    "SAME padding, odd": (lambda: nn.Sequential(SamePadding(3, 2), SamePadding(3, 2)), (93, 95)),
    "dilated": (lambda: nn.Sequential(*(convolution(3, 3, 3, dilation=d, padding=d) for d in (1, 2, 4))), (48, 56)),
    "decoder": (Decoder, (80, 96)),
    "reflect": (
        lambda: nn.Sequential(
            *(convolution(3, 3, 5, padding=2, padding_mode="reflect", stride=s) for s in (1, 2, 1)), nn.Tanh()
        ),
        (66, 77),
    ),
    "ceil mode": (
        lambda: nn.Sequential(
            convolution(3, 3, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, 1, True), convolution(3, 3, 2)
        ),
        (61, 74),
    ),
    "channels last": (lambda: torchvision.models.convnext_tiny(weights=None).features[:2], (128, 160)),
}


def prepared(net: nn.Module) -> nn.Module:
    return net.double().eval().requires_grad_(False)


def reading(net: nn.Module, image: Tensor, unit: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The outputs of one unit [C], and the gradient of their sum with random signs."""
    image = image.clone().requires_grad_(True)
    outputs = net(image)[0][(slice(None), *unit)]
    signs = torch.randn(len(outputs), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((outputs * signs).sum(), image)
    return outputs.detach(), gradient


def assert_exact(net: nn.Module, field: TheoreticalField, unit: tuple[int, ...], crop: Crop, channels: int = 3) -> None:
    torch.manual_seed(2)
    image = torch.randn(1, channels, *field.input_size, dtype=torch.float64)
    outputs, gradient = reading(net, image, unit)
    (twin,) = crop.units(field, [unit])
    assert tuple(net(crop.of(image)).shape[2:]) == crop.layout(field).grid
    cropped, part = reading(net, crop.of(image), twin)
    placed = torch.zeros_like(gradient)
    crop.of(placed).copy_(part)
    torch.testing.assert_close(cropped, outputs, rtol=0, atol=1e-12 * float(outputs.abs().max()))
    torch.testing.assert_close(placed, gradient, rtol=0, atol=1e-12 * float(gradient.abs().max()))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("place", ["first", "edge", "centre", "last"])
def test_a_crop_is_exact(name: str, place: str) -> None:
    build, size = NETS[name]
    torch.manual_seed(0)
    net = prepared(build())
    field = erflab.theoretical_field(net, None, size)
    rows, columns = field.grid
    unit = {"first": (0, 0), "edge": (rows - 1, columns // 2), "last": (rows - 1, columns - 1)}.get(place, field.unit)
    crop = find_crop(net, [(field, [unit])], 3)
    assert crop.share < 1
    for axis, step in enumerate(field.total_stride):
        assert crop.origin[axis] % step == 0
        assert (size[axis] - crop.size[axis]) % step == 0
    assert_exact(net, field, unit, crop)


@settings(max_examples=60)
@given(networks(stages=4), st.data())
def test_whatever_is_cropped_is_exact(network: tuple[nn.Sequential, Size], data: st.DataObject) -> None:
    """Random networks on larger images: where theory finds a crop, it is exact."""
    net, small = network
    size = tuple(n + data.draw(st.integers(20, 40)) for n in small)
    field = erflab.theoretical_field(net, f"{len(net) - 1}", size, channels=2)
    unit = tuple(data.draw(st.sampled_from([0, n // 3, n // 2, n - 1])) for n in field.grid)
    try:
        crop = find_crop(net, [(field, [unit])], 2)
    except TheoryError:
        reject()
    assert_exact(net, field, unit, crop, channels=2)


def test_the_numbers() -> None:
    """ResNet-50 layer4 at 1024 px: fields of 427 px on a total stride of 32 take 448 px."""
    model = torchvision.models.resnet50(weights=None)
    field = erflab.theoretical_field(model, "layer4", (1024, 1024))
    assert find_crop(model, [(field, [field.unit])], 3) == Crop((288, 288), (448, 448), (1024, 1024))
    assert find_crop(model, [(field, [(0, 31)])], 3) == Crop((0, 768), (224, 256), (1024, 1024))


def test_several_layers_and_units_take_one_crop_on_the_grid_of_all() -> None:
    net = prepared(resnet_stages(2))
    fields = [erflab.theoretical_field(net, layer, (224, 224), (u, u)) for layer, u in (("4", 30), ("5", 9))]
    crop = find_crop(net, [(field, [field.unit]) for field in fields], 3)
    assert crop.origin == (16, 16)  # that of 5; unit 30 of 4 sees from pixel 99 on
    for field in fields:
        part = nn.Sequential(*list(net.children())[: int(field.layer) + 1])
        assert_exact(part, field, field.unit, crop)


def test_less_than_the_crop_is_not_exact_and_theory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    net = prepared(resnet_stages(1))
    field = erflab.theoretical_field(net, None, (128, 128))
    crop = find_crop(net, [(field, [field.unit])], 3)
    for less in (
        Crop(crop.origin, (crop.size[0] - 4, crop.size[1]), crop.input_size),
        Crop((crop.origin[0], crop.origin[1] + 4), (crop.size[0], crop.size[1] - 4), crop.input_size),
    ):
        with pytest.raises(AssertionError):
            assert_exact(net, field, field.unit, less)
        monkeypatch.setattr("erflab.theory.crop._aligned", lambda _, less=less: less)
        with pytest.raises(TheoryError, match=r"px, aten\.\w+ in module '.*' reads other elements"):
            find_crop(net, [(field, [field.unit])], 3)


class Applied(nn.Module):
    """A function after a 3 x 3 convolution."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.function = nn.Conv2d(3, 4, 3, padding=1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.stem(x))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x) * self.pool(self.stem(x)).sigmoid()


class Embedded(nn.Module):
    """Adds an embedding of 64 x 64 positions, as it is or resized to the image."""

    def __init__(self, *, resized: bool) -> None:
        super().__init__()
        self.stem, self.resized = nn.Conv2d(3, 4, 3, padding=1), resized
        self.positions = nn.Parameter(torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + (functional.interpolate(self.positions, x.shape[2:]) if self.resized else self.positions)


def windows(x: Tensor) -> Tensor:
    """The mean over windows of 8 x 8."""
    b, c, h, w = x.shape
    found = x.view(b, c, h // 8, 8, w // 8, 8)
    return found.mean((3, 5), keepdim=True).expand_as(found).reshape(x.shape)


# name -> net, whose last module is measured, on 64 x 64 px, and what the error says
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "squeeze and excite": (Gated, r"field of layer .* is global, by pool"),
    "batch statistics": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        r"field of layer '\(output\)' is global, by 1",
    ),
    "instance norm": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)), r"is global, by 1"),
    "adaptive pool": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((9, 9)), nn.Conv2d(4, 4, 3)),
        r"is not known: 1 gives a fixed number of positions",
    ),
    "fixed size": (lambda: Applied(lambda x: functional.interpolate(x, (96, 96))), r"is not known|another factor"),
    "aligned corners": (
        lambda: Applied(
            lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)[:, :, ::2, ::2]
        ),
        r"is not known|another factor",
    ),
    "positions": (lambda: Embedded(resized=False), r"does not run at input size|is not reached"),
    "resized positions": (lambda: Embedded(resized=True), r"aten.add in module '' uses a constant that depends on"),
    "lost": (lambda: Applied(lambda x: x * float(x.sum().item())), r"was lost in "),
    "by size": (
        lambda: Applied(lambda x: x.relu() if x.shape[2] > 48 else x.tanh()),
        r"is aten.tanh in module '' there",
    ),
    "scaled": (lambda: Applied(lambda x: x / x.shape[2]), r"aten.div in module '' has another setting \(64 and "),
    "large": (lambda: nn.Conv2d(3, 4, 129, padding=64), r"takes up the whole image of \(64, 64\) px"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why(name: str) -> None:
    build, reason = REFUSED[name]
    net = prepared(build())
    field = erflab.theoretical_field(net, list(net._modules)[-1] if name == "adaptive pool" else "(output)", (64, 64))
    with pytest.raises(TheoryError, match=reason):
        find_crop(net, [(field, [field.unit])], 3)


def test_windows_that_align_are_cropped() -> None:
    net = prepared(Applied(windows))
    field = erflab.theoretical_field(net, None, (64, 64))
    crop = find_crop(net, [(field, [field.unit])], 3)
    assert crop.size == (24, 24)
    assert math.isclose(crop.share, 9 / 64)
    assert_exact(net, field, field.unit, crop)


def test_a_roll_is_cropped_where_it_does_not_wrap_round() -> None:
    net = prepared(Applied(lambda x: windows(x.roll((4, 4), (2, 3)))))
    field = erflab.theoretical_field(net, None, (64, 64))
    assert_exact(net, field, field.unit, find_crop(net, [(field, [field.unit])], 3))
    with pytest.raises(TheoryError, match=r"what is seen takes up the whole image of \(64, 64\) px"):
        find_crop(net, [(field, [(0, 0)])], 3)


def test_masks_of_shifted_windows_are_refused() -> None:
    """Which windows the mask of a Swin block cuts depends on the size of the image."""
    net = prepared(torchvision.models.swin_t(weights=None).features[:2])
    field = erflab.theoretical_field(net, "1", (224, 224))
    with pytest.raises(
        TheoryError, match=r"aten.add in module '1.1.attn' uses a constant that depends on the position"
    ):
        find_crop(net, [(field, [field.unit])], 3)
