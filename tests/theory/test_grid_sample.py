"""grid_sample: exact taps at known positions, anywhere at positions that the input decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import erflab
from erflab.errors import UnknownOperationError
from erflab.theory.grid_taps import taps

SIZE = (9, 11)
TURN = [[[0.8, -0.6, 0.1], [0.6, 0.8, -0.2]]]


class Warped(nn.Module):
    """A turn of the image about its centre, at positions computed from constants."""

    def __init__(self, mode: str, padding: str, align_corners: bool) -> None:
        super().__init__()
        self.settings = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
        self.turn = nn.Parameter(torch.tensor(TURN, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        grid = functional.affine_grid(self.turn, list(x.shape), align_corners=self.settings["align_corners"])
        return functional.grid_sample(x, grid, **self.settings)


def settings() -> list[tuple[str, str, bool]]:
    modes, paddings = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    return [(m, p, a) for m in modes for p in paddings for a in (False, True)]


@pytest.mark.parametrize(("mode", "padding", "align_corners"), settings())
def test_box_set_and_energy_against_the_gradient(mode: str, padding: str, align_corners: bool) -> None:
    net = Warped(mode, padding, align_corners).requires_grad_(False)
    field = erflab.theoretical_field(net, None, SIZE, channels=1)
    for unit in ((4, 5), (8, 3), (2, 10), (0, 0)):
        image = torch.zeros(1, 1, *SIZE, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(net(image)[0, 0, unit[0], unit[1]], image)
        support = field.support(unit)
        assert (support.pixels.values == (gradient[0, 0] != 0).numpy()).all()
        assert field.clipped_box(unit) == support.box
    prediction = erflab.predicted_field(net, None, SIZE, unit, channels=1)
    np.testing.assert_allclose(prediction.map.values, gradient[0, 0].square(), atol=1e-12)


def test_expected_energy_after_a_warp() -> None:
    """A square after it has 4 E[y^2], with y of variance sum w^2."""

    class Squared(Warped):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).square()

    net = Squared("bilinear", "zeros", False).requires_grad_(False)
    plain = erflab.predicted_field(Warped("bilinear", "zeros", False), None, SIZE, (4, 5), channels=1)
    prediction = erflab.predicted_field(net, None, SIZE, (4, 5), channels=1)
    assert prediction.total == pytest.approx(4 * plain.total**2, rel=1e-4)


def test_taps_of_a_volume() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = torch.rand(2, 2, 3, 2, 3, generator=generator, dtype=torch.float64) * 3 - 1.5
    image = torch.randn(2, 3, 4, 3, 5, generator=generator, dtype=torch.float64)
    found = taps(grid, (4, 3, 5), 0, 0, False)
    read = (found.gather(image.flatten(2), 0.0) * found.weights[:, None]).sum(-1)
    truth = functional.grid_sample(image, grid, align_corners=False)
    torch.testing.assert_close(read, truth.flatten(2))


def test_a_fixed_grid_scales_with_the_image_and_says_so() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            grid = functional.affine_grid(torch.eye(2, 3)[None], [1, 1, 4, 4], align_corners=False)
            self.register_buffer("grid", grid)

        def forward(self, x: Tensor) -> Tensor:
            return functional.grid_sample(x, self.grid, align_corners=False)

    field = erflab.theoretical_field(Fixed(), "(output)", (16, 16))
    assert field.clipped_box((0, 1)) == (1, 2, 5, 6)
    assert field.size == (None, None)
    assert "fixed number of positions" in str(field.reason)


def test_positions_that_the_input_decides_lie_anywhere() -> None:
    class Transformer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            turn = torch.eye(2, 3)[None].to(x) + x.mean()
            grid = functional.affine_grid(turn, list(x.shape), align_corners=False)
            return functional.grid_sample(x, grid, align_corners=False)

    field = erflab.theoretical_field(Transformer(), None, SIZE)
    assert field.size == (math.inf, math.inf)
    assert field.support().count == math.prod(SIZE)
    with pytest.raises(UnknownOperationError, match=r"no energy rule for (operation|sampling at positions)"):
        erflab.predicted_field(Transformer(), None, SIZE)
