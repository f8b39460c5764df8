"""Parameters and operations up to a layer, counted by hand."""

import pytest
import torch
from torch import Tensor, nn

import erflab
from erflab.errors import TheoryError
from erflab.theory.cost import Cost


def test_a_stack_costs_what_is_counted_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 5, 2, 2, groups=4, bias=False))
    costs = erflab.layer_costs(model, (16, 12))
    first = Cost(8 * 3 * 9 + 8, 2 * 8 * 3 * 9 * 16 * 12)
    second = Cost(8 * 2 * 25, 2 * 8 * 2 * 25 * 8 * 6)
    assert costs == {
        "0": first,
        "1": first,
        "2": Cost(first.parameters + second.parameters, first.flops + second.flops),
    }
    assert next(model.parameters()).device.type == "cpu"


def test_shared_and_unused_modules() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.idle = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 9)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    assert erflab.layer_costs(Shared(), (4, 4)) == {"conv": Cost(9, 2 * 2 * 9 * 16)}


def test_the_published_cost_of_a_resnet() -> None:
    torchvision = pytest.importorskip("torchvision")
    costs = erflab.layer_costs(torchvision.models.resnet50(weights=None))
    published = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta  # GFLOP of multiply-adds, to two decimals
    assert costs["fc"].parameters == published["num_params"]
    assert costs["fc"].flops / 2e9 == pytest.approx(published["_ops"], abs=0.005)


def test_a_model_that_needs_data_is_refused() -> None:
    class Peeking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.sum())

    with pytest.raises(TheoryError, match=r"does not run on shapes of \(8, 8\) px alone: "):
        erflab.layer_costs(nn.Sequential(nn.Conv2d(3, 3, 1), Peeking()), (8, 8))
    assert torch.is_grad_enabled()
