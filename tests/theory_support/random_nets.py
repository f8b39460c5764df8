"""Random networks of every kind of operation that has a structure, and the exact dependence of their units by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

Draw = Callable[[Any], Any]


class SummedWindows(nn.Module):
    """Max pooling with the maximum replaced by a sum, so that the gradient shows every tap: what the pool can depend on."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        (ky, kx), (sy, sx), (py, px), (dy, dx) = map(
            _pair, (self.pool.kernel_size, self.pool.stride, self.pool.padding, self.pool.dilation)
        )
        rows, columns = self.pool(x).shape[2:]
        bottom, right = rows * sy + ky * dy, columns * sx + kx * dx
        x = functional.pad(x, (px, right, py, bottom))
        return sum(
            x[:, :, ty * dy : ty * dy + rows * sy : sy, tx * dx : tx * dx + columns * sx : sx]
            for ty in range(ky)
            for tx in range(kx)
        )


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


class Branches(nn.Module):
    """The same input through several branches, cropped to the smallest, then added or concatenated."""

    def __init__(self, *branches: nn.Module, add: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        results = [branch(x) for branch in self.branches]
        rows, columns = (min(r.shape[d] for r in results) for d in (2, 3))
        results = [r[:, :, :rows, :columns] for r in results]
        return sum(results[1:], results[0]) if self.add else torch.cat(results, 1)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "reflect": lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"),
    "replicate": lambda x: functional.pad(x, (1, 0, 0, 1), mode="replicate"),
    "circular": lambda x: functional.pad(x, (1, 1, 0, 1), mode="circular"),
    "crop": lambda x: x[:, :, 1:, :-1],
    "every second": lambda x: x[:, :, ::2, ::2],
    "flip": lambda x: x.flip(3),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "transpose": lambda x: x.transpose(2, 3),
    "channel shuffle": lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    "channels last": lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2),
    "swap halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "gate": lambda x: x[:, :1] * x,
    "index": lambda x: x[:, [1, 0]],
    "pixel unshuffle": lambda x: functional.pixel_unshuffle(x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2], 2),
    "pixel shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "nearest": lambda x: functional.interpolate(x, scale_factor=2.0, mode="nearest"),
    "bilinear": lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False),
}


class Move(nn.Module):
    """One of the moves, by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return MOVES[self.name](x)

    def extra_repr(self) -> str:
        return self.name


def convolution(draw: Draw, channels: int, out: int, *, sparse: bool = False) -> nn.Module:
    """A convolution with any kernel, stride, dilation, groups and padding, each axis for itself; the padding asymmetric.

    With `sparse` whole windows may lie in the padding.
    """
    kernel, dilation = (tuple(draw(st.integers(1, 3)) for _ in "yx") for _ in range(2))
    stride = tuple(draw(st.integers(1, 2)) for _ in "yx")
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    # Left, right, top, bottom; never so much that a window lies in the padding alone, unless that is wanted.
    padding = [draw(st.integers(0, (r + 1) // 2 + 2 * sparse)) for r in (reach[1], reach[1], reach[0], reach[0])]
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0 and out % g == 0]))
    conv = nn.Conv2d(channels, out, kernel, stride, dilation=dilation, groups=groups)
    return nn.Sequential(nn.ZeroPad2d(padding), conv)


def sparse_convolution(draw: Draw, channels: int, out: int) -> nn.Module:
    """The same with windows that may see nothing."""
    return convolution(draw, channels, out, sparse=True)


def gapped(draw: Draw, channels: int, out: int) -> nn.Module:
    """A transposed convolution with gaps: some rows or columns of its output read nothing."""
    kernel = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    return nn.ConvTranspose2d(channels, out, kernel, stride=(2, draw(st.integers(1, 3))), bias=False)


def transposed(draw: Draw, channels: int, out: int) -> nn.Module:
    """A transposed convolution each of whose outputs reads something: every phase and the end are reached by a tap."""
    kernel, stride, padding = draw(st.integers(2, 4)), draw(st.integers(1, 2)), draw(st.integers(0, 1))
    dilation = draw(st.integers(1, 2)) if stride == 1 else 1
    more = draw(st.integers(0, min(stride - 1, padding)))
    return nn.ConvTranspose2d(channels, out, kernel, stride, padding, output_padding=more, dilation=dilation)


def pooling(draw: Draw, channels: int, out: int) -> nn.Module:
    kernel, stride = draw(st.integers(2, 3)), draw(st.integers(1, 3))
    padding, ceil = draw(st.integers(0, kernel // 2)), draw(st.booleans())
    if draw(st.booleans()):
        return nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil, count_include_pad=draw(st.booleans()))
    return nn.MaxPool2d(kernel, stride, padding, dilation=draw(st.integers(1, 2)), ceil_mode=ceil)


def moving(draw: Draw, channels: int, out: int) -> nn.Module:
    """Operations that move values: padding by reflection, crops, rolls, channel shuffles, resampling."""
    return Move(draw(st.sampled_from(sorted(MOVES))))


def branching(draw: Draw, channels: int, out: int) -> nn.Module:
    """Two or three branches of one stride and of differing fields, not always aligned."""
    stride, add = draw(st.integers(1, 2)), draw(st.booleans())
    branches = []
    for _ in range(draw(st.integers(2, 3))):
        kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
        padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
        branches.append(nn.Conv2d(channels, out, kernel, stride, padding))
    return Branches(*branches, add=add)


KINDS = (convolution, convolution, transposed, pooling, moving, branching)
SPARSE_KINDS = (sparse_convolution, gapped, pooling, moving, branching)


@st.composite
def networks(draw: Draw, stages: int = 5, *, sparse: bool = False) -> tuple[nn.Sequential, tuple[int, int]]:
    """A network in float64 with positive weights, and the size of its input in px. Stages that leave no map are dropped.

    With `sparse` some units may see nothing.
    """
    size = (draw(st.integers(9, 18)), draw(st.integers(9, 18)))
    image = torch.ones(1, 2, *size, dtype=torch.float64)
    chosen: list[nn.Module] = []
    for _ in range(draw(st.integers(1, stages))):
        stage = draw(st.sampled_from(SPARSE_KINDS if sparse else KINDS))(
            draw, image.shape[1], draw(st.sampled_from([2, 4]))
        ).double()
        try:
            with torch.no_grad():
                result = stage(image)
        except (RuntimeError, ValueError):  # the map has become too small for this stage
            continue
        if min(result.shape[2:]) > 1 and result.numel() < 2**14:
            chosen.append(stage)
            image = result
    return positive(nn.Sequential(*chosen, nn.Identity())), size


def positive(net: nn.Module) -> nn.Module:
    """The network with every parameter between 1/2 and 1: no path can cancel another."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.5 + 0.5 * torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype))
    return net.eval().requires_grad_(False)


def summed(net: nn.Module) -> nn.Module:
    """The network with its max pools summed."""
    for name, child in list(net.named_children()):
        setattr(net, name, SummedWindows(child) if isinstance(child, nn.MaxPool2d) else summed(child))
    return net


def dependence(net: nn.Module, size: Sequence[int], unit: tuple[int, int], channels: int = 2) -> Tensor:
    """The pixels with a non-zero gradient of the sum over channels of one unit: bool [H, W]."""
    image = torch.ones(1, channels, *size, dtype=torch.float64, requires_grad=True)
    output = net(image)[0, :, unit[0], unit[1]].sum()
    if not output.requires_grad:  # the unit is made of padding alone
        return torch.zeros(*size, dtype=torch.bool)
    (gradient,) = torch.autograd.grad(output, image)
    magnitude = gradient[0].abs().sum(0)
    return magnitude > 1e-12 * magnitude.max()


def hull(pixels: Tensor) -> tuple[int, ...] | None:
    """The inclusive box (y0, y1, x0, x1) of a set."""
    if not pixels.any():
        return None
    lines = [torch.nonzero(pixels.any(1 - axis)).flatten().tolist() for axis in (0, 1)]
    return (lines[0][0], lines[0][-1], lines[1][0], lines[1][-1])
