"""A ResNet of one stage, with and without its shortcuts, of the same random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet


class PlainBlock(BasicBlock):
    """A basic block without its addition."""

    def forward(self, x: Tensor) -> Tensor:
        """The residual branch alone."""
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


def resnet(kind: str, blocks: int = 16) -> ResNet:
    """The stem and the first stage of torchvision's ResNet at initialisation (He et al. 2015), with that many basic blocks.

    kind: plain, without shortcuts; residual, with them; in both batch norm is the identity, as it is before the first
    batch. normalised: with shortcuts, and batch norm with the statistics of eight images of white noise.
    """
    network = ResNet(PlainBlock if kind == "plain" else BasicBlock, [blocks, 1, 1, 1])
    if kind == "normalised":
        _see(network, torch.randn(8, 3, 96, 96))
    return network


@torch.no_grad()
def _see(network: nn.Module, images: Tensor) -> None:
    """Give batch norm the statistics of the images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average over all batches, which are one
    network.train()(images)
