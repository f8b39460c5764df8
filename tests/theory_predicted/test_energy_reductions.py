"""The energy of extremes and variances against closed forms, exact Jacobians and draws."""

import numpy as np
import pytest
import torch
from test_predicted_field import Applied, exact_energy, noise
from torch import nn

from erflab.errors import UnknownOperationError
from erflab.theory.predicted import predicted_field

REDUCTIONS = {
    "amax of the image": lambda x: x.amax((2, 3), keepdim=True).expand(-1, -1, 5, 4),
    "amax of the channels": lambda x: x.amax(1, keepdim=True),
    "amin of the rows": lambda x: x.amin(2, keepdim=True).expand(-1, -1, 5, -1),
    "max with indices": lambda x: x.max(1)[0].unsqueeze(1),
    "var": lambda x: x.var((2, 3), keepdim=True).expand(-1, -1, 5, 4),
    "std": lambda x: x.std(1, correction=0).unsqueeze(1),
    "var beside the mean": lambda x: torch.cat(torch.var_mean(x, 1, keepdim=True), 1),
    "std beside the mean": lambda x: torch.cat(torch.std_mean(x, (2, 3), keepdim=True), 1).expand(-1, -1, 5, 4),
    "sum": lambda x: x.sum(1, keepdim=True),
    "maximum": lambda x: torch.maximum(x[:, :2], 0.3 * x[:, 2:4]),
    "minimum with a number": lambda x: torch.minimum(x, torch.full((), 0.2, dtype=x.dtype)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_calibrated_is_exact(name):
    net = Applied(REDUCTIONS[name])
    image = noise(1, 6, (5, 4), dtype=torch.float64)
    prediction = predicted_field(net, None, (5, 4), channels=6, variant="calibrated", images=image)
    np.testing.assert_allclose(prediction.map.values, exact_energy(net, prediction.field, image), rtol=1e-9, atol=1e-15)


class Scaled(nn.Module):
    """Channels of different means and spreads, then a function of them."""

    shift = torch.tensor([0.0, 1.0, -0.5, 0.3]).reshape(1, 4, 1, 1)
    scale = torch.tensor([1.0, 0.5, 2.0, 0.1]).reshape(1, 4, 1, 1)

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x * self.scale + self.shift)


@pytest.mark.parametrize(
    "function",
    [
        lambda z: z.amax(1, keepdim=True),
        lambda z: z.amin(1, keepdim=True),
        lambda z: z.relu().amax(1, keepdim=True),
        lambda z: z.var(1, keepdim=True),
        lambda z: torch.maximum(z[:, :2], z[:, 2:]),
        lambda z: torch.minimum(z[:, :2], z[:, 2:]),
        lambda z: z.amax(1, keepdim=True) * 3 + 1,
    ],
)
def test_data_free_is_the_mean_over_draws(function):
    """Of elements with different means and spreads, where each has a probability of its own."""
    prediction = predicted_field(Scaled(function), None, (2, 2), channels=4, unit=(0, 0))
    images = noise(40_000, 4, (1, 1), dtype=torch.float64).requires_grad_(True)
    outputs = Scaled(function)(images)
    signs = noise(40_000, outputs.shape[1], (1, 1), seed=2, dtype=torch.float64).sign()
    (gradient,) = torch.autograd.grad((outputs * signs).sum(), images)
    assert prediction.total == pytest.approx(float(gradient.square().sum(1).mean()), rel=0.02)


def test_moments_of_an_extreme_are_those_of_draws():
    """The energy of y^2 is 4 E[y^2] times that of y."""
    draws = noise(1, 1, (100_000, 12), dtype=torch.float64)
    pairs = {
        lambda x: x.amax(1, keepdim=True): draws.amax(-1),
        lambda x: torch.minimum(x[:, :1], x[:, 1:2]): draws[..., :2].amin(-1),
    }
    for function, drawn in pairs.items():
        prediction = predicted_field(Applied(lambda x, f=function: f(x).square()), None, (2, 2), channels=12)
        assert prediction.total == pytest.approx(4 * float(drawn.square().mean()), rel=0.02)


@pytest.mark.parametrize("count", [2, 12])
def test_closed_forms_of_white_noise(count):
    """E (dy / dx)^2 summed over N elements: 1 for the largest, 4 / (N - 1) for the variance, 1 / (N - 1) for its root."""

    def total(function):
        return predicted_field(Applied(function), None, (2, 2), channels=count, unit=(0, 0)).total

    assert total(lambda x: x.amax(1, keepdim=True)) == pytest.approx(1, rel=1e-5)
    assert total(lambda x: x.var(1, keepdim=True)) == pytest.approx(4 / (count - 1), rel=1e-5)
    assert total(lambda x: x.std(1, keepdim=True)) == pytest.approx(1 / (count - 1), rel=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.gather(1, x.argmax(1, keepdim=True)), "operation 'aten.argmax'"),
        (lambda x: x.gather(1, x.max(1, keepdim=True)[1]), "positions or a mask that depend on the input"),
        (lambda x: torch.where(x > 0, x, x * 0.1), "operation 'aten.gt'"),
        (lambda x: x.scatter(1, torch.zeros(1, 1, 4, 4, dtype=torch.long), x, reduce="multiply"), "by 'multiply'"),
        (lambda x: torch.maximum(x, x), "an extreme of one activation and itself"),
    ],
)
def test_forms_without_a_rule_say_so(function, message):
    with pytest.raises(UnknownOperationError, match=f"no energy rule for.*{message}"):
        predicted_field(Applied(function), None, (4, 4))
