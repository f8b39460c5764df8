"""Convolutions whose kernel depends on the input: energy by the image under the kernel, and by the kernel itself."""

import numpy as np
import pytest
import torch
from test_predicted_field import Applied, exact_energy, noise
from torch import nn
from torch.nn import functional

from erflab.theory.predicted import predicted_field

# The kernel is made of channels that the convolution itself does not read: the two ways of the gradient do not meet.
FORMS = {
    "plain": lambda x: functional.conv2d(x[:, :1], x[:, 1:5, 1:4, 2:5].transpose(0, 1), padding=1),
    "grouped": lambda x: functional.conv2d(
        x[:, :4], x[:, 4:].reshape(4, 2, 6, 7)[:, :, :3, :3], stride=2, groups=2, padding=1
    ),
    "transposed": lambda x: functional.conv_transpose2d(x[:, :2], x[:, 2:6, :2, :2].unflatten(1, (2, 2))[0], stride=2),
    "bias": lambda x: functional.conv2d(
        x[:, :1], x[:, 1:3, :1, :3].transpose(0, 1), x[0, 3:5, 5, 6], padding="same", dilation=2
    ),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_calibrated_is_exact(name):
    net = Applied(FORMS[name])
    image = noise(1, 12, (6, 7), dtype=torch.float64)
    prediction = predicted_field(net, None, (6, 7), (1, 2), channels=12, variant="calibrated", images=image)
    np.testing.assert_allclose(prediction.map.values, exact_energy(net, prediction.field, image), rtol=1e-9, atol=1e-15)


def test_data_free_is_the_mean_over_draws():
    """White noise of variance 1: every tap under the unit gets the kernel's square, every kernel element the image's."""
    prediction = predicted_field(Applied(FORMS["plain"]), None, (6, 7), (3, 3), channels=12)
    images = noise(300, 12, (6, 7), dtype=torch.float64)
    truth = np.mean([exact_energy(Applied(FORMS["plain"]), prediction.field, image[None]) for image in images], 0)
    np.testing.assert_allclose(prediction.map.values, truth, rtol=0.25, atol=1e-12)
    assert prediction.total == pytest.approx(4 * 9 + 4 * 9)


class Routed(nn.Module):
    """Conditionally parameterised convolution (Yang et al. 2019): a mix of kernels by gates of the pooled input."""

    def __init__(self):
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(3, 4 * 8 * 9, generator=torch.Generator().manual_seed(0)) / 8)
        self.route = nn.Linear(8, 3)

    def forward(self, x):
        gates = torch.sigmoid(self.route(x.mean((2, 3))))
        return functional.conv2d(x, (gates @ self.kernels).reshape(4, 8, 3, 3), padding=1)


def test_a_mix_of_kernels_against_jacobians():
    """Mean of exact fields over eight images, from which it scatters by a percent or two."""
    torch.manual_seed(0)
    net = Routed().double().requires_grad_(False)
    images = noise(8, 8, (12, 12), dtype=torch.float64)
    field = predicted_field(net, None, (12, 12), channels=8).field
    truth = np.mean([exact_energy(net, field, image[None]).sum() for image in images])
    for variant, given in (("data_free", None), ("calibrated", images)):
        prediction = predicted_field(net, None, (12, 12), channels=8, variant=variant, images=given)
        assert prediction.total == pytest.approx(truth, rel=0.02)
