"""Small networks with known fields, and exact references computed without erflab."""

import torch
from torch import Tensor, nn


def small_net(channels: int = 4, seed: int = 0) -> nn.Module:
    """Two stages with a stride, a ReLU, a pooling and a skip, float64, C = `channels` at its end."""
    torch.manual_seed(seed)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
            self.body = nn.Conv2d(channels, channels, 3, padding=1)
            self.pool = nn.MaxPool2d(2)
            self.head = nn.Conv2d(channels, channels, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            x = x + torch.tanh(self.body(x))
            return self.head(self.pool(x))

    return Net().double().eval().requires_grad_(False)


def uniform_stack(layers: int, kernel: int) -> nn.Sequential:
    """`layers` convolutions of one channel whose weights are all 1 / kernel^2, float64."""
    convolutions = [nn.Conv2d(1, 1, kernel, padding=kernel // 2, bias=False) for _ in range(layers)]
    for convolution in convolutions:
        nn.init.constant_(convolution.weight, 1 / kernel**2)
    return nn.Sequential(*convolutions).double().eval().requires_grad_(False)


def jacobian(net: nn.Module, image: Tensor, unit: tuple[int, int]) -> Tensor:
    """dy_c(unit) / dx_k(p) of one image [K, H, W], as [C, K, H, W], by torch's full Jacobian."""
    found = torch.autograd.functional.jacobian(lambda x: net(x[None])[0, :, unit[0], unit[1]], image)
    assert isinstance(found, Tensor)
    return found
