"""Layers that several networks are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


def separable(channels: int) -> nn.Sequential:
    """A 3×3 convolution as one in space and one across channels (Howard et al. 2017, MobileNets)."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


class Residual(nn.Module):
    """Two plain 3×3 convolutions around a shortcut (He et al. 2016, basic block)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, channels)
        self.second = conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Down(nn.Sequential):
    """Halve the resolution, then refine with ``blocks`` residual blocks."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__(
            conv_bn(inputs, outputs, stride=2), nn.ReLU(), *(Residual(outputs) for _ in range(blocks))
        )
