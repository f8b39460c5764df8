"""Nets of one idea each, on which the theory's boxes are held against exact gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Apply(nn.Module):
    """A function as a module, after a 3x3 convolution unless `stem` is another module."""

    def __init__(self, function: Callable[[Tensor], Tensor], stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1) if stem is None else stem
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.stem(x))


def conv(*arguments: int, **settings: object) -> nn.Module:
    return nn.Conv2d(3, 4, *arguments, **settings)


def attention(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention between the positions of [B, C, H, W]; the mask [N, N] is added."""
    tokens = x.flatten(2).transpose(1, 2)
    logits = tokens @ tokens.transpose(1, 2) / 8
    mixed = (logits if mask is None else logits + mask).softmax(-1) @ tokens
    return mixed.transpose(1, 2).unflatten(2, x.shape[2:])


def row_mask(x: Tensor, blocked: float) -> Tensor:
    """[N, N]: positions of one row see each other only."""
    rows = torch.arange(x.shape[2]).repeat_interleave(x.shape[3])
    return torch.zeros(len(rows), len(rows)).masked_fill(rows[:, None] != rows, blocked).to(x.dtype)


def windowed(x: Tensor, side: int = 4, shift: int = 0) -> Tensor:
    """Attention within windows, on a map rolled by `shift`."""
    x = x.roll((-shift, -shift), (2, 3))
    b, c, h, w = x.shape
    windows = x.view(b, c, h // side, side, w // side, side).permute(0, 2, 4, 1, 3, 5)
    mixed = attention(windows.reshape(-1, c, side, side))
    mixed = mixed.view(b, h // side, w // side, c, side, side).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)
    return mixed.roll((shift, shift), (2, 3))


def write_slices(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :2, 1:] = x[:, :2, :-1]
    y[:, 2:, :-1] = x[:, 2:, 1:]
    return y


def write_through_views(x: Tensor) -> Tensor:
    y = x.clone()
    first, second = y[:, :2], y[:, 2:]
    first.mul_(2)
    second.transpose(2, 3)[:, :, 3].add_(first[:, :, :, 5])
    return y


def write_strided(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, ::3] = x[:, :, 1:2]
    return y


def write_by_index(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, [0, 2]] = x[:, :, [5, 7]]
    return y


def copy_rows(x: Tensor) -> Tensor:
    return x.index_copy(2, torch.tensor([1, 4]), x[:, :, :2]).index_add(3, torch.tensor([0, 7]), x[:, :, :, 5:7])


def gather_rows(x: Tensor) -> Tensor:
    places = torch.arange(x.shape[2]).flip(0).view(1, 1, -1, 1).expand(x.shape)
    return x.gather(2, places)


def pixel_mix(x: Tensor) -> Tensor:
    return F.pixel_shuffle(F.pixel_unshuffle(x, 2).roll(1, 1), 2)


def fold_unfold(x: Tensor) -> Tensor:
    return F.fold(F.unfold(x, 3, padding=1, stride=2), x.shape[2:], 3, padding=1, stride=2)


def outer_padding(mode: str) -> Callable[[Tensor], Tensor]:
    return lambda x: F.pad(x, (2, 1, 3, 2), mode=mode)


def resize(
    mode: str, size: int | None = None, scale: float | None = None, **settings: bool
) -> Callable[[Tensor], Tensor]:
    return lambda x: F.interpolate(x, size=size, scale_factor=scale, mode=mode, **settings)


class Recurrent(nn.Module):
    """An LSTM along each row of the image, one way or both."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 2, batch_first=True, bidirectional=both)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(0, 1)
        return self.lstm(rows)[0].unflatten(0, (x.shape[0], x.shape[2])).permute(0, 3, 1, 2)


class DynamicConvolution(nn.Module):
    """A kernel made from the image's mean."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = x.mean((0, 2, 3)).view(1, -1, 1, 1) * x.new_ones(1, 3, 3, 3)
        return F.conv2d(x, kernel, padding=1)


class StandardisedConvolution(nn.Conv2d):
    """Weights normalised on the way: constants, however they are computed."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std()
        return F.conv2d(x, weight.abs(), self.bias, self.stride, self.padding)


# name -> net on [1, 3, 16, 12]. Without a word to the contrary, the gradient of positive weights must fill every unit's box.
NETS: dict[str, Callable[[], nn.Module]] = {
    "kernel and stride": lambda: conv(5, stride=2),
    "dilation": lambda: conv(3, dilation=3, padding=3),
    "asymmetric kernel": lambda: conv((1, 5), padding=(0, 2)),
    "groups": lambda: nn.Sequential(conv(3), nn.Conv2d(4, 8, 3, groups=4)),
    "string padding": lambda: conv(4, padding="same"),
    "transposed": lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
    "transposed, dilated": lambda: nn.ConvTranspose2d(3, 4, 3, stride=3, dilation=2),
    "max pool, ceil": lambda: Apply(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)),
    "average pool": lambda: Apply(nn.AvgPool2d(2)),
    "adaptive pool": lambda: Apply(nn.AdaptiveAvgPool2d((5, 7))),
    "global pool gate": lambda: Apply(lambda x: x * x.mean((2, 3), keepdim=True)),
    "rows pooled": lambda: Apply(lambda x: x + x.mean(2, keepdim=True)),
    "zero padding": lambda: Apply(outer_padding("constant")),
    "reflect padding": lambda: Apply(outer_padding("reflect")),
    "replicate padding": lambda: Apply(outer_padding("replicate")),
    "circular padding": lambda: Apply(outer_padding("circular")),
    "circular convolution": lambda: conv(3, padding=1, padding_mode="circular"),
    "nearest": lambda: Apply(resize("nearest", scale=2.0)),
    "nearest to size": lambda: Apply(resize("nearest", size=7)),
    "nearest exact": lambda: Apply(resize("nearest-exact", size=7)),
    "bilinear": lambda: Apply(resize("bilinear", scale=2.0)),
    "bilinear, corners": lambda: Apply(resize("bilinear", size=9, align_corners=True)),
    "bilinear, antialias": lambda: Apply(resize("bilinear", size=5, antialias=True)),
    "bicubic": lambda: Apply(resize("bicubic", size=23)),
    "bicubic, antialias": lambda: Apply(resize("bicubic", size=6, antialias=True)),
    "pixel shuffle": lambda: Apply(nn.PixelShuffle(2)),
    "pixel unshuffle": lambda: Apply(nn.PixelUnshuffle(2)),
    "shuffled pixels": lambda: Apply(pixel_mix),
    "channel shuffle": lambda: Apply(nn.ChannelShuffle(2)),
    "fold and unfold": lambda: Apply(fold_unfold),
    "unfold": lambda: Apply(lambda x: F.unfold(x, 3, dilation=2, padding=1).unflatten(2, (14, 10))),
    "roll": lambda: Apply(lambda x: x.roll((3, -2), (2, 3))),
    "flip": lambda: Apply(lambda x: x.flip(2)),
    "slices": lambda: Apply(lambda x: torch.cat([x[:, :, ::2, 1::2], x[:, :, 1::2, ::2]], 1)),
    "index": lambda: Apply(lambda x: x[:, :, [0, 3, 3, 8]]),
    "two indices": lambda: Apply(lambda x: x[:, :, torch.tensor([[0, 5]]), torch.tensor([[1], [2]])]),
    "index select": lambda: Apply(lambda x: x.index_select(3, torch.tensor([4, 0, 11]))),
    "gather": lambda: Apply(gather_rows),
    "boolean index": lambda: Apply(lambda x: x[:, :, torch.arange(16) % 3 == 0]),
    "slice writes": lambda: Apply(write_slices),
    "view writes": lambda: Apply(write_through_views),
    "index writes": lambda: Apply(write_by_index),
    "copied and added slices": lambda: Apply(copy_rows),
    "strided slice writes": lambda: Apply(write_strided),
    "masked": lambda: Apply(lambda x: x.masked_fill(torch.arange(12) < 5, 0.0)),
    "chosen": lambda: Apply(lambda x: torch.where(torch.arange(12) < 5, x, x.flip(3))),
    "cumulative sum": lambda: Apply(lambda x: x.cumsum(2)),
    "batch norm": lambda: nn.Sequential(conv(3), nn.BatchNorm2d(4)),
    "group norm": lambda: Apply(nn.GroupNorm(2, 4)),
    "instance norm": lambda: Apply(nn.InstanceNorm2d(4)),
    "layer norm": lambda: Apply(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)),
    "attention": lambda: Apply(attention),
    "rows masked by -inf": lambda: Apply(lambda x: attention(x, row_mask(x, -torch.inf))),
    "rows masked by -100": lambda: Apply(lambda x: attention(x, row_mask(x, -100.0) / 10)),
    "windows": lambda: Apply(windowed),
    "shifted windows": lambda: Apply(lambda x: windowed(windowed(x), shift=2)),
    "einsum": lambda: Apply(lambda x: torch.einsum("bchw,bcvw->bhvw", x, x)),
    "fourier": lambda: Apply(lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=3) * torch.rand(7), n=12, dim=3)),
    "recurrence": lambda: Recurrent(both=False),
    "recurrence both ways": lambda: Recurrent(both=True),
    "dynamic convolution": lambda: DynamicConvolution(),
    "standardised convolution": lambda: StandardisedConvolution(3, 4, 3),
}
