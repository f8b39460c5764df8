"""A unit's centre against truth: strides and paddings worked out by hand, and the centroid of exact gradients.

Where something mixes positions, the net adds it to the unit's own path times zero: structure counts in the theory, not values,
so the field holds it, and the gradient that is left is that of the path.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import attention, windowed
from torch import Tensor, nn

import erflab
from erflab.attribution.plan import plan_occlusion
from erflab.config import OcclusionConfig
from erflab.errors import MeasurementError
from erflab.models import frozen
from erflab.theory.field import TheoreticalField


class Mixed(nn.Module):
    """Convolutions (kernel, stride, padding) of even weights; `mix` comes in times zero, or, without a skip, alone."""

    def __init__(
        self, convolutions: list[tuple[int, int, int]], mix: Callable[[Tensor], Tensor], *, skip: bool = True
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(*(nn.Conv2d(2, 2, *setting, bias=False) for setting in convolutions))
        for weight in self.embed.parameters():
            nn.init.ones_(weight)
        self.mix, self.skip = mix, skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return x + 0 * self.mix(x) if self.skip else self.mix(x)


def reduced(x: Tensor) -> Tensor:
    """Attention to keys of half the resolution."""
    keys = nn.functional.avg_pool2d(x, 2).flatten(2)
    logits = x.flatten(2).transpose(1, 2) @ keys
    return (logits.softmax(-1) @ keys.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])


def fourier(x: Tensor) -> Tensor:
    return torch.fft.fft2(x).real


def axial(x: Tensor) -> Tensor:
    """Attention within rows."""
    rows = x.permute(0, 2, 3, 1).flatten(0, 1)
    return ((rows @ rows.transpose(1, 2)).softmax(-1) @ rows).unflatten(0, (-1, x.shape[2])).permute(0, 3, 1, 2)


def neighbourhood(x: Tensor) -> Tensor:
    """Attention to the 3 x 3 positions round one's own: a window that slides along."""
    keys = nn.functional.unfold(x, 3, padding=1).unflatten(1, (x.shape[1], 9)).permute(0, 3, 1, 2)  # [B, N, C, 9]
    query = x.flatten(2).transpose(1, 2).unsqueeze(2)
    mixed = (query @ keys).softmax(-1) @ keys.transpose(2, 3)
    return mixed.squeeze(2).transpose(1, 2).unflatten(2, x.shape[2:])


def subsampled(x: Tensor) -> Tensor:
    """Attention of every second position to all, without a skip."""
    tokens = x.flatten(2)
    some = x[:, :, ::2, ::2]
    mixed = (some.flatten(2).transpose(1, 2) @ tokens).softmax(-1) @ tokens.transpose(1, 2)
    return mixed.transpose(1, 2).unflatten(2, some.shape[2:])


PATCHES, OVERLAPPING = [(8, 8, 0)], [(7, 4, 3), (3, 2, 1)]
# name -> convolutions, what mixes positions, and the centre of unit i along each axis: i * stride + first, both in px
NETS: dict[str, tuple[list[tuple[int, int, int]], Callable[[Tensor], Tensor], float, str]] = {
    "attention over patches": (PATCHES, attention, 3.5, "own path"),
    "attention over overlapping patches": (OVERLAPPING, attention, 0.0, "own path"),
    "attention to fewer keys": (OVERLAPPING, reduced, 0.0, "own path"),
    "attention within windows": (OVERLAPPING, windowed, 0.0, "own path"),
    "attention within shifted windows": (OVERLAPPING, lambda x: windowed(windowed(x), shift=2), 0.0, "own path"),
    "attention within rows": (OVERLAPPING, axial, 0.0, "own path"),
    "attention to a sliding neighbourhood": (OVERLAPPING, neighbourhood, 0.0, "full box"),
    "a Fourier transform": (OVERLAPPING, fourier, 0.0, "own path"),
    "a gate": (OVERLAPPING, lambda x: x * x.mean((2, 3), keepdim=True), 0.0, "local box"),
    "a gate, then attention": (OVERLAPPING, lambda x: attention(x * x.mean((2, 3), keepdim=True)), 0.0, "own path"),
    "nothing": (OVERLAPPING, torch.relu, 0.0, "full box"),
}


def field_of(net: nn.Module) -> TheoreticalField:
    return erflab.theoretical_field(net, None, (64, 64), channels=2)


def centroid(net: nn.Module, unit: tuple[int, int]) -> tuple[float, ...]:
    """Of the unit's squared gradient."""
    image = torch.rand(1, 2, 64, 64, dtype=torch.float64, requires_grad=True)
    with frozen(net.double()):
        (gradient,) = torch.autograd.grad(net(image)[0, :, *unit].sum(), image)
    energy = gradient.square().sum((0, 1))
    places = torch.arange(64, dtype=torch.float64)
    return tuple(float((energy.sum(1 - axis) * places).sum() / energy.sum()) for axis in (0, 1))


@pytest.mark.parametrize("name", NETS)
def test_what_mixes_positions_moves_no_centre(name: str) -> None:
    convolutions, mix, first, rule = NETS[name]
    net = Mixed(convolutions, mix)
    field = field_of(net)
    for unit in ((2, 5), (4, 3)):
        expected = tuple(8 * i + first for i in unit)
        assert field.center(unit) == expected
        assert centroid(net, unit) == pytest.approx(expected, abs=1e-9)
    assert field.center_rule == rule
    # The image's middle is 31.5: halfway between patches 3 and 4, and half a px from where an overlapping patch 4 lies.
    assert field.unit == ((3, 3) if first else (4, 4))


def test_queries_tell_the_place_of_an_attention_without_a_skip() -> None:
    field = field_of(Mixed(OVERLAPPING, subsampled, skip=False))
    assert (field.grid, field.center((1, 2)), field.center_rule) == ((4, 4), (16, 32), "own path")


def test_without_a_path_of_its_own_a_unit_has_the_centre_of_its_grid_cell() -> None:
    field = field_of(Mixed(OVERLAPPING, fourier, skip=False))
    assert (field.center((2, 5)), field.center_rule) == ((19.5, 43.5), "grid cell")


def test_units_that_pool_their_windows_by_attention_have_the_windows_centres() -> None:
    def pooled(x: Tensor) -> Tensor:
        windows = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)  # [B, C, rows, columns, 4]
        return (windows.softmax(-1) * windows).sum(-1)

    field = field_of(Mixed(OVERLAPPING, pooled, skip=False))
    assert (field.size, field.center((1, 2)), field.center_rule) == ((23, 23), (20, 36), "full box")


def test_a_model_of_one_size_shows_its_path_there() -> None:
    """With an embedding of 8 x 8 positions there is no run at a virtual size."""

    class Fixed(Mixed):
        def __init__(self) -> None:
            super().__init__(OVERLAPPING, windowed)
            self.positions = nn.Parameter(torch.zeros(2, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x) + self.positions
            return x + self.mix(x)

    field = field_of(Fixed())
    assert field.size == (None, None)
    assert (field.center((2, 5)), field.center_rule) == ((16, 40), "own path")


BANDS = {
    "the past": lambda ahead: ahead > 0,
    "neighbours": lambda ahead: ahead.abs() > 2,
    "blocks": lambda ahead: torch.arange(len(ahead))[:, None] // 4 != torch.arange(len(ahead)) // 4,
}


@pytest.mark.parametrize("seen", BANDS)
def test_masks_move_no_centre(seen: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv1d(2, 2, 6, stride=4, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.embed(x).transpose(1, 2)
            places = torch.arange(tokens.shape[1])
            mask = BANDS[seen](places - places[:, None])
            logits = (tokens @ tokens.transpose(1, 2)).masked_fill(mask, -torch.inf)
            return (logits.softmax(-1) @ tokens).transpose(1, 2)

    field = erflab.theoretical_field(Net(), None, (64,), channels=2)
    assert [field.center((i,)) for i in (0, 5, 15)] == [(1.5,), (21.5,), (61.5,)]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=3))
def test_centres_follow_kernels_strides_and_paddings(convolutions: list[tuple[int, int, int]]) -> None:
    """Of a signal: unit i of one convolution lies at i * stride - padding + (kernel - 1) / 2 of its input."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Sequential(*(nn.Conv1d(2, 2, *setting) for setting in convolutions))

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.embed(x).transpose(1, 2)
            return (tokens + (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens).transpose(1, 2)

    field = erflab.theoretical_field(Net(), None, (96,), channels=2)
    for unit in range(field.grid[0]):
        place = float(unit)
        for kernel, stride, padding in reversed(convolutions):
            place = place * stride - padding + (kernel - 1) / 2
        assert field.center((unit,)) == (place,)


def test_occlusion_reads_all_units_about_their_own_centres() -> None:
    plan = plan_occlusion(OcclusionConfig(patch=4, step=4), field_of(Mixed(OVERLAPPING, attention)))
    assert plan.y.centers == tuple(range(0, 64, 8))


def test_occlusion_does_not_read_units_of_differing_windows_together() -> None:
    with pytest.raises(MeasurementError, match=r"their fields differ.*use attribution\.occlusion\.units=one"):
        plan_occlusion(OcclusionConfig(patch=4, step=4), field_of(Mixed(OVERLAPPING, windowed)))
